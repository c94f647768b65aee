import assert from "node:assert/strict";
import { Pace } from "./pace.ts";

/** Has a program change an object `restMs` after each mend; tells how long each mend was waited for. */
function fight(pace: Pace, mends: number, restMs: number | (() => number), nowMs = 0) {
  const waitsMs: number[] = [];
  const told: number[] = [];
  for (let count = 0; count < mends; count++) {
    nowMs += typeof restMs === "number" ? restMs : restMs();
    const waitMs = pace.waitMs("a", nowMs);
    waitsMs.push(waitMs);
    nowMs += waitMs;
    assert.equal(pace.waitMs("a", nowMs), 0, "its time has come");
    const restless = pace.mended("a", nowMs);
    if (restless !== undefined) told.push(restless.mends);
  }
  return { waitsMs, told, nowMs };
}

Deno.test("what is changed again at once waits twice as long each time, up to 0.8 s", () => {
  const { waitsMs, told } = fight(new Pace(), 24, 1);
  assert.deepEqual(waitsMs.slice(0, 10), Array(10).fill(0));
  assert.deepEqual(
    waitsMs.slice(10).map((waitMs) => Math.round(waitMs / 10) * 10),
    [20, 40, 80, 160, 320, 640, ...Array(8).fill(800)],
  );
  assert.deepEqual(told, [10], "told once");
});

Deno.test("faults that come one by one are mended at once, however many", () => {
  const pace = new Pace();
  assert.equal(Math.max(...fight(pace, 1000, 2_000).waitsMs), 0);
  assert.ok(!pace.isRestless("a"));
  // A burst of them, then one every half second or so.
  let seed = 1;
  const random = () => 500 + 500 * ((seed = seed * 48_271 % 0x7fff_ffff) / 0x7fff_ffff);
  const burst = fight(new Pace(), 8, 50);
  assert.equal(Math.max(...burst.waitsMs), 0);
  assert.ok(Math.max(...fight(new Pace(), 20, random).waitsMs) < 500);
});

Deno.test("one object's waits are no other's", () => {
  const pace = new Pace();
  const { nowMs } = fight(pace, 20, 1);
  assert.ok(pace.waitMs("a", nowMs + 1) > 700);
  assert.equal(pace.waitMs("b", nowMs + 1), 0);
});

Deno.test("a wait is over when it is over, whoever asks meanwhile", () => {
  const pace = new Pace();
  const { nowMs } = fight(pace, 20, 1);
  const waitMs = pace.waitMs("a", nowMs + 1);
  assert.equal(pace.waitMs("a", nowMs + 101), waitMs - 100);
  assert.equal(pace.waitMs("a", nowMs + 20_000), 0);
});

Deno.test("what is left alone is soon put right at once again, and forgotten", () => {
  const pace = new Pace();
  const { nowMs } = fight(pace, 30, 1);
  assert.ok(pace.isRestless("a"));
  assert.deepEqual(pace.forget(nowMs + 30_000), []);
  assert.ok(pace.waitMs("a", nowMs + 10_000) < 300);
  assert.equal(pace.mended("a", nowMs + 11_000), undefined, "the same episode");
  assert.equal(pace.waitMs("a", nowMs + 31_000), 0);
  pace.mended("a", nowMs + 31_000);
  assert.deepEqual(pace.forget(nowMs + 60_000), [{ key: "a", mends: 32, sinceMs: 1 }]);
  assert.ok(!pace.isRestless("a"));
  // A new one starts from the beginning.
  assert.deepEqual(fight(pace, 12, 1, nowMs + 60_000).told, [10]);
});
