/**
 * Following the leases in a store.
 *
 * @module
 */

import type { Lease, LeaseEvent, LeaseStore } from "@denim/core";

/** What a {@link LeaseWatch} works with. */
export interface LeaseWatchOptions {
  /** The store that is watched. */
  readonly store: Pick<LeaseStore, "watch">;
  /** Whether anybody has to know of other nodes. Asked at the start, and with each {@link LeaseWatch.reread}. */
  readonly needed: () => boolean;
  /** The node's own lease: all that there is to tell of while nobody has to know of others. */
  readonly own: () => Lease;
  /** Ends the watch. */
  readonly signal: AbortSignal;
}

/** Follows all leases, and reads them all again on demand. */
export class LeaseWatch {
  readonly #options: LeaseWatchOptions;
  /** Ends the watch under way, so that the next one starts with a snapshot. */
  #round = new AbortController();
  #reread = Promise.withResolvers<void>();

  /** Follows nothing yet. */
  constructor(options: LeaseWatchOptions) {
    this.#options = options;
    options.signal.addEventListener("abort", () => this.#reread.resolve());
  }

  /** Hands every event of the store's watch on, until the signal is aborted. Rejects as the watch does. */
  async run(onEvent: (event: LeaseEvent) => void): Promise<void> {
    const { store, needed, signal: stopping } = this.#options;
    do {
      this.#round = new AbortController();
      const signal = AbortSignal.any([stopping, this.#round.signal]);
      const watch = needed() ? store.watch(signal) : this.#ownAlone(signal);
      const events = watch[Symbol.asyncIterator]();
      try {
        while (await this.#handOn(events, onEvent, signal));
      } finally {
        await events.return?.();
      }
    } while (this.#round.signal.aborted && !stopping.aborted);
  }

  /** Hands on the next event, which nothing holds when the one after it is waited for. Resolves to whether there was one. */
  async #handOn(
    events: AsyncIterator<LeaseEvent>,
    onEvent: (event: LeaseEvent) => void,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { done, value: event } = await events.next();
    if (done) return false;
    onEvent(event);
    if (event.kind === "snapshot" && !signal.aborted) {
      this.#reread.resolve();
      this.#reread = Promise.withResolvers();
    }
    return true;
  }

  /** What a watch would tell if there were no other node: it costs the store nothing. */
  async *#ownAlone(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    yield { kind: "snapshot", leases: [this.#options.own()] };
    const ended = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => ended.resolve(), { once: true });
    if (!signal.aborted) await ended.promise;
  }

  /** Reads all leases again. Resolves when each was handed on, or the signal is aborted. */
  reread(): Promise<void> {
    this.#round.abort();
    return this.#options.signal.aborted ? Promise.resolve() : this.#reread.promise;
  }
}
