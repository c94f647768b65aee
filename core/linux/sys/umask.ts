/**
 * Which rights new files lack (umask(2)).
 *
 * @module
 */

import { libc } from "./libc.ts";

/**
 * Runs a synchronous function during which new files, and sockets that are bound to a path, lack the rights in a mask:
 * with 0o177 their owner alone may read and write them. The mask is the whole process's.
 */
export function withUmask<T>(mask: number, fn: () => T): T {
  const before = libc.umask(mask);
  try {
    return fn();
  } finally {
    libc.umask(before);
  }
}
