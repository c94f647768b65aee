/**
 * The agent's half of the talk with the plugin.
 *
 * @module
 */

import { RuntimeError, throwDefect } from "@denim/core/errors";
import { FifoReader, FifoWriter, makeFifo } from "@denim/core/linux/fifo";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { readProcFile, readProcLink } from "@denim/core/linux/proc-files";
import {
  buildName,
  CallFiles,
  GREETING,
  PLACES,
  REPLY_FD,
  replyText,
  SERVED_COMMANDS,
  STOP,
} from "./calls.ts";
import { removeLinks } from "./bridge.ts";
import { takeTurn, turnOf } from "./call_order.ts";
import { removeIfThere, unlessGone } from "./files.ts";
import { NodeMasquerade } from "./masquerade.ts";
import { type Answer, begin } from "./plugin.ts";

/** One call that the agent carried out. */
export interface ServedCall {
  /** `ADD` or `DEL` */
  readonly command: string;
  /** Whether it failed. */
  readonly failed: boolean;
  /** How long it took, in seconds. */
  readonly seconds: number;
}

/** How often places are looked at that nobody may have any more, in milliseconds. */
const TIDY_MS = 60_000;
/** How old a place's file is at least whose maker is taken for killed before it asked, in milliseconds. */
const FORGOTTEN_MS = 1000;
/** How long a script may read nothing of a reply that is longer than a pipe, in milliseconds. */
const REPLY_PATIENCE_MS = 1000;

/** A place where the agent has greeted. */
interface Guest {
  /** The script's process. */
  readonly pid: number;
  /** The FIFO to it. */
  readonly reply: FifoWriter;
}

/** A call that a script has asked for. */
interface Call {
  readonly place: number;
  /** The script's process. */
  readonly pid: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly input: string;
}

/** A call that is under way. */
interface BegunCall extends Call {
  /** Has later calls of its attachment wait. */
  readonly turn: Disposable;
  /** What it goes on with, and wants to have removed. */
  readonly begun: ReturnType<typeof begin>;
  /** What goes to standard error. */
  readonly errors: string[];
}

/** Serves the plugin in a folder, one call after another on this thread. */
export class PluginServer implements Disposable {
  readonly #files: CallFiles;
  readonly #lock: Disposable;
  readonly #ask: FifoReader;
  readonly #guests = new Map<number, Guest>();
  /** Kept open: to close it takes as long as to remove a device, if a rule was removed. */
  readonly #masquerade = new NodeMasquerade();
  /** The calls that wait for others. */
  #calls: Call[] = [];
  #tidiedMs = 0;

  private constructor(files: CallFiles, lock: Disposable, revision: string | null | undefined) {
    this.#files = files;
    this.#lock = lock;
    this.#clear(/^(agent|ask|next|(call|reply)\.\d+|busy\..*)$/);
    makeFifo(files.ask);
    for (let place = 0; place < PLACES; place++) makeFifo(files.reply(place));
    this.#ask = new FifoReader(files.ask);
    const [pid, , thread] = readProcLink("/proc/thread-self").split("/");
    const line = `${pid} ${thread} ${this.#ask.fd} ${buildName(revision)}\n`;
    Deno.writeTextFileSync(files.agent, line, { mode: 0o600 });
  }

  /**
   * Makes the folder, and has a script that asks there find this thread. Throws what Deno throws, or a
   * LinuxError, if the folder can't be had, and a RuntimeError if another agent serves there.
   *
   * @param revision the commit of this build, if it is known
   */
  static open(path: string, revision: string | null | undefined): PluginServer {
    requireEntry();
    makeFolder(path);
    const files = new CallFiles(Deno.realPathSync(path));
    const lock = Deno.openSync(files.lock, { write: true, create: true, mode: 0o600 });
    if (lock.tryLockSync(true)) return new PluginServer(files, lock, revision);
    lock.close();
    throw new RuntimeError("another agent serves there");
  }

  /**
   * Carries out calls on this thread until somebody says {@link STOP}. What takes its time is left to the plugin:
   * denim's own work waits for no other program, so that no pod waits for another's. Throws what Deno throws if the
   * folder is gone.
   *
   * @param onCall hears of each call that was carried out
   */
  serve(onCall: (call: ServedCall) => void): void {
    for (;;) {
      // Between two calls all are greeted who ask by now: they know then that the agent works, and wait.
      if (!this.#listen(this.#calls.length > 0 ? 0 : TIDY_MS)) return;
      const [next] = this.#calls;
      if (next !== undefined) this.#serveCalls(this.#takeWith(next), onCall);
      if (performance.now() - this.#tidiedMs > FORGOTTEN_MS) this.#tidy();
    }
  }

  /** Hears who asks; false if nobody may ask any more. */
  #listen(timeoutMs: number): boolean {
    for (const line of this.#ask.lines(timeoutMs)) {
      if (line === STOP) return false;
      const [word, ...numbers] = line.split(" ");
      const [place, pid] = numbers.map(Number) as [number, number];
      if (word === "hello") this.#greet(place, pid);
      else this.#hear(place, pid);
    }
    return true;
  }

  #hear(place: number, pid: number): void {
    if (this.#guests.get(place)?.pid !== pid) return;
    try {
      const environment = environmentOf(pid);
      const input = Deno.readTextFileSync(this.#files.call(place));
      if (SERVED_COMMANDS.includes(environment["CNI_COMMAND"] ?? "")) {
        this.#calls.push({ place, pid, environment, input });
        return;
      }
    } catch (error) {
      // The script was killed.
      throwDefect(error);
    }
    this.#free(place);
  }

  /**
   * Takes a call from those that wait; with a DEL all other DELs, for their devices go in the time that one takes. Of an
   * attachment it takes the first: the others wait for that one.
   */
  #takeWith(next: Call): readonly Call[] {
    const command = next.environment["CNI_COMMAND"];
    const taken = new Map([[turnOf(next.environment), next]]);
    if (command === "DEL") {
      for (const call of this.#calls) {
        const key = turnOf(call.environment);
        if (call.environment["CNI_COMMAND"] === command && !taken.has(key)) taken.set(key, call);
      }
    }
    const calls = [...taken.values()];
    this.#calls = this.#calls.filter((call) => !calls.includes(call));
    return calls;
  }

  #greet(place: number, pid: number): void {
    // The place may be another's by now.
    if (this.#guests.has(place) || !this.#waits(place, pid)) return;
    const reply = FifoWriter.open(this.#files.reply(place));
    if (reply === undefined) return;
    this.#guests.set(place, { pid, reply });
    this.#say(place, `${GREETING}\n`);
  }

  /** Carries out calls of as many attachments. */
  #serveCalls(calls: readonly Call[], onCall: (call: ServedCall) => void): void {
    const startMs = performance.now();
    const begun = calls.flatMap((call) => this.#begin(call) ?? []);
    const devices = begun.flatMap(({ begun }) => "device" in begun ? [begun.device] : []);
    if (devices.length > 1) removeLinks(devices);
    for (const call of begun) {
      const answered = finish(call);
      call.turn[Symbol.dispose]();
      if (answered !== undefined) {
        this.#say(call.place, replyText({ ...answered, errors: call.errors.join("") }));
      }
      this.#free(call.place);
      if (answered !== undefined) {
        const command = call.environment["CNI_COMMAND"]!;
        const seconds = (performance.now() - startMs) / 1000;
        onCall({ command, failed: answered.failed, seconds });
      }
    }
  }

  /** Begins a call, if its script still waits once it is the attachment's turn; else its place is free. */
  #begin(call: Call): BegunCall | undefined {
    const { place, pid, environment, input } = call;
    // A place is another's, or nobody's, once its script was killed.
    if (this.#guests.get(place)?.pid !== pid) return undefined;
    try {
      using undo = new DisposableStack();
      const turn = undo.use(takeTurn(this.#files.folder, environment));
      if (this.#waits(place, pid)) {
        const errors: string[] = [];
        const begun = begin({
          read: (name) => environment[name],
          readInput: () => input,
          warn: (line) => errors.push(`${line}\n`),
        }, this.#masquerade);
        undo.move();
        return { ...call, turn, begun, errors };
      }
    } catch (error) {
      // The disk is full: the plugin says so.
      throwDefect(error);
    }
    this.#free(place);
    return undefined;
  }

  /** Whether a process waits at a place: it has the place's own FIFO open, and none of an earlier one's. */
  #waits(place: number, pid: number): boolean {
    try {
      return readProcLink(`/proc/${pid}/fd/${REPLY_FD}`) === this.#files.reply(place);
    } catch (error) {
      throwDefect(error);
      return false;
    }
  }

  #say(place: number, text: string): void {
    try {
      this.#guests.get(place)!.reply.write(text, REPLY_PATIENCE_MS);
    } catch (error) {
      // The script was killed.
      throwDefect(error);
    }
  }

  /** Takes away what a call had. The file goes last, as the place is the next one's then. */
  #free(place: number): void {
    this.#guests.get(place)?.reply[Symbol.dispose]();
    this.#guests.delete(place);
    // In one step: a shell that finds no FIFO makes a file.
    makeFifo(this.#files.next);
    Deno.renameSync(this.#files.next, this.#files.reply(place));
    removeIfThere(this.#files.call(place));
  }

  /** Frees the places of scripts that were killed. */
  #tidy(): void {
    this.#tidiedMs = performance.now();
    for (const [place, { pid }] of this.#guests) if (!this.#waits(place, pid)) this.#free(place);
    for (const { name } of Deno.readDirSync(this.#files.folder)) {
      const place = Number(/^call\.(\d+)$/.exec(name)?.[1]);
      if (place < PLACES && !this.#guests.has(place) && this.#isOld(place)) this.#free(place);
    }
  }

  #isOld(place: number): boolean {
    const { mtime } = Deno.statSync(this.#files.call(place));
    return Date.now() - mtime!.getTime() > FORGOTTEN_MS;
  }

  /** Stops serving: scripts that wait find the end of their FIFO. */
  [Symbol.dispose](): void {
    for (const { reply } of this.#guests.values()) reply[Symbol.dispose]();
    this.#masquerade[Symbol.dispose]();
    this.#ask[Symbol.dispose]();
    this.#clear(/^(agent|ask|(call|reply)\.\d+)$/);
    this.#lock[Symbol.dispose]();
  }

  #clear(names: RegExp): void {
    const entries = unlessGone(() => [...Deno.readDirSync(this.#files.folder)]) ?? [];
    for (const { name } of entries) {
      if (names.test(name)) removeIfThere(`${this.#files.folder}/${name}`);
    }
  }
}

/** Throws a LinuxError, EPERM, if this thread may not enter namespaces: every ADD would fail that the plugin could do. */
function requireEntry(): void {
  using here = NetworkNamespace.current();
  here.run(() => {});
}

/** Makes the folder, for its owner alone. Throws a RuntimeError if it is there and others may look into it. */
function makeFolder(path: string): void {
  const parent = path.slice(0, path.lastIndexOf("/"));
  if (parent !== "") Deno.mkdirSync(parent, { recursive: true });
  try {
    Deno.mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    const others = Deno.statSync(path).mode! & 0o077;
    if (others !== 0) throw new RuntimeError("others than its owner may use the folder");
  }
}

/** What a process was started with. */
function environmentOf(pid: number): Readonly<Record<string, string>> {
  const entries = readProcFile(`/proc/${pid}/environ`).split("\0").map((entry) => {
    const equals = entry.indexOf("=");
    return [entry.slice(0, equals), entry.slice(equals + 1)] as const;
  });
  return Object.fromEntries(entries);
}

/** What a call came to; `undefined` if the plugin has to do it, of which nothing is done then. */
function finish({ begun }: BegunCall): Answer | undefined {
  if (typeof begun === "function") return undefined;
  return "device" in begun ? begun.finish() : begun;
}
