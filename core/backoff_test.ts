import assert from "node:assert/strict";
import { Backoff } from "./backoff.ts";

Deno.test("Backoff.next() doubles up to the longest wait, and starts over after reset()", () => {
  const backoff = new Backoff({ minMs: 50, maxMs: 300 });
  assert.deepEqual([1, 2, 3, 4, 5].map(() => backoff.next()), [50, 100, 200, 300, 300]);
  backoff.reset();
  assert.equal(backoff.next(), 50);
});

Deno.test("Backoff.next() takes no more than its jitter off a wait", () => {
  const backoff = new Backoff({ minMs: 100, maxMs: 100, jitter: 0.5 });
  const waits = Array.from({ length: 200 }, () => backoff.next());
  assert(waits.every((waitMs) => waitMs > 50 && waitMs <= 100));
  assert(new Set(waits).size > 100, "waits are random");
});
