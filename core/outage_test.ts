import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { MetricsRegistry } from "./metrics.ts";
import { Outage } from "./outage.ts";

Deno.test("Outage logs its begin once for each reason, and its end once no use fails", () => {
  const log = new RecordingLog();
  const metrics = new MetricsRegistry();
  const outage = new Outage("the store", "answers", log, metrics.counter("outages", "Outages."));
  outage.worked("read");
  assert.deepEqual(log.events, []);
  outage.failed("read", "refused, attempt 1", "refused");
  outage.failed("read", "refused, attempt 2", "refused");
  outage.failed("write", "disk full");
  assert.deepEqual(log.events, ["warn outage", "warn outage"]);
  outage.worked("read");
  assert.equal(log.of("outage-over").length, 0, "writing still fails");
  outage.worked("write", "read");
  assert.equal(log.of("outage-over").length, 1);
  assert.equal(metrics.value("outages"), 1);
  outage.failed("read", "refused, attempt 3", "refused");
  assert.equal(log.of("outage").length, 3, "a new outage is said again");
  assert.equal(metrics.value("outages"), 2);
});
