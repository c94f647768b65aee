/**
 * A clock that only a test moves.
 *
 * @module
 */

import type { Clock } from "@denim/core";

interface Sleeper {
  readonly atMs: number;
  readonly wake: (over: boolean) => void;
}

/** A fake of the system's clock: time stands still until {@link FakeClock.advance}. */
export class FakeClock implements Clock {
  #nowMs = 0;
  readonly #sleepers = new Set<Sleeper>();

  /** @inheritdoc */
  nowMs(): number {
    return this.#nowMs;
  }

  /** @inheritdoc */
  sleep(ms: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const sleeper = { atMs: this.#nowMs + ms, wake: resolve };
    this.#sleepers.add(sleeper);
    signal.addEventListener("abort", () => {
      this.#sleepers.delete(sleeper);
      resolve(false);
    }, { once: true });
    return promise;
  }

  /** @inheritdoc */
  msToTick(everyMs: number): number {
    return everyMs - this.#nowMs % everyMs;
  }

  /** How many wait for time to pass. */
  get sleepers(): number {
    return this.#sleepers.size;
  }

  /** Lets time pass. Whoever waits for a moment on the way is woken at that moment, and does its work. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await settled();
    for (;;) {
      const [next] = [...this.#sleepers].filter(({ atMs }) => atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      this.#nowMs = next.atMs;
      this.#sleepers.delete(next);
      next.wake(true);
      await settled();
    }
    this.#nowMs = untilMs;
  }
}

/** Resolves when everything that can go on without time passing has gone on. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
