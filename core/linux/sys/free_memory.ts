/**
 * Memory that the C library has and nobody uses.
 *
 * @module
 */

import { libc } from "./libc.ts";

/**
 * Gives the kernel back what is free of the memory that the C library allocates from (malloc_trim(3)): it keeps what was
 * in use at the most, unless it lies at the end. What V8's own heap holds is not among it.
 */
export function giveBackFreeMemory(): void {
  libc.malloc_trim(0n);
}
