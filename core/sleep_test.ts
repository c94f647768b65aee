import assert from "node:assert/strict";
import { sleep } from "./sleep.ts";

Deno.test("sleep: tells whether the time was over, and leaves no timer and no listener", async () => {
  const ending = new AbortController();
  const startMs = performance.now();
  assert.equal(await sleep(20, ending.signal), true);
  assert.ok(performance.now() - startMs >= 19);
  const sleeping = sleep(60_000, ending.signal);
  ending.abort();
  assert.equal(await sleeping, false);
  assert.equal(await sleep(60_000, ending.signal), false);
  assert.ok(performance.now() - startMs < 10_000);
});

Deno.test("sleep: what is longer than a timer can wait does not end at once", async () => {
  const ending = new AbortController();
  const sleeping = sleep(Number.MAX_SAFE_INTEGER, ending.signal);
  const first = await Promise.race([sleeping, sleep(20, ending.signal).then(() => "the other")]);
  assert.equal(first, "the other");
  ending.abort();
  assert.equal(await sleeping, false);
});
