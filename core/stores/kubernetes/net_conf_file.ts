/**
 * net-conf in a file, as Kubernetes puts a ConfigMap into a pod: the file is a link to a link, which is
 * replaced when the ConfigMap changes.
 *
 * @module
 */

import { dirname } from "node:path";
import {
  ConfigError,
  followNetConf,
  type Logger,
  messageOf,
  type NetworkConfig,
  readNetConf,
  sleep,
  throwDefect,
  throwUnlessAborted,
} from "../../mod.ts";

/** How long the file is left alone after something happened beside it: a writer may not be done. */
const SETTLE_MS = 50;
/** How often a file that is not there is looked for. */
const LOOK_MS = 500;

/** A net-conf that is followed as its file changes. */
export class NetConfFile {
  readonly #path: string;
  readonly #log: Logger;

  /** Nothing is read yet. */
  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** The net-conf, waited for. Rejects with a ConfigError if the one in the file can't be used. */
  async read(signal: AbortSignal): Promise<NetworkConfig> {
    return readNetConf(await this.#awaitText(signal), this.#path);
  }

  /**
   * The net-conf as {@link NetConfFile.read} gives it, then each other one that the file has, until the signal
   * is aborted, which ends it. One that can't be used is left out, with an error in the log.
   */
  watch(signal: AbortSignal): AsyncGenerator<NetworkConfig, void, void> {
    return followNetConf(this.#texts(signal), this.#path, this.#log);
  }

  /** What the file holds, each time that it may be something else. */
  async *#texts(signal: AbortSignal): AsyncGenerator<string, void, void> {
    while (!signal.aborted) {
      try {
        await this.#awaitText(signal);
        // Before the file is read again: what changes meanwhile is heard of.
        using watcher = Deno.watchFs(dirname(this.#path), { recursive: false });
        using _end = onAbort(signal, () => watcher.close());
        do {
          const text = await this.#read();
          if (text === undefined) break;
          yield text;
        } while (await changed(watcher) && await sleep(SETTLE_MS, signal));
      } catch (error) {
        if (signal.aborted) return throwUnlessAborted(error, signal);
        // Its directory went away with it.
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }

  async #awaitText(signal: AbortSignal): Promise<string> {
    for (let told = false;; told = true) {
      signal.throwIfAborted();
      const text = await this.#read();
      if (text !== undefined) return text;
      if (!told) {
        this.#log.info(
          "net-conf-awaited",
          `waiting for a net-conf in ${this.#path}, as --net-config-path names it; in a pod it is a key of a ` +
            "ConfigMap that is mounted there",
        );
      }
      await sleep(LOOK_MS, signal);
    }
  }

  async #read(): Promise<string | undefined> {
    try {
      return await Deno.readTextFile(this.#path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throwDefect(error);
      throw new ConfigError(`net-conf in ${this.#path} can't be read: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
}

/** Waits until something in the directory changes; false once the watcher is closed. */
async function changed(watcher: Deno.FsWatcher): Promise<boolean> {
  return (await watcher[Symbol.asyncIterator]().next()).done !== true;
}

function onAbort(signal: AbortSignal, run: () => void): Disposable {
  signal.addEventListener("abort", run, { once: true });
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", run) };
}
