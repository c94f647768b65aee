/**
 * Numbers that look random, and are the same each time.
 *
 * @module
 */

/** xorshift32 from a seed other than 0: a function that gives a whole number from 0, below a limit. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
