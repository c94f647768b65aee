import assert from "node:assert/strict";
import { whileProgress } from "./lab.ts";
import { NEVER } from "../../tests/support/wait.ts";

Deno.test("whileProgress() waits for as long as there is progress", async () => {
  let looks = 0;
  const waited: number[] = [];
  const done = await whileProgress({
    until: () => looks >= 20,
    progress: () => `${++looks}`,
    onWait: () => waited.push(looks),
    lookMs: 1,
  }, NEVER);
  assert.equal(done, true);
  assert.equal(waited.length, 20);
});

Deno.test("whileProgress() gives up after three looks without progress", async () => {
  const steps = ["a", "a", "a", "b", "b", "b", "b", "c"];
  let looks = 0;
  const wait = { until: () => false, progress: () => steps[looks++]!, lookMs: 1 };
  assert.equal(await whileProgress(wait, NEVER), false);
  assert.equal(looks, 7);
});

Deno.test("whileProgress() ends with its signal", async () => {
  const reason = new Error("stopped");
  const wait = { until: () => false, progress: () => "" };
  await assert.rejects(whileProgress(wait, AbortSignal.abort(reason)), reason);
});
