import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { MetricsRegistry } from "./metrics.ts";
import { Outage, OutageCount } from "./outage.ts";

Deno.test("Outage logs its begin once for each reason, and its end once no use fails", () => {
  const log = new RecordingLog();
  const metrics = new MetricsRegistry();
  const count = new OutageCount(metrics.counter("outages", "Outages."));
  const outage = new Outage("the store", "answers", log, count);
  outage.worked("read");
  assert.deepEqual(log.events, []);
  outage.failed("read", "refused, attempt 1", "refused");
  outage.failed("read", "refused, attempt 2", "refused");
  outage.failed("write", "disk full");
  assert.deepEqual(log.events, ["warn outage", "warn outage"]);
  outage.worked("read");
  assert.ok(count.seconds > 0);
  assert.equal(log.of("outage-over").length, 0, "writing still fails");
  outage.worked("write", "read");
  assert.equal(log.of("outage-over").length, 1);
  assert.equal(metrics.value("outages"), 1);
  assert.equal(count.seconds, 0);
  outage.failed("read", "refused, attempt 3", "refused");
  assert.equal(log.of("outage").length, 3, "a new outage is said again");
  assert.equal(metrics.value("outages"), 2);
});
