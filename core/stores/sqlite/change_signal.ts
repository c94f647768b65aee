/**
 * The change signal: a file beside the database by which the processes that use it learn of each other's writes.
 *
 * A writer writes to the signal's file after each commit, and the kernel tells the other processes (inotify(7)),
 * so that a watch with nothing to do costs nothing. They do not watch the database itself: for each event Deno
 * opens and closes the watched file on a thread of its own, and closing any descriptor of a file ends all locks
 * that the process has on it (fcntl(2)), even in the middle of a transaction.
 *
 * The file's content names the database file and says since when it has been that one. A process that finds the
 * database deleted, or replaced by a copy, can so tell that living nodes may not have their leases in it yet.
 *
 * @module
 */

import { dirname } from "node:path";
import { EventCounter, type Logger, messageOf, throwDefect } from "../../mod.ts";

/** How often the database is read if the kernel reports nothing. */
const UNWATCHED_POLL_MS = 50;
/**
 * How long living nodes have to claim their subnets in another database: their agents look at it once a second.
 */
export const CLAIM_MS = 2_500;
/** The content's length in bytes. It never changes, so that each write overwrites all of the one before. */
const CONTENT_BYTES = 128;

/** What the file says. */
interface Content {
  /** Which file the database is; see {@link Database.identity}. */
  readonly identity: string;
  /** When it replaced another, in milliseconds since 1970; 0 for the first. */
  readonly sinceMs: number;
}

/** What a signal works with. */
export interface ChangeSignalOptions {
  /** Takes a warning if the kernel can't watch the file. */
  readonly log: Logger;
  /** Watches a file; `Deno.watchFs` unless given. */
  readonly watchFile?: ((path: string) => Deno.FsWatcher) | undefined;
}

/** The change signal of one database. */
export class ChangeSignal implements Disposable {
  readonly #path: string;
  readonly #log: Logger;
  readonly #watchFile: (path: string) => Deno.FsWatcher;
  #content: Content | undefined;
  #watcher: Deno.FsWatcher | undefined;
  readonly #changes = new EventCounter();
  #disposed = false;

  /** The signal of the database at `path`. */
  constructor(path: string, options: ChangeSignalOptions) {
    this.#path = `${path}-signal`;
    this.#log = options.log;
    this.#watchFile = options.watchFile ?? ((path) => Deno.watchFs(path));
  }

  /** Reads the file. Call it before the database is opened, which other processes may do at the same time. */
  refresh(): void {
    this.#content = this.#read() ?? this.#content;
  }

  /**
   * Says from now on that the database is this file.
   *
   * @param incomplete whether it lacks leases that the one before had, even if it is the same inode
   */
  identify(identity: string, incomplete: boolean): void {
    const known = this.#content;
    if (known?.identity === identity && !incomplete) return;
    this.#content = { identity, sinceMs: known === undefined ? 0 : Date.now() };
    this.notify();
  }

  /** How long living nodes still have to claim their subnets, in milliseconds; 0 if their time is over. */
  get claimTimeLeftMs(): number {
    this.refresh();
    const ageMs = Date.now() - (this.#content?.sinceMs ?? 0);
    return ageMs < 0 ? CLAIM_MS : Math.max(CLAIM_MS - ageMs, 0);
  }

  /** Tells all other processes that something was committed. */
  notify(): void {
    const content = JSON.stringify(this.#content ?? "").padEnd(CONTENT_BYTES);
    try {
      using file = this.#open();
      file.writeSync(new TextEncoder().encode(content));
    } catch (error) {
      // A full disk, for one. The others also read the database from time to time.
      throwDefect(error);
    }
  }

  /**
   * Starts to watch. Logs a warning if the kernel can't, as when the host's other programs have used up its
   * inotify instances; the database is then read more often.
   */
  watch(): void {
    if (this.#watcher !== undefined || this.#disposed) return;
    try {
      if (!this.#exists()) this.#open().close();
      this.#watcher = this.#watchFile(this.#path);
    } catch (error) {
      // Of what the kernel refuses Deno makes plain Errors.
      if (Object.getPrototypeOf(error) !== Error.prototype) throwDefect(error);
      const message = messageOf(error);
      const advice = message.includes("Too many") ? " (raise fs.inotify.max_user_instances)" : "";
      this.#log.warn(
        "store-signal-failed",
        `${this.#path} can't be watched, by which other processes' writes are noticed: ${message}; ` +
          `reading the database every ${UNWATCHED_POLL_MS} ms instead${advice}`,
      );
      return;
    }
    void this.#forward(this.#watcher);
  }

  async #forward(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind === "access") continue;
      this.#changes.add();
      if (kind === "remove" || kind === "rename") break;
    }
    if (this.#disposed) return;
    // The file was deleted, perhaps with the database: write it again, so that its content is not lost.
    watcher.close();
    this.#watcher = undefined;
    this.notify();
    this.watch();
  }

  /** As node:fs tells it, too, whose loading takes a start 15 ms. */
  #exists(): boolean {
    try {
      Deno.statSync(this.#path);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }

  /** Does not truncate the file: a process that reads meanwhile finds the content of before. */
  #open(): Deno.FsFile {
    const options = { create: true, write: true, mode: 0o600 } as const;
    try {
      return Deno.openSync(this.#path, options);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      Deno.mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
      return Deno.openSync(this.#path, options);
    }
  }

  #read(): Content | undefined {
    try {
      const { identity, sinceMs } = JSON.parse(Deno.readTextFileSync(this.#path)) ?? {};
      return typeof identity === "string" && typeof sinceMs === "number"
        ? { identity, sinceMs }
        : undefined;
    } catch (error) {
      // It is missing, or its content is damaged.
      if (!(error instanceof SyntaxError)) throwDefect(error);
      return undefined;
    }
  }

  /** How many changes were reported so far. Ask before reading the database, so that none is missed meanwhile. */
  get count(): number {
    return this.#changes.count;
  }

  /**
   * Waits until another look at the database is worthwhile: after a change that was reported after the first
   * `count`, and in any case after a time. False once the signal is aborted.
   */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const limitMs = this.#watcher === undefined ? UNWATCHED_POLL_MS : Infinity;
    return await this.#changes.after(count, Math.min(timeoutMs, limitMs), signal);
  }

  /** Stops watching. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#watcher?.close();
  }
}
