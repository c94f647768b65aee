/**
 * Something that happens again and again, and can be waited for without missing what happened meanwhile.
 *
 * @module
 */

import { MAX_SLEEP_MS } from "./sleep.ts";

/** Counts how often something happened. Whoever waits leaves nothing behind, however often it waits. */
export class EventCounter {
  #count = 0;
  readonly #waiting = new Set<() => void>();

  /** How often it happened so far. Ask before looking at what it is about, so that none is missed. */
  get count(): number {
    return this.#count;
  }

  /** It happened. */
  add(): void {
    this.#count++;
    for (const wake of this.#waiting) wake();
  }

  /**
   * Waits until it has happened more than `count` times, at most for a time. False once the signal is
   * aborted.
   */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.#count !== count || signal.aborted) return !signal.aborted;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    const timer = setTimeout(wake, Math.min(timeoutMs, MAX_SLEEP_MS));
    this.#waiting.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    clearTimeout(timer);
    this.#waiting.delete(wake);
    signal.removeEventListener("abort", wake);
    return !signal.aborted;
  }
}
