/**
 * Telling the cluster's scheduler whether pods on this node have a network.
 *
 * @module
 */

import {
  Backoff,
  type Clock,
  Complaints,
  EventCounter,
  type LeaseStore,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  throwDefect,
} from "@denim/core";

/** For so long a node is not ready before the cluster is told, in milliseconds: a scheduler then moves pods away. */
export const PATIENCE_MS = 30_000;
/** Waits before a store that did not take it is told again, in milliseconds. */
const RETRY = { minMs: 1_000, maxMs: 60_000, jitter: 0.5 };

/** What a {@link NetworkCondition} works with. */
export interface NetworkConditionOptions {
  /** Who is told, if it takes it. */
  readonly store: Pick<LeaseStore, "setNetworkUnavailable">;
  /** By which it waits. */
  readonly clock: Clock;
  /** Takes an error if the store does not take it. */
  readonly log: Logger;
}

/**
 * Has the store say that pods have a network as soon as the node is ready, and that they lack one once it has not been
 * ready for long. Says nothing of a node that was never ready.
 */
export class NetworkCondition {
  readonly #options: NetworkConditionOptions;
  /** `undefined` until the node was ready for the first time. */
  #ready: boolean | undefined;
  readonly #reasons = new EventCounter();
  readonly #complaints = new Complaints();
  /** Aborted when what is being told is not so any more. */
  #overtaken = new AbortController();

  /** Nothing is told yet. */
  constructor(options: NetworkConditionOptions) {
    this.#options = options;
  }

  /** The node is ready, or is not any more. */
  set(ready: boolean): void {
    if (ready === this.#ready) return;
    this.#ready = ready;
    this.#overtaken.abort();
    this.#reasons.add();
  }

  /** What was told may be lost, as with a node that was made again: it is told once more. */
  repeat(): void {
    if (this.#ready !== undefined) this.#reasons.add();
  }

  /** Tells the store until the signal is aborted. Rejects only with a defect. */
  async run(signal: AbortSignal): Promise<void> {
    for (let seen = 0; await this.#reasons.after(seen, MAX_SLEEP_MS, signal);) {
      seen = this.#reasons.count;
      this.#overtaken = new AbortController();
      await this.#tell(AbortSignal.any([signal, this.#overtaken.signal]));
    }
  }

  /** Tells how it is now, and tries again until the signal is aborted. */
  async #tell(signal: AbortSignal): Promise<void> {
    const { store, clock, log } = this.#options;
    const backoff = new Backoff(RETRY);
    let waitMs = this.#ready ? 0 : PATIENCE_MS;
    while (await clock.sleep(waitMs, signal)) {
      try {
        await store.setNetworkUnavailable?.(!this.#ready, signal);
        this.#complaints.resolve();
        return;
      } catch (error) {
        if (error !== signal.reason) throwDefect(error);
        if (signal.aborted) return;
        const why = messageOf(error);
        if (this.#complaints.isNew(why)) {
          log.error(
            "condition-unwritten",
            `the cluster is not told whether pods on this node have a network, trying again: ${why}`,
          );
        }
        waitMs = backoff.next();
      }
    }
  }
}
