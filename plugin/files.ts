/**
 * Files that several plugins use at the same time, each of which may be killed at any moment, on a file system
 * that may be full or read-only.
 *
 * @module
 */

/** Who else may have a lock: others who share it, or nobody. */
export type Sharing = "shared" | "alone";

/**
 * Writes a file so that it is there whole or not at all: under another name first, in the same folder. Not synced
 * to the disk: whatever it speaks of is gone after a power cut.
 */
export function writeWhole(path: string, draft: string, content: string): void {
  try {
    Deno.writeTextFileSync(draft, content, { mode: 0o600 });
    Deno.renameSync(draft, path);
  } catch (error) {
    removeIfPossible(draft);
    throw error;
  }
}

/** Deletes a file; fine where there is none. */
export function removeIfThere(path: string): void {
  unlessGone(() => Deno.removeSync(path));
}

/** Deletes a file that is in nobody's way where it stays. */
export function removeIfPossible(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // Then it stays.
  }
}

/** What `run` answers; `undefined` where the file or folder that it looks for is not there. */
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
 * Waits for a file's lock (flock(2)), and makes the file where there is none. The kernel frees the lock of a
 * plugin that is killed.
 */
export function lockFile(path: string, sharing: Sharing): Disposable {
  const lock = lockIfThere(path, sharing);
  if (lock !== undefined) return lock;
  Deno.openSync(path, { write: true, create: true, mode: 0o600 }).close();
  return lockFile(path, sharing);
}

/** As {@link lockFile}; `undefined` where there is no such file. Needs no more than to read it. */
export function lockIfThere(path: string, sharing: Sharing): Disposable | undefined {
  const file = unlessGone(() => Deno.openSync(path));
  file?.lockSync(sharing === "alone");
  return file;
}
