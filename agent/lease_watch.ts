/**
 * Following the leases in a store.
 *
 * @module
 */

import type { LeaseEvent, LeaseStore } from "@denim/core";

/** Follows all leases, and reads them all again on demand. */
export class LeaseWatch {
  readonly #store: Pick<LeaseStore, "watch">;
  readonly #signal: AbortSignal;
  /** Ends the watch under way, so that the next one starts with a snapshot. */
  #round = new AbortController();
  #reread = Promise.withResolvers<void>();

  /** Follows nothing yet. `signal` ends it. */
  constructor(store: Pick<LeaseStore, "watch">, signal: AbortSignal) {
    this.#store = store;
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#reread.resolve());
  }

  /** Hands every event of the store's watch on, until the signal is aborted. Rejects as the watch does. */
  async run(onEvent: (event: LeaseEvent) => Promise<void>): Promise<void> {
    do {
      this.#round = new AbortController();
      const signal = AbortSignal.any([this.#signal, this.#round.signal]);
      for await (const event of this.#store.watch(signal)) {
        await onEvent(event);
        if (event.kind === "snapshot" && !signal.aborted) {
          this.#reread.resolve();
          this.#reread = Promise.withResolvers();
        }
      }
    } while (this.#round.signal.aborted && !this.#signal.aborted);
  }

  /** Reads all leases again. Resolves when each was handed on, or the signal is aborted. */
  reread(): Promise<void> {
    this.#round.abort();
    return this.#signal.aborted ? Promise.resolve() : this.#reread.promise;
  }
}
