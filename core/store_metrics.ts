/**
 * What every store counts.
 *
 * @module
 */

import type { Counter, Metrics } from "./metrics.ts";
import { OutageCount } from "./outage.ts";

/** For how long a store cannot be used, as {@link storeMetrics} exports it. */
export const STORE_OUTAGE_SECONDS = "denim_store_outage_seconds";

/** One store's counters. */
export interface StoreMetrics {
  /** Attempts to read or write the store. */
  readonly requests: Counter;
  /** Attempts that failed. */
  readonly failures: Counter;
  /** Times from which on the store could not be used. */
  readonly outages: OutageCount;
  /** Watches that broke, or had to begin again for another reason. */
  readonly watchRestarts: Counter;
}

/** The counters of one kind of store: `denim_store_requests_total{store="etcd"}` and so on. */
export function storeMetrics(metrics: Metrics, store: string): StoreMetrics {
  const counter = (what: string, help: string) =>
    metrics.counter(`denim_store_${what}_total`, help, { store });
  const outages = new OutageCount(
    counter("outages", "Times from which on the store could not be used."),
  );
  metrics.gauge(
    STORE_OUTAGE_SECONDS,
    "For how long the store could not be used, in seconds; 0 while it can.",
    () => outages.seconds,
    { store },
  );
  return {
    requests: counter("requests", "Attempts to read or write the store."),
    failures: counter("failures", "Attempts to read or write the store that failed."),
    outages,
    watchRestarts: counter("watch_restarts", "Watches of the store that began again."),
  };
}
