/**
 * Logging that something can't be used: once, rather than with each attempt.
 *
 * @module
 */

import { Complaints } from "./complaints.ts";
import type { Logger } from "./log.ts";
import type { Counter } from "./metrics.ts";

/** Counts the outages of one thing, and knows since when it cannot be used. */
export class OutageCount {
  readonly #counter: Counter;
  readonly #ongoing = new Set<Outage>();
  #sinceMs = 0;

  /** No outage yet; `counter` counts those that begin. */
  constructor(counter: Counter) {
    this.#counter = counter;
  }

  /** For how long it could not be used so far, in seconds; 0 if it can. */
  get seconds(): number {
    return this.#ongoing.size === 0 ? 0 : (performance.now() - this.#sinceMs) / 1000;
  }

  /** @internal An outage begins. */
  begin(outage: Outage): void {
    this.#counter.add();
    if (this.#ongoing.size === 0) this.#sinceMs = performance.now();
    this.#ongoing.add(outage);
  }

  /** @internal An outage is over. */
  end(outage: Outage): void {
    this.#ongoing.delete(outage);
  }
}

/** What is logged of one thing that may be out of order, and is tried again until it works. */
export class Outage {
  readonly #what: string;
  readonly #works: string;
  readonly #log: Logger;
  readonly #count: OutageCount | undefined;
  #sinceMs = 0;
  /** The kinds of use that fail. */
  readonly #failing = new Set<string>();
  readonly #complaints = new Complaints();

  /**
   * Nothing is out of order yet.
   *
   * @param what how messages name it
   * @param works what they say of it when it works again: "answers"
   * @param count counts outages
   */
  constructor(what: string, works: string, log: Logger, count?: OutageCount) {
    this.#what = what;
    this.#works = works;
    this.#log = log;
    this.#count = count;
  }

  /**
   * A use of this kind failed. Logs why, unless that was logged since the outage began.
   *
   * @param reason tells reasons apart if `why` has details that change
   */
  failed(kind: string, why: string, reason: string = why): void {
    if (this.#failing.size === 0) {
      this.#sinceMs = performance.now();
      this.#count?.begin(this);
    }
    this.#failing.add(kind);
    if (this.#complaints.isNew(reason)) {
      this.#log.warn("outage", `waiting for ${this.#what}: ${why}`);
    }
  }

  /** Uses of these kinds work. Logs that the outage is over if no other kind fails. */
  worked(...kinds: readonly string[]): void {
    if (this.#failing.size === 0) return;
    for (const kind of kinds) this.#failing.delete(kind);
    if (this.#failing.size > 0) return;
    this.#count?.end(this);
    this.#complaints.resolve();
    const seconds = ((performance.now() - this.#sinceMs) / 1000).toFixed(1);
    this.#log.info("outage-over", `${this.#what} ${this.#works}, after ${seconds} s`);
  }
}
