/**
 * Deleting and locking files that several plugin processes use at the same time. Each process may be killed at
 * any moment, and the file system may be full or read-only.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";

/** Who else may hold a lock at the same time: every other process that shares it, or none. */
export type Sharing = "shared" | "alone";

/** Deletes a file, if it is there. Throws what Deno throws if the file system refuses. */
export function removeIfThere(path: string): void {
  unlessGone(() => Deno.removeSync(path));
}

/** Deletes a file that does no harm if the file system refuses to delete it. */
export function removeIfPossible(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    throwDefect(error);
  }
}

/** What `run` returns; `undefined` if the file or folder that it reads is not there. */
export function unlessGone<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    const gone = [Deno.errors.NotFound, Deno.errors.NotADirectory];
    if (gone.some((kind) => error instanceof kind)) return undefined;
    throw error;
  }
}

/**
 * Waits for a file's lock (flock(2)), and makes the file if it is missing. The lock is free when the result is
 * disposed of; the kernel also frees it when the process is killed.
 */
export function lockFile(path: string, sharing: Sharing): Disposable {
  const lock = lockIfThere(path, sharing);
  if (lock !== undefined) return lock;
  Deno.openSync(path, { write: true, create: true, mode: 0o600 }).close();
  return lockFile(path, sharing);
}

/** As {@link lockFile}, but returns `undefined` if there is no such file. Needs only read permission. */
export function lockIfThere(path: string, sharing: Sharing): Disposable | undefined {
  const file = unlessGone(() => Deno.openSync(path));
  file?.lockSync(sharing === "alone");
  return file;
}
