import { Cidr, MetricsRegistry, RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { Readiness } from "./readiness.ts";

/** Readiness with a fake of subnet.env on disk, and what happens to it. */
class ReadinessStory {
  readonly log = new RecordingLog();
  readonly metrics = new MetricsRegistry();
  readonly lines: string[] = [];
  mtuBytes = 1450;
  writes: () => void = () => {};
  readonly readiness: Readiness = new Readiness({
    subnetFile: {
      write: ({ mtuBytes }) => {
        this.writes();
        this.lines.push(`written ${mtuBytes}`);
      },
      remove: () => this.lines.push("removed"),
    },
    env: () => {
      const halves = [{ networks: [], subnet: Cidr.parse("10.5.7.0/24") }];
      return { halves, mtuBytes: this.mtuBytes, ipMasq: false };
    },
    publicIps: () => new Map(),
    devices: () => [],
    onReadiness: (unready) => this.lines.push(unready ?? "ready"),
    log: this.log,
    metrics: this.metrics,
  });

  /** The value of the gauge. */
  get gauge(): number | undefined {
    return this.metrics.value("denim_ready");
  }
}

Deno.test("subnet.env is there while the node is ready and its subnet is its own", () => {
  const story = new ReadinessStory(), { readiness, lines } = story;
  readiness.update();
  assert.deepEqual([lines, story.gauge], [[], 0], "not before the node is ready");
  readiness.start();
  assert.deepEqual([lines.splice(0), story.gauge], [["written 1450", "ready"], 1]);
  story.mtuBytes = 1400;
  readiness.update();
  assert.deepEqual(lines.splice(0), ["written 1400"]);
  readiness.setTaken(true);
  readiness.update();
  assert.deepEqual([lines.splice(0), story.gauge], [["removed", "another node has its subnet"], 0]);
  readiness.setTaken(false);
  assert.deepEqual([lines.splice(0), story.gauge], [["written 1400", "ready"], 1]);
});

Deno.test("a node whose subnet is taken before it is ready is not ready", () => {
  const { readiness, lines } = new ReadinessStory();
  readiness.setTaken(true);
  readiness.start();
  assert.deepEqual([readiness.ready, readiness.wasReady], [false, true]);
  assert.ok(!lines.includes("ready") && !lines.some((line) => line.startsWith("written")));
});

Deno.test("a full disk ends a node that starts, and none that runs; a defect ends both", () => {
  const story = new ReadinessStory(), { readiness } = story;
  const fail = (error: Error) => () => {
    throw error;
  };
  story.writes = fail(new RuntimeError("no space left"));
  assert.throws(() => readiness.start(), /no space left/);
  assert.equal(readiness.wasReady, false);
  story.writes = () => {};
  readiness.start();
  story.writes = fail(new RuntimeError("no space left"));
  readiness.update();
  assert.deepEqual(story.log.events, ["error subnet-file-failed"]);
  story.writes = fail(new TypeError("undefined is not a function"));
  assert.throws(() => readiness.update(), TypeError);
});
