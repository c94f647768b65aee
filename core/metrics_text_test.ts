import assert from "node:assert/strict";
import { MetricsRegistry } from "./metrics.ts";
import { formatMetrics } from "./metrics_text.ts";

Deno.test("formatMetrics keeps a metric's series together, and escapes texts", () => {
  const metrics = new MetricsRegistry();
  metrics.counter("denim_a_total", "A, with a \\ and\na line.", { kind: 'x"y' }).add(2);
  metrics.gauge("denim_b", "B.", () => 1.5);
  metrics.counter("denim_a_total", "A.", { kind: "\\z" });
  metrics.gauge("denim_unknown", "Not known yet.", () => NaN);
  assert.equal(
    formatMetrics(metrics.samples()),
    [
      "# HELP denim_a_total A, with a \\\\ and\\na line.",
      "# TYPE denim_a_total counter",
      'denim_a_total{kind="x\\"y"} 2',
      'denim_a_total{kind="\\\\z"} 0',
      "# HELP denim_b B.",
      "# TYPE denim_b gauge",
      "denim_b 1.5",
      "",
    ].join("\n"),
  );
});

Deno.test("formatMetrics shows a histogram's buckets, each with all that is smaller", () => {
  const metrics = new MetricsRegistry();
  const histogram = metrics.histogram("denim_wait_seconds", "Waits.", [0.1, 1]);
  for (const value of [0.05, 0.1, 0.5, 7]) histogram.observe(value);
  assert.equal(histogram, metrics.histogram("denim_wait_seconds", "Waits.", [0.1, 1]));
  assert.deepEqual(formatMetrics(metrics.samples()).split("\n").slice(2), [
    'denim_wait_seconds_bucket{le="0.1"} 2',
    'denim_wait_seconds_bucket{le="1"} 3',
    'denim_wait_seconds_bucket{le="+Inf"} 4',
    "denim_wait_seconds_sum 7.65",
    "denim_wait_seconds_count 4",
    "",
  ]);
});
