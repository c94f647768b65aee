import assert from "node:assert/strict";
import { NEVER } from "../../tests/support/wait.ts";
import { sparing } from "./sparing.ts";

/** How often a question is asked in a minute in which somebody wants to know each second, by what an answer takes. */
async function asked(answerMs: number): Promise<number> {
  let nowMs = 0, count = 0;
  const ask = sparing(() => {
    nowMs += answerMs;
    return Promise.resolve(++count);
  }, { nowMs: () => nowMs });
  for (let second = 0; second < 60; second++) {
    nowMs = Math.max(nowMs, second * 1000);
    assert.equal(await ask(NEVER), count);
  }
  return count;
}

Deno.test("a question is asked each time if it costs little, and seldom if it costs much", async () => {
  assert.equal(await asked(10), 60);
  assert.equal(await asked(100), 20);
  assert.equal(await asked(1000), 10);
});
