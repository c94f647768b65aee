/**
 * Memory that the C library has and nobody uses.
 *
 * @module
 */

import { libc } from "./libc.ts";

/** Parameters of mallopt(3) (malloc.h of glibc). */
const M_TRIM_THRESHOLD = -1, M_MMAP_THRESHOLD = -3, M_ARENA_MAX = -8;
/** Blocks of so many bytes are given back when they are freed. */
const LARGE_BYTES = 64 * 1024;

/**
 * Has the C library give the kernel back from now on what was freed of it, as soon as it is a large block, or lies at the
 * end. By itself glibc raises the size from which it does so to that of the largest block that it has seen, and takes
 * memory for each thread: an agent that has read thousands of leases keeps the room for reading them.
 */
export function allowNoFreeMemory(): void {
  libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
  libc.mallopt(M_TRIM_THRESHOLD, LARGE_BYTES);
  libc.mallopt(M_ARENA_MAX, 1);
}

/**
 * Gives the kernel back what is free of the memory that the C library allocates from (malloc_trim(3)): it keeps what was
 * in use at the most, unless it lies at the end. What V8's own heap holds is not among it.
 */
export function giveBackFreeMemory(): void {
  libc.malloc_trim(0n);
}
