import { ConfigError } from "@denim/core";
import assert from "node:assert/strict";
import { parseFlags } from "./main.ts";

Deno.test("converge and cni as the issue has them, unless told otherwise", () => {
  assert.deepEqual(parseFlags([]), {
    benches: ["converge", "cni"],
    runs: 5,
    peers: [1000, 5000, 20_000],
    pods: 20,
    atOnce: 16,
    seconds: 4,
  });
  assert.deepEqual(
    parseFlags(["cni", "--runs", "2", "--pods=30", "--at-once", "8", "--peers", "7,9"]),
    { benches: ["cni"], runs: 2, peers: [7, 9], pods: 30, atOnce: 8, seconds: 4 },
  );
  assert.deepEqual(parseFlags(["udp", "--seconds", "9"]), {
    ...parseFlags([]) as object,
    benches: ["udp"],
    seconds: 9,
  });
  assert.equal(parseFlags(["cni", "--help"]), "help");
});

const WRONG: readonly (readonly [args: string[], names: RegExp])[] = [
  [["converse"], /^converse: no such bench; there are converge, cni, udp$/],
  [["--run", "3"], /^--run: no such flag/],
  [["-n", "3"], /^-n: no such flag/],
  [["--runs"], /^--runs : must be/],
  [["--runs", "0"], /^--runs 0: must be/],
  [["--runs", "1.5"], /^--runs 1\.5: must be/],
  [["--runs", "1,2"], /^--runs 1,2: must be one number/],
  [["--runs", "1", "--runs", "2"], /^--runs is given more than once/],
  [["--peers", "1000,many"], /^--peers 1000,many: must be/],
  [["--peers", "60001"], /^--peers 60001: must be whole numbers from 1 to 60000/],
  [["--pods", "251"], /^--pods 251: must be/],
  [["--at-once", "-1"], /^-1: no such flag|^--at-once/],
];

for (const [args, names] of WRONG) {
  Deno.test(`wrong usage: ${args.join(" ")}`, () => {
    assert.throws(() => parseFlags(args), (error) => {
      assert(error instanceof ConfigError);
      assert.match(error.message, names);
      return true;
    });
  });
}
