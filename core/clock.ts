/**
 * Time as something that a part is given, so that a test can let it pass at once.
 *
 * @module
 */

import { msToTick, sleep } from "./sleep.ts";

/** Tells the time and waits for it to pass. */
export interface Clock {
  /** Milliseconds since some moment in the past. Only the difference of two readings means anything. */
  nowMs(): number;
  /** Waits. False once the signal is aborted, true when the time is over; see {@link sleep}. */
  sleep(ms: number, signal: AbortSignal): Promise<boolean>;
  /** How long it is to a tick; see {@link msToTick}. */
  msToTick(everyMs: number): number;
}

/**
 * How far this host's clock is ahead of that of a server which has just answered, in milliseconds: HTTP tells the second
 * of the answer (RFC 9110, section 6.6.1). `undefined` if this server does not.
 */
export function clockAheadMs(headers: Headers): number | undefined {
  const aheadMs = Date.now() - Date.parse(headers.get("date") ?? "");
  return Number.isNaN(aheadMs) ? undefined : aheadMs;
}

/** The system's monotonic clock. */
export const SYSTEM_CLOCK: Clock = { nowMs: () => performance.now(), sleep, msToTick };
