/**
 * Keeping the data path the one that net-conf and the outer interface ask for.
 *
 * @module
 */

import {
  Backoff,
  type Clock,
  Complaints,
  EventCounter,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  type NetworkConfig,
  type OuterInterface,
  throwDefect,
} from "@denim/core";
import { fingerprintOf, type Surroundings } from "./data_path.ts";
import type { DataPathManager } from "./data_path_manager.ts";

/** The waits before a change that failed is tried again, in milliseconds. */
const RETRY = { minMs: 100, maxMs: 10_000 } as const;

/** What a {@link DataPathAdapter} works with. */
export interface DataPathAdapterOptions {
  /** The data paths. */
  readonly paths: Pick<DataPathManager, "config" | "changeTo" | "keepUnder">;
  /** The outer interface. `refresh` looks at it again. */
  readonly outer: { readonly current: OuterInterface; refresh(): void };
  /** See {@link Surroundings.hostNetwork}. */
  readonly hostNetwork: Surroundings["hostNetwork"];
  /** Called when the outer interface has other addresses: connections from the ones before are dead. */
  readonly onAddresses: () => void;
  /** By which failed changes are tried again. */
  readonly clock: Clock;
  /** Takes failures, each once. */
  readonly log: Logger;
}

/** Changes the data path whenever net-conf or the outer interface asks for another one. */
export class DataPathAdapter {
  readonly #options: DataPathAdapterOptions;
  #wanted: NetworkConfig;
  /** The fingerprint of the net-conf that cannot be followed: each try costs packets, so there is one. */
  #refused = "";
  /** Counts the reasons to look whether the data path is the right one. */
  readonly #reasons = new EventCounter();
  readonly #backoff = new Backoff(RETRY);
  readonly #complaints = new Complaints();

  /** Wants the net-conf that the data path has. */
  constructor(options: DataPathAdapterOptions) {
    this.#options = options;
    this.#wanted = options.paths.config;
  }

  /** net-conf is another. */
  want(config: NetworkConfig): void {
    this.#wanted = config;
    this.#reasons.add();
  }

  /** The outer interface may be another. */
  look(): void {
    this.#reasons.add();
  }

  /** Changes data paths until the signal is aborted. Rejects only with a defect. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    let retry = new AbortController();
    for (let seen = 0; await this.#reasons.after(seen, MAX_SLEEP_MS, signal);) {
      seen = this.#reasons.count;
      retry.abort();
      if (await this.#adapt(signal)) {
        this.#backoff.reset();
        this.#complaints.resolve();
        continue;
      }
      retry = new AbortController();
      const waiting = AbortSignal.any([signal, retry.signal]);
      void clock.sleep(this.#backoff.next(), waiting).then((over) => {
        if (over) this.#reasons.add();
      });
    }
  }

  /** False if it has to be tried again. */
  async #adapt(signal: AbortSignal): Promise<boolean> {
    const { paths, outer } = this.#options;
    try {
      this.#refreshOuter();
    } catch (error) {
      this.#complain("outer-interface-unreadable", "cannot read the outer interface", error);
      return false;
    }
    await this.#followNetConf(signal);
    try {
      // The net-conf so far, if the wanted one is refused: by the outer interface as it is now.
      await paths.changeTo(paths.config);
      return true;
    } catch (error) {
      const { name } = outer.current;
      this.#complain("data-path-failed", `cannot rebuild the data path over ${name}`, error);
      return signal.aborted;
    }
  }

  #refreshOuter(): void {
    const { outer, onAddresses } = this.#options;
    const addresses = () => [...outer.current.addresses.values()].join();
    const before = addresses();
    outer.refresh();
    if (addresses() !== before) onAddresses();
  }

  /** Changes to the net-conf that is wanted. If that fails it says so, and the one before goes on. */
  async #followNetConf(signal: AbortSignal): Promise<void> {
    const { paths } = this.#options;
    const fingerprint = fingerprintOf(this.#wanted, this.#options);
    if (fingerprint === this.#refused) return;
    this.#refused = "";
    if (fingerprint === fingerprintOf(paths.config, this.#options)) {
      paths.keepUnder(this.#wanted);
      return;
    }
    try {
      await paths.changeTo(this.#wanted);
    } catch (error) {
      throwDefect(error);
      if (signal.aborted) return;
      this.#options.log.error(
        "net-conf-refused",
        `this node cannot follow the new net-conf and keeps the one before: ${messageOf(error)}`,
      );
      this.#refused = fingerprint;
    }
  }

  #complain(event: string, what: string, error: unknown): void {
    throwDefect(error);
    const why = messageOf(error);
    if (!this.#complaints.isNew(`${event} ${why}`)) return;
    this.#options.log.error(event, `this node ${what} and tries again: ${why}`);
  }
}
