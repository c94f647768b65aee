import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { RecentLog } from "./recent_log.ts";

Deno.test("RecentLog hands everything on, and keeps the latest warnings and errors", () => {
  const written = new RecordingLog();
  const log = new RecentLog(written);
  log.info("ready", "this node is ready");
  for (let number = 0; number < 30; number++) log.warn("outage", `number ${number}`);
  log.error("defect", "twice");
  log.error("defect", "twice");
  assert.equal(written.records.length, 33);
  assert.equal(log.lines.length, 20);
  assert.equal(log.lines[0]!.message, "number 11");
  assert.deepEqual(log.lines.slice(-2).map(({ event, times }) => [event, times]), [
    ["outage", 1],
    ["defect", 2],
  ]);
});
