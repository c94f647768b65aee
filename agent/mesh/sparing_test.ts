import { RuntimeError } from "@denim/core";
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

Deno.test("a question without an answer rests as well, unless it was not waited for", async () => {
  let nowMs = 0, count = 0;
  const ask = sparing((signal) => {
    nowMs += 4_000;
    count++;
    return Promise.reject(signal.reason ?? new RuntimeError("busy"));
  }, { nowMs: () => nowMs });
  await assert.rejects(ask(AbortSignal.abort()), { name: "AbortError" });
  await assert.rejects(ask(NEVER), /busy/);
  await assert.rejects(ask(NEVER), /busy/);
  assert.equal(count, 2);
  nowMs += 5_000;
  const late = AbortSignal.abort(new DOMException("too late", "TimeoutError"));
  await assert.rejects(ask(late), /too late/);
  await assert.rejects(ask(NEVER), /too late/);
  assert.equal(count, 3);
});
