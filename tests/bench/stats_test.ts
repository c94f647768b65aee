import assert from "node:assert/strict";
import { formatTable, quantile, Samples, summarize } from "./stats.ts";

const CASES: readonly (readonly [samples: number[], min: number, median: number, max: number])[] = [
  [[7], 7, 7, 7],
  [[10, 9], 9, 9.5, 10],
  [[10, 9, 100], 9, 10, 100],
  [[4, 1, 3, 2], 1, 2.5, 4],
];

Deno.test("summarize gives the ends and the middle, whatever the order", () => {
  for (const [samples, min, median, max] of CASES) {
    const given = [...samples];
    assert.deepEqual(summarize(samples), { min, median, max }, `${samples}`);
    assert.deepEqual(samples, given);
  }
});

Deno.test("quantile gives what a share of the samples do not exceed", () => {
  const samples = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.equal(quantile(samples, 0.99), 99);
  assert.equal(quantile(samples, 1), 100);
  assert.equal(quantile([7], 0.99), 7);
  assert.throws(() => quantile([], 0.5), RangeError);
});

Deno.test("summarize refuses to sum nothing up", () => {
  assert.throws(() => summarize([]), RangeError);
});

Deno.test("formatTable lines its columns up, measures in the order in which they came", () => {
  const samples = new Samples();
  samples.add("ADD", "ms", 20.04);
  samples.add("peak memory", "MB", 85);
  samples.add("ADD", "ms", 10);
  assert.equal(
    formatTable(samples.measures),
    [
      "             unit  samples  minimum  median  maximum",
      "ADD          ms          2     10.0    15.0     20.0",
      "peak memory  MB          1     85.0    85.0     85.0",
    ].join("\n"),
  );
});
