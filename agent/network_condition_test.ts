import { RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { FakeClock, settled } from "../tests/support/fake_clock.ts";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { NetworkCondition, PATIENCE_MS } from "./network_condition.ts";

/** A condition under way, and a fake of its store, which remembers what it was told. */
class Story implements AsyncDisposable {
  readonly log = new RecordingLog();
  readonly clock = new FakeClock();
  readonly told: boolean[] = [];
  answer: (signal: AbortSignal) => Promise<void> = () => Promise.resolve();
  readonly condition: NetworkCondition = new NetworkCondition({
    store: {
      setNetworkUnavailable: async (unavailable, signal) => {
        this.told.push(unavailable);
        await this.answer(signal);
      },
    },
    clock: this.clock,
    log: this.log,
  });
  readonly #stopping = new AbortController();
  readonly running: Promise<void> = this.condition.run(this.#stopping.signal);

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.running;
  }
}

Deno.test("the cluster is told of a network at once, and of none after a while", async () => {
  await using story = new Story();
  const { condition, clock, told } = story;
  await clock.advance(10 * PATIENCE_MS);
  condition.repeat();
  await clock.advance(PATIENCE_MS);
  assert.deepEqual(told, [], "of a node that was never ready");
  condition.set(true);
  await clock.advance(0);
  assert.deepEqual(told, [false]);
  condition.set(true);
  condition.set(false);
  await clock.advance(PATIENCE_MS - 1);
  assert.deepEqual(told, [false]);
  await clock.advance(1);
  assert.deepEqual(told, [false, true]);
  condition.set(true);
  await clock.advance(0);
  condition.set(false);
  await clock.advance(PATIENCE_MS / 2);
  condition.set(true);
  await clock.advance(PATIENCE_MS);
  assert.deepEqual(told, [false, true, false, false], "it was not away for long");
  condition.repeat();
  await clock.advance(0);
  assert.deepEqual(told.length, 5);
});

Deno.test("a cluster that refuses is told again, which is said once; one that hangs is overtaken", async () => {
  await using story = new Story();
  const { condition, clock, told, log } = story;
  story.answer = () => Promise.reject(new RuntimeError("nodes/status: patch is forbidden"));
  condition.set(true);
  await clock.advance(10_000);
  assert.ok(told.length > 2);
  assert.deepEqual(log.events, ["error condition-unwritten"]);
  story.answer = (signal) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  await clock.advance(60_000);
  told.length = 0;
  condition.set(false);
  story.answer = () => Promise.resolve();
  await clock.advance(PATIENCE_MS);
  assert.deepEqual([told, log.events.length], [[true], 1]);
});

Deno.test("a defect is not tried again", async () => {
  const story = new Story();
  story.answer = () => Promise.reject(new TypeError("undefined is not a function"));
  story.condition.set(true);
  const rejects = assert.rejects(story.running, TypeError);
  await story.clock.advance(0);
  await settled();
  await rejects;
});
