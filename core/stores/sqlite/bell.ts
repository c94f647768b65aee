/**
 * The bell: a file beside the database by which those who use it hear of each other.
 *
 * Each writer writes to it when it has committed, and the kernel tells the others (inotify(7)), so that a
 * watch which has nothing to do costs nothing. The database itself is not listened to: for each event Deno
 * opens and closes the file that it is about, on a thread of its own, and the closing of any descriptor
 * of a file ends all locks that the process has on it (fcntl(2)), in the middle of a transaction too.
 *
 * What it says is which file the database is, and since when: whoever comes to one that was deleted, or
 * put back from a copy, can tell that nodes may live whose leases are not in it yet.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { EventCounter, type Logger, messageOf } from "../../mod.ts";

/** How often the file is looked at where the kernel tells nothing. */
const DEAF_LOOK_MS = 50;
/**
 * How long the nodes that live have to claim their subnets in another database: their agents look at it
 * twice a second.
 */
export const SETTLE_MS = 1_500;
/** The bell's length, in bytes: always the same, so that one writing overwrites all of another. */
const LENGTH = 128;

/** What the bell says. */
interface Saying {
  /** Which file the database is; see {@link Database.identity}. */
  readonly identity: string;
  /** When it took another's place, in milliseconds since 1970; 0 for the first. */
  readonly sinceMs: number;
}

/** The bell of one database. */
export class Bell implements Disposable {
  readonly #path: string;
  readonly #log: Logger;
  #saying: Saying | undefined;
  #watcher: Deno.FsWatcher | undefined;
  readonly #rings = new EventCounter();
  #disposed = false;

  /** The bell of the database at `path`. */
  constructor(path: string, log: Logger) {
    this.#path = `${path}-bell`;
    this.#log = log;
  }

  /** Reads what it says. To be called before the database is opened, which others may do at the same time. */
  look(): void {
    this.#saying = this.#read() ?? this.#saying;
  }

  /**
   * From now on it is rung for this file.
   *
   * @param lacks whether it lacks what the one before had, though it may be the same inode
   */
  ringFor(identity: string, lacks: boolean): void {
    const said = this.#saying;
    if (said?.identity === identity && !lacks) return;
    this.#saying = { identity, sinceMs: said === undefined ? 0 : Date.now() };
    this.ring();
  }

  /** How long the nodes that live still have to claim their subnets, in milliseconds; else 0. */
  get unsettledMs(): number {
    this.look();
    const ageMs = Date.now() - (this.#saying?.sinceMs ?? 0);
    return ageMs < 0 ? SETTLE_MS : Math.max(SETTLE_MS - ageMs, 0);
  }

  /** Tells all who listen that something was committed. */
  ring(): void {
    try {
      using file = this.#open();
      file.writeSync(new TextEncoder().encode(JSON.stringify(this.#saying ?? "").padEnd(LENGTH)));
    } catch {
      // They look from time to time as well.
    }
  }

  /**
   * Starts to listen. Where the kernel can't tell, as where the host's other programs have used up its inotify
   * instances, the log hears of it.
   */
  listen(): void {
    if (this.#watcher !== undefined || this.#disposed) return;
    try {
      if (!existsSync(this.#path)) this.#open().close();
      this.#watcher = Deno.watchFs(this.#path);
    } catch (error) {
      const message = messageOf(error);
      const advice = message.includes("Too many") ? " (raise fs.inotify.max_user_instances)" : "";
      this.#log.warn(
        "store-signal-failed",
        `${this.#path} can't be listened to, by which writes to the database are heard of: ${message}; ` +
          `looking every ${DEAF_LOOK_MS} ms${advice}`,
      );
      return;
    }
    void this.#hear(this.#watcher);
  }

  async #hear(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind === "access") continue;
      this.#rings.add();
      if (kind === "remove" || kind === "rename") break;
    }
    if (this.#disposed) return;
    // Whoever takes it away, with the database or without, is to find its words all the same.
    watcher.close();
    this.#watcher = undefined;
    this.ring();
    this.listen();
  }

  /** Not cut short: who reads meanwhile finds what was said before. */
  #open(): Deno.FsFile {
    const options = { create: true, write: true, mode: 0o600 } as const;
    try {
      return Deno.openSync(this.#path, options);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      Deno.mkdirSync(this.#path.replace(/[^/]*$/, ""), { recursive: true, mode: 0o700 });
      return Deno.openSync(this.#path, options);
    }
  }

  #read(): Saying | undefined {
    try {
      const { identity, sinceMs } = JSON.parse(Deno.readTextFileSync(this.#path));
      return typeof identity === "string" && typeof sinceMs === "number"
        ? { identity, sinceMs }
        : undefined;
    } catch {
      // It is not there, or says nothing.
      return undefined;
    }
  }

  /** How often it was heard so far. Ask before the database is read, so that none is missed meanwhile. */
  get count(): number {
    return this.#rings.count;
  }

  /**
   * Waits until another look at the database is worth its while: after a ring that came after the first
   * `count`, and in any case after a time. False once the signal is aborted.
   */
  async after(count: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const limitMs = this.#watcher === undefined ? DEAF_LOOK_MS : Infinity;
    return await this.#rings.after(count, Math.min(timeoutMs, limitMs), signal);
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#watcher?.close();
  }
}
