import assert from "node:assert/strict";
import { countTests } from "./junit.ts";
import { runSupervised, type SupervisedResult } from "./run_supervised.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

/** Runs a test file under supervision, and gives its report as well. */
async function supervise(
  source: string,
  silenceMs: number,
): Promise<SupervisedResult & { readonly counts: ReturnType<typeof countTests> }> {
  using temp = new TempFolder();
  const folder = temp.path;
  await Deno.writeTextFile(`${folder}/deno.json`, "{}");
  await Deno.writeTextFile(`${folder}/a_test.ts`, source);
  const result = await runSupervised(Deno.execPath(), {
    args: ["test", "--quiet", "--no-check", "--junit-path=report.xml"],
    cwd: folder,
    env: { NO_COLOR: "1" },
    silenceMs,
    write: () => {},
  });
  return { ...result, counts: countTests(await Deno.readTextFile(`${folder}/report.xml`)) };
}

Deno.test("runSupervised() ends a test that hangs, which counts as a failure", async () => {
  const { success, hungAt, counts } = await supervise(
    `Deno.test("passes", () => {});
     Deno.test("hangs", () => new Promise((resolve) => setTimeout(resolve, 1e9)));
     Deno.test("never runs", () => {});`,
    // Longer than a program says nothing at its start, also on a busy machine.
    10_000,
  );
  assert.equal(success, false);
  assert.match(hungAt!, /^hangs \.\.\./);
  assert.deepEqual(counts, {
    passed: 1,
    failed: ["hangs\n    It was interrupted."],
    skipped: [],
  });
});

Deno.test("runSupervised() leaves a program alone that ends by itself", async () => {
  const { success, hungAt, counts } = await supervise(`Deno.test("a", () => {});`, 60_000);
  assert.deepEqual([success, hungAt, counts.passed], [true, undefined, 1]);
});
