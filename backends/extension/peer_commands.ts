/**
 * Runs a command for each peer that comes or goes: those of one peer one after another, each again until it succeeds.
 * No peer waits for another.
 *
 * @module
 */

import {
  Backoff,
  Complaints,
  type Logger,
  messageOf,
  type NodeContext,
  sleep,
  throwDefect,
} from "@denim/core";

/** Waits between attempts at what failed, each twice the one before. */
const MIN_RETRY_MS = 500, MAX_RETRY_MS = 60_000;
/** How often a peer's removal is tried: what is left of a peer that is gone is not worth more. */
const REMOVE_ATTEMPTS = 5;
/** How many commands run at the same time, not counting the slow ones. */
const MAX_RUNNING = 16;
/** After this time a command counts as slow: one that hangs holds up no other. */
const SLOW_MS = 250;

/** What is done about a peer. Both reject with a RuntimeError if they fail; any other error ends the node. */
export interface PeerSteps {
  /** Makes the peer reachable. */
  add(): Promise<void>;
  /** Undoes that. */
  remove(): Promise<void>;
}

interface Entry {
  /** The steps of the peer that should be there. */
  wanted: PeerSteps | undefined;
  /** The steps of the peer that is there, in whole or in part: a command that failed may have left something. */
  present: PeerSteps | undefined;
  /** Whether it is there in whole. */
  whole: boolean;
  /** Aborted when `wanted` changes. */
  changed: AbortController;
  working: boolean;
}

/**
 * The peers of a node, as they should be and as they are. They outlive a session: if net-conf has other commands, a
 * peer that the former ones added is removed before the new ones add it.
 */
export class PeerCommands {
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  readonly #fail: (error: unknown) => void;
  readonly #entries = new Map<string, Entry>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** Runs steps until the node's signal is aborted. */
  constructor({ log, signal, fail }: Pick<NodeContext, "log" | "signal" | "fail">) {
    this.#log = log;
    this.#signal = signal;
    this.#fail = fail;
  }

  /** Asks for a peer. What is there under the same key is removed first, whichever session asked for it. */
  want(key: string, steps: PeerSteps): void {
    const entry = this.#entries.get(key) ?? {
      wanted: undefined,
      present: undefined,
      whole: true,
      changed: new AbortController(),
      working: false,
    };
    this.#entries.set(key, entry);
    this.#change(key, entry, steps);
  }

  /** Asks for the peer's removal, unless another session has asked for one under the same key meanwhile. */
  drop(key: string, steps: PeerSteps): void {
    const entry = this.#entries.get(key);
    if (entry?.wanted === steps) this.#change(key, entry, undefined);
  }

  #change(key: string, entry: Entry, wanted: PeerSteps | undefined): void {
    entry.wanted = wanted;
    entry.changed.abort();
    if (!entry.working) this.#work(key, entry).catch(this.#fail);
  }

  async #work(key: string, entry: Entry): Promise<void> {
    entry.working = true;
    const backoff = new Backoff({ minMs: MIN_RETRY_MS, maxMs: MAX_RETRY_MS });
    const complaints = new Complaints();
    let removals = 0;
    while ((entry.present !== entry.wanted || !entry.whole) && !this.#signal.aborted) {
      const { present, wanted } = entry;
      const removing = present !== undefined && present !== wanted;
      entry.changed = new AbortController();
      try {
        if (removing) {
          removals++;
          await this.#run(() => present.remove());
          entry.present = undefined;
        } else {
          entry.present = wanted;
          entry.whole = false;
          await this.#run(() => wanted!.add());
        }
        entry.whole = true;
        backoff.reset();
        complaints.resolve();
        removals = 0;
        continue;
      } catch (error) {
        throwDefect(error);
        if (this.#signal.aborted) break;
        // A peer that is there in another form matters more than what its former one left.
        const givesUp = removing && (entry.wanted !== undefined || removals === REMOVE_ATTEMPTS);
        const line = `${messageOf(error)}; ${givesUp ? "giving up" : "trying again"}`;
        if (complaints.isNew(line)) this.#log.error("command-failed", line, { peer: key });
        if (givesUp) {
          entry.present = undefined;
          entry.whole = true;
          continue;
        }
      }
      await sleep(backoff.next(), AbortSignal.any([this.#signal, entry.changed.signal]));
    }
    entry.working = false;
    if (entry.wanted === undefined) this.#entries.delete(key);
  }

  async #run(step: () => Promise<void>): Promise<void> {
    if (this.#running < MAX_RUNNING) this.#running++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let counted = true;
    const uncount = () => {
      if (!counted) return;
      counted = false;
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    };
    const timer = setTimeout(uncount, SLOW_MS);
    try {
      await step();
    } finally {
      clearTimeout(timer);
      uncount();
    }
  }
}
