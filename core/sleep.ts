/**
 * The one way to wait for time to pass.
 *
 * @module
 */

/** setTimeout's limit: 2³¹ − 1 milliseconds, some 25 days. */
export const MAX_SLEEP_MS = 0x7fff_ffff;

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
  }, Math.min(ms, MAX_SLEEP_MS));
  signal.addEventListener("abort", onAbort, { once: true });
  return promise;
}
