/**
 * Metrics as Prometheus reads them: its text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 *
 * @module
 */

import type { Labels, Sample } from "./metrics.ts";

/** The format's media type, for `Content-Type`. */
export const METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/**
 * Series as text, those of one metric together. A value that is not a number, such as one that is not known yet, is
 * left out.
 *
 * ```ts
 * import { formatMetrics, MetricsRegistry } from "@denim/core";
 * const metrics = new MetricsRegistry();
 * metrics.counter("denim_steps_total", "Steps.", { kind: "route" }).add(3);
 * console.log(formatMetrics(metrics.samples()));
 * // # HELP denim_steps_total Steps.
 * // # TYPE denim_steps_total counter
 * // denim_steps_total{kind="route"} 3
 * ```
 */
export function formatMetrics(samples: readonly Sample[]): string {
  const metrics = Map.groupBy(
    samples.filter(({ value }) => !Number.isNaN(value)),
    ({ name }) => name,
  );
  return [...metrics].flatMap(([name, series]) => [
    `# HELP ${name} ${escapeText(series[0]!.help)}`,
    `# TYPE ${name} ${series[0]!.type}`,
    ...series.flatMap(lines),
  ]).map((line) => `${line}\n`).join("");
}

function lines({ name, labels, value, buckets }: Sample): string[] {
  if (buckets === undefined) return [`${name}${formatLabels(labels)} ${value}`];
  return [
    ...buckets.map(([bound, count]) => {
      const le = bound === Infinity ? "+Inf" : `${bound}`;
      return `${name}_bucket${formatLabels({ ...labels, le })} ${count}`;
    }),
    `${name}_sum${formatLabels(labels)} ${value}`,
    `${name}_count${formatLabels(labels)} ${buckets.at(-1)![1]}`,
  ];
}

function formatLabels(labels: Labels): string {
  const texts = Object.entries(labels).map(([name, value]) =>
    `${name}="${escapeText(value).replaceAll('"', '\\"')}"`
  );
  return texts.length === 0 ? "" : `{${texts.join(",")}}`;
}

function escapeText(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}
