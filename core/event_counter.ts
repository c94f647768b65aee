/**
 * Waiting for events, without missing those that happen meanwhile.
 *
 * @module
 */

import { timerMs } from "./sleep.ts";

/** Counts events of one sort. A wait leaves nothing behind in the counter or the signal, however many there are. */
export class EventCounter {
  #count = 0;
  readonly #waiting = new Set<() => void>();

  /** How many there were so far. Read it before you look at what the events are about, so that you miss none. */
  get count(): number {
    return this.#count;
  }

  /** Counts one more, and ends the waits. */
  add(): void {
    this.#count++;
    for (const wake of this.#waiting) wake();
  }

  /**
   * Waits until there are more than `count` events, or the time is over.
   *
   * @returns whether the signal is still not aborted
   */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.#count !== count || signal.aborted) return !signal.aborted;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    const timer = setTimeout(wake, timerMs(timeoutMs));
    this.#waiting.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    clearTimeout(timer);
    this.#waiting.delete(wake);
    signal.removeEventListener("abort", wake);
    return !signal.aborted;
  }
}
