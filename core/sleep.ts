/**
 * The one way to wait for time to pass.
 *
 * @module
 */

/** setTimeout's limit: 2³¹ − 1 milliseconds, some 25 days. */
export const MAX_SLEEP_MS = 0x7fff_ffff;

/** What setTimeout takes for a wait: of one that is over already it writes a warning among the lines of the log. */
export function timerMs(ms: number): number {
  return Math.min(Math.max(ms, 0), MAX_SLEEP_MS);
}

/**
 * Waits, at most {@link MAX_SLEEP_MS}.
 *
 * @returns true when the time is over, false as soon as the signal is aborted
 */
export function sleep(ms: number, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return Promise.resolve(false);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const onAbort = () => {
    clearTimeout(timer);
    resolve(false);
  };
  const timer = setTimeout(() => {
    signal.removeEventListener("abort", onAbort);
    resolve(true);
  }, timerMs(ms));
  signal.addEventListener("abort", onAbort, { once: true });
  return promise;
}

/** Where this process's ticks are: agents that start together shall not all work in the same moment. */
const PHASE_MS = Math.random() * 60_000;

/**
 * How long it is to one of this process's ticks, of which there is one in every so many milliseconds: to the next, or to
 * the one behind it if the next is nearer than half of that. Loops that look at something from time to time wait for
 * ticks, so that the process wakes once for all of them: to wake costs more than most looks.
 */
export function msToTick(everyMs: number): number {
  const leftMs = everyMs - (performance.now() + PHASE_MS) % everyMs;
  return Math.ceil(leftMs < everyMs / 2 ? leftMs + everyMs : leftMs);
}
