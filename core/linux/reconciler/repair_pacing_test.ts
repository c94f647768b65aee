import assert from "node:assert/strict";
import { RepairPacing } from "./repair_pacing.ts";

/** Has a program change an object `restMs` after each repair; returns the wait before each repair. */
function fight(pacing: RepairPacing, repairs: number, restMs: number | (() => number), nowMs = 0) {
  const waitsMs: number[] = [];
  const reported: number[] = [];
  for (let count = 0; count < repairs; count++) {
    nowMs += typeof restMs === "number" ? restMs : restMs();
    const waitMs = pacing.waitMs("a", nowMs);
    waitsMs.push(waitMs);
    nowMs += waitMs;
    assert.equal(pacing.waitMs("a", nowMs), 0, "its time has come");
    const contest = pacing.repaired("a", nowMs);
    if (contest !== undefined) reported.push(contest.repairs);
  }
  return { waitsMs, reported, nowMs };
}

Deno.test("what is changed again at once waits twice as long each time, up to 0.8 s", () => {
  const { waitsMs, reported } = fight(new RepairPacing(), 24, 1);
  assert.deepEqual(waitsMs.slice(0, 10), Array(10).fill(0));
  assert.deepEqual(
    waitsMs.slice(10).map((waitMs) => Math.round(waitMs / 10) * 10),
    [20, 40, 80, 160, 320, 640, ...Array(8).fill(800)],
  );
  assert.deepEqual(reported, [10], "reported once");
});

Deno.test("faults that come one by one are repaired at once, however many", () => {
  const pacing = new RepairPacing();
  assert.equal(Math.max(...fight(pacing, 1000, 2_000).waitsMs), 0);
  assert.ok(!pacing.isContested("a"));
  // A burst of them, then one every half second or so.
  let seed = 1;
  const random = () => 500 + 500 * ((seed = seed * 48_271 % 0x7fff_ffff) / 0x7fff_ffff);
  const burst = fight(new RepairPacing(), 8, 50);
  assert.equal(Math.max(...burst.waitsMs), 0);
  assert.ok(Math.max(...fight(new RepairPacing(), 20, random).waitsMs) < 500);
});

Deno.test("one object's waits are no other's", () => {
  const pacing = new RepairPacing();
  const { nowMs } = fight(pacing, 20, 1);
  assert.ok(pacing.waitMs("a", nowMs + 1) > 700);
  assert.equal(pacing.waitMs("b", nowMs + 1), 0);
});

Deno.test("a wait is over when it is over, whoever asks meanwhile", () => {
  const pacing = new RepairPacing();
  const { nowMs } = fight(pacing, 20, 1);
  const waitMs = pacing.waitMs("a", nowMs + 1);
  assert.equal(pacing.waitMs("a", nowMs + 101), waitMs - 100);
  assert.equal(pacing.waitMs("a", nowMs + 20_000), 0);
});

Deno.test("what is left alone is soon put right at once again, and forgotten", () => {
  const pacing = new RepairPacing();
  const { nowMs } = fight(pacing, 30, 1);
  assert.ok(pacing.isContested("a"));
  assert.deepEqual(pacing.removeCalm(nowMs + 30_000), []);
  assert.ok(pacing.waitMs("a", nowMs + 10_000) < 300);
  assert.equal(pacing.repaired("a", nowMs + 11_000), undefined, "the same episode");
  assert.equal(pacing.waitMs("a", nowMs + 31_000), 0);
  pacing.repaired("a", nowMs + 31_000);
  assert.deepEqual(pacing.removeCalm(nowMs + 60_000), [{ key: "a", repairs: 32, sinceMs: 1 }]);
  assert.ok(!pacing.isContested("a"));
  // A new one starts from the beginning.
  assert.deepEqual(fight(pacing, 12, 1, nowMs + 60_000).reported, [10]);
});
