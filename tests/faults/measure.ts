/**
 * What a fault costs: a steady ping between two pods, the fault, the time until it is mended and the packets
 * lost.
 *
 * @module
 */

import { messageOf } from "@denim/core";
import { formatColumns } from "@denim/agent/columns";
import type { Site } from "./faults.ts";
import { SteadyPing, wallClockMs } from "./steady_ping.ts";
import type { Undergone } from "./undergo.ts";

/** How long a fault is watched that does not heal. */
export const PATIENCE_MS = 5_000;

/** What a fault came to. */
export interface Measured {
  /** From the fault until the kernel was right and pings were answered again; `undefined` if they were not. */
  readonly healedMs: number | undefined;
  /** Pings without an answer; `undefined` if the end was not seen. */
  readonly lost: number | undefined;
  /** What went wrong. */
  readonly error: string | undefined;
}

/** One line of the table. */
export interface Outcome extends Measured {
  /** What carries packets, and where leases live if that is not usual. */
  readonly cluster: string;
  /** What happened. */
  readonly fault: string;
}

/**
 * Pings from the struck node's pod to the peer's while `work` goes on, and then until answers are steady, for
 * `patienceMs` at the most.
 */
export async function measure(
  { at, peer }: Site,
  work: () => Promise<Undergone>,
  patienceMs: number = PATIENCE_MS,
): Promise<Measured> {
  try {
    await using ping = await SteadyPing.start(at.pod, peer.pod.address);
    const { struckAtMs, rightAtMs } = await work();
    await ping.steady(patienceMs);
    const { lost, backAtMs = 0 } = await ping.stop();
    // Both clocks go by milliseconds; ping's is the wall's.
    const backMs = backAtMs - wallClockMs() + performance.now();
    return { healedMs: Math.max(rightAtMs, backMs) - struckAtMs, lost, error: undefined };
  } catch (error) {
    return { healedMs: undefined, lost: undefined, error: messageOf(error) };
  }
}

/** Outcomes as a table. */
export function formatOutcomes(outcomes: readonly Outcome[]): string {
  return formatColumns([
    ["backend", "fault", "healed after ms", "packets lost"],
    ...outcomes.map(({ cluster, fault, healedMs, lost }) => [
      cluster,
      fault,
      healedMs?.toFixed() ?? "not healed",
      lost === undefined ? "?" : `${lost}`,
    ]),
  ], { firstNumber: 2 });
}
