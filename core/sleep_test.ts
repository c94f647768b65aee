import assert from "node:assert/strict";
import { msToTick, sleep } from "./sleep.ts";

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

Deno.test("ticks: whoever waits for them is woken at the same moments, and not too soon", async () => {
  const moment = (everyMs: number) => {
    for (;;) {
      const nowMs = performance.now();
      const tickMs = nowMs + msToTick(everyMs);
      // Else the process was paused in between.
      if (performance.now() - nowMs < 1) return tickMs;
    }
  };
  const [one, other] = [moment(40), moment(80)];
  const apartMs = Math.abs(one - other) % 40;
  assert.ok(Math.min(apartMs, 40 - apartMs) < 5, `${apartMs} ms`);
  await sleep(msToTick(40), new AbortController().signal);
  const waitMs = msToTick(40);
  assert.ok(waitMs >= 20 && waitMs <= 60, `${waitMs} ms`);
  assert.equal(msToTick(Infinity), Infinity);
});
