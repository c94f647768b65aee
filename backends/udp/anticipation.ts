/**
 * Whether a thread that has nothing to carry looks on for a moment before it sleeps. To be woken costs some tens of
 * microseconds, about as long as a quick answer takes to come.
 *
 * @module
 */

/** How long a thread looks out for the next packet, in milliseconds: a ping between two nodes on one link takes less. */
const PATIENCE_MS = 0.15;

/**
 * Predicts, for each direction, whether another packet follows soon: if one did the last time, the thread looks on;
 * if none did, it sleeps at once, so that traffic in one direction alone costs no idle processor time. KVM's
 * `halt_poll_ns` works alike.
 */
export class Anticipation {
  readonly #soon: boolean[];
  #way = 0;
  #carriedAtMs = -Infinity;

  /** For so many directions, of which nothing is known yet. */
  constructor(ways: number) {
    this.#soon = Array<boolean>(ways).fill(false);
  }

  /** A packet was carried in a direction. */
  carried(way: number, nowMs: number): void {
    this.#soon[this.#way] = nowMs - this.#carriedAtMs < PATIENCE_MS;
    this.#way = way;
    this.#carriedAtMs = nowMs;
  }

  /** Whether to look on rather than sleep. */
  looksOn(nowMs: number): boolean {
    return this.#soon[this.#way]! && nowMs - this.#carriedAtMs < PATIENCE_MS;
  }
}
