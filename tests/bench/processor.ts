/**
 * The processor time that an agent uses.
 *
 * @module
 */

import { RuntimeError, sleep } from "@denim/core";
import { readProcStat } from "@denim/core/linux/proc-files";
import type { LabNode } from "@denim/agent/lab";

/** The kernel counts processor time in hundredths of a second (proc_pid_stat(5)). */
const TICK_US = 10_000;

/** What a process has used, in microseconds, of which ticks are 10,000: all, and of this in user mode. */
export interface ProcessorTime {
  readonly all: number;
  readonly user: number;
}

/** What a node's agent has used since it was started. Throws a RuntimeError if none runs. */
export function processorUs({ name, agentPid, logFile }: LabNode): ProcessorTime {
  if (agentPid === undefined) {
    throw new RuntimeError(`the agent of ${name} has ended:\n${Deno.readTextFileSync(logFile)}`);
  }
  return processUs(agentPid);
}

/** What a node's agent uses in a second, watched for some: ticks count in full, so many seconds tell more. */
export async function processorInSecond(
  node: LabNode,
  seconds: number,
  signal: AbortSignal,
): Promise<ProcessorTime> {
  const [startMs, before] = [performance.now(), processorUs(node)];
  await sleep(seconds * 1000, signal);
  const after = processorUs(node);
  const inSecond = (us: number) => 1000 * us / (performance.now() - startMs);
  return { all: inSecond(after.all - before.all), user: inSecond(after.user - before.user) };
}

/** What a process has used. */
export function processUs(pid: number): ProcessorTime {
  return used(pid, 11);
}

/** What those processes have used that this one started, and that have ended. */
export function childrenUs(): ProcessorTime {
  return used(Deno.pid, 13);
}

/** Two fields of a process's state, by the place of the first in {@link readProcStat}. */
function used(pid: number, first: number): ProcessorTime {
  const fields = readProcStat(pid);
  const [user, system] = [TICK_US * Number(fields[first]), TICK_US * Number(fields[first + 1])];
  return { all: user + system, user };
}
