/**
 * What a check of `denim doctor` is.
 *
 * @module
 */

import type { Host } from "./host.ts";

/** Something that is wrong with a host. */
export interface Finding {
  /** Its name, which stays: `port-taken`. */
  readonly name: string;
  /** What was seen, as a sentence. */
  readonly evidence: string;
  /** What to do, as a sentence. */
  readonly remedy: string;
}

/** Looks for one kind of trouble, and changes nothing. What it cannot see is not wrong. */
export type Check = (host: Host) => readonly Finding[] | Promise<readonly Finding[]>;
