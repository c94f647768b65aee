/**
 * Whether a thread with nothing to carry looks on for a moment before it sleeps: to be woken costs some tens of
 * microseconds, which is what an answer takes that comes soon.
 *
 * @module
 */

/** For how long an answer is looked out for, in milliseconds: a ping between two nodes on one link takes less. */
const PATIENCE_MS = 0.15;

/**
 * Foresees from what followed the last packet of each way what follows the next one: where it was soon followed by
 * another, one looks on; where it was not, one sleeps at once, so that whoever only speaks or only listens costs
 * no time of the processor (as KVM's `halt_poll_ns` has it).
 */
export class Anticipation {
  readonly #soon: boolean[];
  #way = 0;
  #carriedAtMs = -Infinity;

  /** For so many ways, of which nothing is known yet. */
  constructor(ways: number) {
    this.#soon = Array<boolean>(ways).fill(false);
  }

  /** Something was carried by a way. */
  carried(way: number, nowMs: number): void {
    this.#soon[this.#way] = nowMs - this.#carriedAtMs < PATIENCE_MS;
    this.#way = way;
    this.#carriedAtMs = nowMs;
  }

  /** Whether to look on rather than to sleep. */
  looksOn(nowMs: number): boolean {
    return this.#soon[this.#way]! && nowMs - this.#carriedAtMs < PATIENCE_MS;
  }
}
