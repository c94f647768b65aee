/**
 * What the agent's process uses, under the names that Prometheus's own clients have for it.
 *
 * @module
 */

import type { Metrics } from "@denim/core";
import { listProcFolder, readProcFile, readProcStat } from "@denim/core/linux";

/** The unit of processor times in /proc, of which there are 100 a second on every machine that Linux runs on. */
const TICKS_PER_SECOND = 100;
/** Where the times in user and in kernel mode are in {@link readProcStat}. */
const UTIME = 11, STIME = 12;

/** Has this process's numbers read when somebody asks. */
export function observeProcess(metrics: Metrics): void {
  const startSeconds = (Date.now() - performance.now()) / 1000;
  metrics.observedCounter(
    "process_cpu_seconds_total",
    "Processor time that the agent has used, in seconds.",
    () => {
      const fields = readProcStat("self");
      return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
    },
  );
  metrics.gauge(
    "process_resident_memory_bytes",
    "Memory of the agent that is resident, in bytes.",
    () => Deno.memoryUsage().rss,
  );
  metrics.gauge(
    "process_open_fds",
    "File descriptors that the agent has open.",
    () => listProcFolder("/proc/self/fd").length,
  );
  metrics.gauge(
    "process_max_fds",
    "File descriptors that the agent may have open.",
    () => Number(/^Max open files\s+(\d+)/m.exec(readProcFile("/proc/self/limits"))?.[1] ?? NaN),
  );
  metrics.gauge(
    "process_start_time_seconds",
    "When the agent started, in seconds since 1970.",
    () => startSeconds,
  );
}
