/**
 * Waiting for what a test expects.
 *
 * @module
 */

/** Waits until a condition holds; throws where it does not in time. Returns how long it took, in ms. */
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
