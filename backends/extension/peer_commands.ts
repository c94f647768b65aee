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
export interface PeerSteps<Peer> {
  /** Makes it reachable. */
  add(peer: Peer): Promise<void>;
  /** Takes that back. */
  remove(peer: Peer): Promise<void>;
}

interface Entry<Peer> {
  /** What there should be. */
  wanted: Peer | undefined;
  /** What there is. */
  present: Peer | undefined;
  /** Aborted when there is another wish. */
  news: AbortController;
  working: boolean;
}

/** The peers, as they should be and as they are. */
export class PeerCommands<Peer> {
  readonly #steps: PeerSteps<Peer>;
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  readonly #entries = new Map<string, Entry<Peer>>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** Runs `steps` until the signal is aborted. */
  constructor(steps: PeerSteps<Peer>, log: Logger, signal: AbortSignal) {
    this.#steps = steps;
    this.#log = log;
    this.#signal = signal;
  }

  /** Asks for a peer as it is now, or, with `undefined`, for none. A changed peer is removed first. */
  want(key: string, peer: Peer | undefined): void {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = {
        wanted: undefined,
        present: undefined,
        news: new AbortController(),
        working: false,
      };
      this.#entries.set(key, entry);
    }
    entry.wanted = peer;
    entry.news.abort();
    if (!entry.working) this.#work(key, entry);
  }

  async #work(key: string, entry: Entry<Peer>): Promise<void> {
    entry.working = true;
    let retryMs = MIN_RETRY_MS;
    let removals = 0;
    while (entry.present !== entry.wanted && !this.#signal.aborted) {
      const { present, wanted } = entry;
      entry.news = new AbortController();
      try {
        if (present !== undefined) {
          removals++;
          await this.#run(() => this.#steps.remove(present));
          entry.present = undefined;
        } else {
          await this.#run(() => this.#steps.add(wanted!));
          entry.present = wanted;
        }
        retryMs = MIN_RETRY_MS;
        continue;
      } catch (error) {
        if (this.#signal.aborted) break;
        this.#log.error(messageOf(error), { peer: key });
      }
      if (present !== undefined && (entry.wanted !== undefined || removals >= REMOVE_ATTEMPTS)) {
        // A peer that is there in another form matters more than what its former one left.
        entry.present = undefined;
        continue;
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
