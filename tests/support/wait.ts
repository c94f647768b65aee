/**
 * Waiting for what a test expects.
 *
 * @module
 */

/** A signal that is never aborted, for calls that a test waits out. */
export const NEVER: AbortSignal = new AbortController().signal;

/** Waits until a condition holds; throws if it does not in time. Returns how long it took, in ms. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  patienceMs = 10_000,
): Promise<number> {
  const startMs = performance.now();
  while (!await condition()) {
    if (performance.now() - startMs > patienceMs) {
      throw new Error(`not within ${patienceMs} ms: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return performance.now() - startMs;
}

/** Waits for every one, since what still runs would be in the way of cleaning up; throws what failed first. */
export async function all(calls: readonly Promise<unknown>[]): Promise<void> {
  const settled = await Promise.allSettled(calls);
  const failed = settled.find(({ status }) => status === "rejected");
  if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
}
