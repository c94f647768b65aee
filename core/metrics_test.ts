import assert from "node:assert/strict";
import { MetricsRegistry } from "./metrics.ts";

Deno.test("MetricsRegistry gives one counter for the same name and labels", () => {
  const metrics = new MetricsRegistry();
  metrics.counter("denim_steps_total", "Steps.", { kind: "route", action: "put" }).add();
  metrics.counter("denim_steps_total", "Steps.", { action: "put", kind: "route" }).add(2);
  metrics.counter("denim_steps_total", "Steps.", { action: "put", kind: "fdb" });
  assert.deepEqual(
    metrics.samples().map(({ labels, value }) => [labels.kind, value]),
    [["route", 3], ["fdb", 0]],
  );
  assert.equal(metrics.value("denim_steps_total"), undefined);
});

Deno.test("MetricsRegistry reads a gauge when asked, the latest of a name", () => {
  const metrics = new MetricsRegistry();
  let peers = 1;
  metrics.gauge("denim_peers", "Peers.", () => -1);
  metrics.gauge("denim_peers", "Peers.", () => peers);
  peers = 5;
  assert.deepEqual(metrics.samples(), [
    { name: "denim_peers", help: "Peers.", type: "gauge", labels: {}, value: 5 },
  ]);
});
