/**
 * Runs a command for each peer that comes or goes: each peer's one after another, tried again until they
 * succeed, and no peer's waiting for another's.
 *
 * @module
 */

import { type Logger, messageOf, sleep } from "@denim/core";

/** Waits between attempts at what failed: from this, doubling … */
const MIN_RETRY_MS = 500;
/** … to this. */
const MAX_RETRY_MS = 60_000;
/** What is left of a peer that is gone is not worth more attempts than this. */
const REMOVE_ATTEMPTS = 5;
/** How many commands run at the same time … */
const MAX_RUNNING = 16;
/** … not counting those that have run for longer than this: one that hangs holds up nobody. */
const SLOW_MS = 250;

/** What is done about a peer. Both reject where they fail. */
export interface PeerSteps {
  /** Makes it reachable. */
  add(): Promise<void>;
  /** Takes that back. */
  remove(): Promise<void>;
}

interface Entry {
  /** What there should be. */
  wanted: PeerSteps | undefined;
  /** What there is, in whole or in part: what failed to be added may have left something. */
  present: PeerSteps | undefined;
  /** Whether it is there in whole. */
  whole: boolean;
  /** Aborted when there is another wish. */
  news: AbortController;
  working: boolean;
}

/** The peers of a node, as they should be and as they are. */
export class PeerCommands {
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  readonly #entries = new Map<string, Entry>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** Runs steps until the signal is aborted. */
  constructor(log: Logger, signal: AbortSignal) {
    this.#log = log;
    this.#signal = signal;
  }

  /** Asks for a peer. What was there under the same key, whoever asked for it, is removed first. */
  want(key: string, steps: PeerSteps): void {
    const entry = this.#entries.get(key) ?? {
      wanted: undefined,
      present: undefined,
      whole: true,
      news: new AbortController(),
      working: false,
    };
    this.#entries.set(key, entry);
    this.#change(key, entry, steps);
  }

  /** Asks for no such peer any more, unless others have asked for one in the meantime. */
  drop(key: string, steps: PeerSteps): void {
    const entry = this.#entries.get(key);
    if (entry?.wanted === steps) this.#change(key, entry, undefined);
  }

  #change(key: string, entry: Entry, wanted: PeerSteps | undefined): void {
    entry.wanted = wanted;
    entry.news.abort();
    if (!entry.working) this.#work(key, entry);
  }

  async #work(key: string, entry: Entry): Promise<void> {
    entry.working = true;
    let retryMs = MIN_RETRY_MS;
    let removals = 0;
    let said: string | undefined;
    while ((entry.present !== entry.wanted || !entry.whole) && !this.#signal.aborted) {
      const { present, wanted } = entry;
      const removing = present !== undefined && present !== wanted;
      entry.news = new AbortController();
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
        retryMs = MIN_RETRY_MS;
        removals = 0;
        said = undefined;
        continue;
      } catch (error) {
        if (this.#signal.aborted) break;
        // A peer that is there in another form matters more than what its former one left.
        const over = removing && (entry.wanted !== undefined || removals === REMOVE_ATTEMPTS);
        const line = `${messageOf(error)}; ${over ? "left at that" : "trying again"}`;
        if (line !== said) this.#log.error("command-failed", line, { peer: key });
        said = line;
        if (over) {
          entry.present = undefined;
          entry.whole = true;
          continue;
        }
      }
      await sleep(retryMs, AbortSignal.any([this.#signal, entry.news.signal]));
      retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
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
