import assert from "node:assert/strict";
import process from "node:process";
import { EventCounter } from "./event_counter.ts";

Deno.test("a wait ends with the next event, with one that was missed, with its time, with the signal", async () => {
  const events = new EventCounter();
  const ending = new AbortController();
  const startMs = performance.now();
  const { count } = events;
  const waiting = [1, 2].map(() => events.after(count, 60_000, ending.signal));
  events.add();
  assert.deepEqual(await Promise.all(waiting), [true, true]);
  assert.equal(await events.after(count, 60_000, ending.signal), true, "it happened meanwhile");
  assert.equal(await events.after(events.count, 20, ending.signal), true);
  assert.ok(performance.now() - startMs >= 19);
  const last = events.after(events.count, 60_000, ending.signal);
  ending.abort();
  assert.equal(await last, false);
  assert.equal(await events.after(count, 60_000, ending.signal), false);
  assert.ok(performance.now() - startMs < 10_000);
});

Deno.test("a wait whose time is over already ends, and writes no warning among the log's lines", async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on("warning", onWarning);
  try {
    const events = new EventCounter();
    const { signal } = new AbortController();
    assert.equal(await events.after(events.count, -0.5, signal), true);
    // Deno warns in the turn after.
    await events.after(events.count, 1, signal);
    assert.deepEqual(warnings, []);
  } finally {
    process.off("warning", onWarning);
  }
});
