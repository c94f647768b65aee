/**
 * Hears of writes to a SQLite file, by whichever process of denim's: from the kernel (inotify(7)), so that a
 * watch which has nothing to do costs nothing.
 *
 * What is listened to is not the database, but a file beside it that each writer writes to when it has
 * committed, the bell. For each event Deno opens and closes the file that it is about, and the closing of
 * any descriptor of a file ends all locks that the process has on it (fcntl(2)): on SQLite's own files,
 * those by which it keeps others from cutting short what it has mapped, which ends in SIGBUS or worse.
 *
 * @module
 */

import { EventCounter, type Logger, messageOf } from "../../mod.ts";

/** How often the file is looked at where the kernel tells nothing. */
const DEAF_LOOK_MS = 50;

function bellOf(path: string): string {
  return `${path}-bell`;
}

/** Tells all who listen that something was committed to the database at `path`. */
export function ringBell(path: string): void {
  try {
    Deno.writeTextFileSync(bellOf(path), "1", { mode: 0o600 });
  } catch {
    // They look from time to time as well.
  }
}

/** Counts the writes to a database, until it is disposed of. */
export class FileChanges implements Disposable {
  #watcher: Deno.FsWatcher | undefined;
  readonly #heard = new EventCounter();

  /**
   * Starts to listen. Where the kernel can't tell, as where the host's other programs have used up its inotify
   * instances, `log` hears of it.
   */
  constructor(path: string, log: Logger) {
    try {
      Deno.openSync(bellOf(path), { create: true, write: true, mode: 0o600 }).close();
      this.#watcher = Deno.watchFs(bellOf(path));
    } catch (error) {
      log.warn(
        `writes to ${path} can't be heard of: ${
          messageOf(error)
        }; looking every ${DEAF_LOOK_MS} ms ` +
          "(raise fs.inotify.max_user_instances)",
      );
      return;
    }
    void this.#listen(this.#watcher);
  }

  async #listen(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind !== "access") this.#heard.add();
    }
  }

  /** How many were heard of so far. Ask before the file is read, so that none is missed meanwhile. */
  get count(): number {
    return this.#heard.count;
  }

  /**
   * Waits until another look at the file is worth its while: after a write that came after the first
   * `count`, and in any case after a time. False once the signal is aborted.
   */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const deaf = this.#watcher === undefined;
    return await this.#heard.after(
      count,
      deaf ? Math.min(timeoutMs, DEAF_LOOK_MS) : timeoutMs,
      signal,
    );
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    this.#watcher?.close();
  }
}
