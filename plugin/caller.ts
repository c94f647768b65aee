/**
 * The process that asks an agent for a call.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { readProcFile } from "@denim/core/linux/proc-files";

/** Which process asks: its number, and when it started, since the number may be another's later. */
export interface Caller {
  /** Its number. */
  readonly pid: number;
  /** When it started, in the kernel's ticks (field 22 of `/proc/PID/stat`, proc(5)). */
  readonly startTicks: string;
}

/** This process. */
export function thisCaller(): Caller {
  return { pid: Deno.pid, startTicks: statOf(Deno.pid)?.startTicks ?? "" };
}

/** Whether the process still runs. One that has ended does not, even if nobody has waited for it yet. */
export function isThere({ pid, startTicks }: Caller): boolean {
  const stat = statOf(pid);
  return stat !== undefined && stat.startTicks === startTicks && !"ZX".includes(stat.state);
}

/** What the kernel says of a process; `undefined` if there is none. */
function statOf(pid: number): { readonly state: string; readonly startTicks: string } | undefined {
  let text: string;
  try {
    text = readProcFile(`/proc/${pid}/stat`);
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
  // The program's name, in brackets before the third field, may have anything in it.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0]!, startTicks: fields[19]! };
}
