/**
 * Hears of writes to a SQLite file, by whichever process: from the kernel (inotify(7)), so that a watch
 * which has nothing to do costs nothing.
 *
 * @module
 */

import { sleep } from "../../mod.ts";

/** Counts the writes to a file and to the write-ahead log beside it, until it is disposed of. */
export class FileChanges implements Disposable {
  readonly #watcher: Deno.FsWatcher;
  #count = 0;
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
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    }
  }

  /** How many were heard of so far. Ask before the file is read, so that none is missed meanwhile. */
  get count(): number {
    return this.#count;
  }

  /** Waits for a write after the first `count`, at most for a time. False once the signal is aborted. */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.#count !== count) return !signal.aborted;
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
