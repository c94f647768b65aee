/**
 * What a fault costs: a steady ping between two pods, the fault, the time until it is mended and the packets
 * lost.
 *
 * @module
 */

import { messageOf } from "@denim/core";
import { formatColumns } from "../support/columns.ts";
import type { Site } from "./faults.ts";
import { SteadyPing, wallClockMs } from "./steady_ping.ts";
import type { Undergone } from "./undergo.ts";

/** How long a fault is watched that does not heal. */
export const PATIENCE_MS = 5_000;

/** One line of the table. */
export interface Outcome {
  /** What carries packets. */
  readonly backend: string;
  /** What happened. */
  readonly fault: string;
  /** From the fault until the kernel was right and pings were answered again; `undefined` where they were not. */
  readonly healedMs: number | undefined;
  /** Pings without an answer; `undefined` where the end was not seen. */
  readonly lost: number | undefined;
  /** What went wrong. */
  readonly error: string | undefined;
}

/**
 * Pings from the struck node's pod to the peer's while `work` goes on, and then until answers are steady, for
 * `patienceMs` at the most.
 */
export async function measure(
  site: Site,
  fault: string,
  work: () => Promise<Undergone>,
  patienceMs: number = PATIENCE_MS,
): Promise<Outcome> {
  const { backend } = site.cluster;
  try {
    await using ping = await SteadyPing.start(site.at.pod, site.peer.pod.address);
    const { struckAtMs, rightAtMs } = await work();
    await ping.steady(patienceMs);
    const { lost, backAtMs = 0 } = await ping.stop();
    // Both clocks go by milliseconds; ping's is the wall's.
    const backMs = backAtMs - wallClockMs() + performance.now();
    const healedMs = Math.max(rightAtMs, backMs) - struckAtMs;
    return { backend, fault, healedMs, lost, error: undefined };
  } catch (error) {
    return { backend, fault, healedMs: undefined, lost: undefined, error: messageOf(error) };
  }
}

/** Outcomes as a table. */
export function formatOutcomes(outcomes: readonly Outcome[]): string {
  return formatColumns([
    ["backend", "fault", "healed after ms", "packets lost"],
    ...outcomes.map(({ backend, fault, healedMs, lost }) => [
      backend,
      fault,
      healedMs?.toFixed() ?? "not healed",
      lost === undefined ? "?" : `${lost}`,
    ]),
  ], 2);
}
