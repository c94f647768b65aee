/**
 * Logging that something can't be used: once, rather than with each attempt.
 *
 * @module
 */

import { Complaints } from "./complaints.ts";
import type { Logger } from "./log.ts";
import type { Counter } from "./metrics.ts";

/** What is logged of one thing that may be out of order, and is tried again until it works. */
export class Outage {
  readonly #what: string;
  readonly #works: string;
  readonly #log: Logger;
  readonly #count: Counter | undefined;
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
  constructor(what: string, works: string, log: Logger, count?: Counter) {
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
      this.#count?.add();
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
    this.#complaints.resolve();
    const seconds = ((performance.now() - this.#sinceMs) / 1000).toFixed(1);
    this.#log.info("outage-over", `${this.#what} ${this.#works}, after ${seconds} s`);
  }
}
