/**
 * Waits between attempts.
 *
 * @module
 */

/** How waits grow. */
export interface BackoffOptions {
  /** The first wait, in milliseconds. */
  readonly minMs: number;
  /** The longest, in milliseconds. */
  readonly maxMs: number;
  /**
   * The share of each wait that is random, from 0 to 1, so that many nodes which fail together do not all come
   * back together; 0 unless given.
   */
  readonly jitter?: number;
}

/** Says how long to wait before what failed is tried again: each time twice as long as the time before. */
export class Backoff {
  readonly #options: BackoffOptions;
  #nextMs: number;

  /** Starts with the shortest wait. */
  constructor(options: BackoffOptions) {
    this.#options = options;
    this.#nextMs = options.minMs;
  }

  /** The wait before the next attempt, in milliseconds. */
  next(): number {
    const { maxMs, jitter = 0 } = this.#options;
    const waitMs = this.#nextMs;
    this.#nextMs = Math.min(waitMs * 2, maxMs);
    return waitMs * (1 - jitter * Math.random());
  }

  /** An attempt succeeded: the next wait is the shortest again. */
  reset(): void {
    this.#nextMs = this.#options.minMs;
  }
}
