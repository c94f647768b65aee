/**
 * Hears of writes to a SQLite file, by whichever process: from the kernel (inotify(7)), so that a watch
 * which has nothing to do costs nothing.
 *
 * @module
 */

import { sleep } from "../../mod.ts";

/** How long a flush to the disk may take, for which a write that was heard of is looked for … */
const FLUSH_MS = 1_000;
/** … first after this, then twice as long after the write each time. */
const MIN_LOOK_MS = 1;

/** Counts the writes to a file and to the write-ahead log beside it, until it is disposed of. */
export class FileChanges implements Disposable {
  readonly #watcher: Deno.FsWatcher;
  #count = 0;
  #heardAtMs = -Infinity;
  #next = Promise.withResolvers<void>();

  /** Starts to listen. The directory is watched, since the log comes and goes. */
  constructor(path: string) {
    this.#watcher = Deno.watchFs(path.replace(/[^/]*$/, "") || ".", { recursive: false });
    const name = path.replace(/^.*\//, "");
    void this.#listen([name, `${name}-wal`]);
  }

  async #listen(names: readonly string[]): Promise<void> {
    for await (const { kind, paths } of this.#watcher) {
      // Who only reads opens the files as well.
      if (kind === "access") continue;
      if (!paths.some((path) => names.includes(path.replace(/^.*\//, "")))) continue;
      this.#count++;
      this.#heardAtMs = performance.now();
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    }
  }

  /** How many were heard of so far. Ask before the file is read, so that none is missed meanwhile. */
  get count(): number {
    return this.#count;
  }

  /**
   * Waits until another look at the file is worth its while: after a write that came after the first
   * `count`, some more times soon after the last one, and in any case after a time. False once the signal
   * is aborted.
   *
   * A write is heard of before it can be seen: the log is written, flushed to the disk, and only then, in
   * memory, made known to readers.
   */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.#count !== count) return !signal.aborted;
    const sinceMs = performance.now() - this.#heardAtMs;
    if (sinceMs < FLUSH_MS) timeoutMs = Math.min(timeoutMs, Math.max(sinceMs, MIN_LOOK_MS));
    const done = new AbortController();
    const heard = this.#next.promise.then(() => !signal.aborted);
    try {
      return await Promise.race([
        heard,
        sleep(timeoutMs, AbortSignal.any([signal, done.signal])),
      ]);
    } finally {
      done.abort();
    }
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    this.#watcher.close();
  }
}
