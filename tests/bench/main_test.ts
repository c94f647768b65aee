import assert from "node:assert/strict";
import { type Plan, runBench } from "./main.ts";

/** What would be measured; nothing if the arguments are refused or ask for help. */
async function planOf(args: readonly string[]): Promise<Plan | undefined> {
  let plan: Plan | undefined;
  await runBench(args, (given) => {
    plan = given;
    return Promise.resolve();
  });
  return plan;
}

const USUAL = {
  benches: ["converge", "cni"],
  runs: 5,
  peers: [100, 1000, 5000, 20_000],
  against: undefined,
  plot: undefined,
  pods: 20,
  atOnce: 16,
  seconds: 4,
  nodes: 5_000,
};

Deno.test("converge and cni with the usual numbers, unless told otherwise", async () => {
  assert.deepEqual(await planOf([]), USUAL);
  assert.deepEqual(
    await planOf(["cni", "--runs", "2", "--pods=30", "--at-once", "8", "--peers", "7,9,7"]),
    { ...USUAL, benches: ["cni"], runs: 2, peers: [7, 9], pods: 30, atOnce: 8 },
  );
  assert.deepEqual(await planOf(["udp", "--seconds", "9"]), {
    ...USUAL,
    benches: ["udp"],
    seconds: 9,
  });
});

const WRONG: readonly (readonly string[])[] = [
  ["converse"],
  ["--run", "3"],
  ["-n", "3"],
  ["--runs"],
  ["--runs", "0"],
  ["--runs", "1.5"],
  ["--runs", "1,2"],
  ["--peers", "1000,many"],
  ["--peers", "60001"],
  ["--pods", "251"],
  ["--at-once", "-1"],
];

for (const args of WRONG) {
  Deno.test(`wrong usage: ${args.join(" ")}`, async () => {
    assert.equal(await runBench(args, () => assert.fail("measured")), 2);
  });
}
