/**
 * Telling of something that is waited for: once, rather than with each attempt.
 *
 * @module
 */

import type { Logger } from "../mod.ts";

/** What is said of one thing that may be out of order, and is tried again until it works. */
export class Outage {
  readonly #what: string;
  readonly #works: string;
  readonly #log: Logger;
  #sinceMs = 0;
  /** The kinds of use that fail. */
  readonly #failing = new Set<string>();
  /** What was said since it began. */
  readonly #told = new Set<string>();

  /**
   * Nothing is out of order yet.
   *
   * @param what how messages name it
   * @param works what they say of it when it works again: "answers"
   */
  constructor(what: string, works: string, log: Logger) {
    this.#what = what;
    this.#works = works;
    this.#log = log;
  }

  /**
   * A use of this kind failed. Says why, unless the same was said since the outage began.
   *
   * @param reason tells reasons apart, where `why` has details that change
   */
  failed(kind: string, why: string, reason: string = why): void {
    if (this.#failing.size === 0) this.#sinceMs = performance.now();
    this.#failing.add(kind);
    if (this.#told.has(reason)) return;
    this.#told.add(reason);
    this.#log.warn(`waiting for ${this.#what}: ${why}`);
  }

  /** Uses of these kinds work. Says so where something was out of order, and now nothing is. */
  worked(...kinds: readonly string[]): void {
    if (this.#failing.size === 0) return;
    for (const kind of kinds) this.#failing.delete(kind);
    if (this.#failing.size > 0) return;
    this.#told.clear();
    const seconds = ((performance.now() - this.#sinceMs) / 1000).toFixed(1);
    this.#log.info(`${this.#what} ${this.#works}, after ${seconds} s`);
  }
}
