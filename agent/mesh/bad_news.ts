/**
 * Telling the other nodes which peers this one finds in trouble. A node that has no such news tells nothing, so what all
 * nodes write together grows with the trouble.
 *
 * @module
 */

import {
  Backoff,
  type Clock,
  Complaints,
  EventCounter,
  type LeaseStore,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  NOTE_TTL_MS,
  throwDefect,
} from "@denim/core";
import { formatReport, type Trouble } from "./mesh_report.ts";

/** The wait for the rest of news that belongs together, in milliseconds. */
const SETTLE_MS = 500;
/**
 * As long as news go on the rest after a note is so many times as long as the one before: of a cluster that falls apart,
 * or comes together again, each node would have news for minutes …
 */
const REST_GROWTH = 4;
/** … and at most so long for each node, in milliseconds, so that all nodes write 100 to 200 notes a second together. */
const REST_MS_PER_NODE = 10;
/** Waits before a store that did not take a note is asked again, in milliseconds. */
const RETRY = { minMs: 1_000, maxMs: 60_000, jitter: 0.5 };

/** So many are named for people. */
const NAMED = 10;

/** What {@link BadNews} works with. */
export interface BadNewsOptions {
  /** Who is told, if it takes notes. */
  readonly store: Pick<LeaseStore, "writeNote">;
  /** The key of this node's lease. */
  readonly key: () => string;
  /** The peers in trouble, as they are now. */
  readonly troubles: () => readonly Trouble[];
  /** How many nodes there are, each of which may have as many news. */
  readonly nodes: () => number;
  /** By which it waits. */
  readonly clock: Clock;
  /** Takes a warning if the store does not take a note. */
  readonly log: Logger;
}

/** Keeps this node's note in the store, for as long as it has bad news. */
export class BadNews {
  readonly #options: BadNewsOptions;
  readonly #changes = new EventCounter();
  readonly #complaints = new Complaints();

  /** Has told nothing yet. */
  constructor(options: BadNewsOptions) {
    this.#options = options;
  }

  /** The troubles are others now. */
  readonly changed = (): void => this.#changes.add();

  /** Tells until the signal is aborted; the note stays then until it ends. */
  async run(signal: AbortSignal): Promise<void> {
    const { store, key, troubles, nodes, clock, log } = this.#options;
    if (store.writeNote === undefined) return;
    const backoff = new Backoff(RETRY);
    /** What the last run told is not known. */
    let told: string | undefined = "";
    let restMs = SETTLE_MS;
    for (;;) {
      const { count } = this.#changes;
      const now = troubles();
      const note = now.length === 0
        ? undefined
        : { text: formatReport(now, nodes(), Date.now()), summary: summary(now) };
      let waitMs = note === undefined ? MAX_SLEEP_MS : NOTE_TTL_MS / 2;
      try {
        if (note !== undefined || told !== undefined) await store.writeNote(key(), note, signal);
        told = note?.text;
        backoff.reset();
        this.#complaints.resolve();
      } catch (error) {
        if (error !== signal.reason) throwDefect(error);
        if (signal.aborted) return;
        waitMs = backoff.next();
        const why = messageOf(error);
        if (this.#complaints.isNew(why)) {
          log.warn(
            "bad-news-untold",
            `the store does not take what this node says of its peers: ${why}`,
          );
        }
      }
      const toldAtMs = clock.nowMs();
      if (!await this.#changes.after(count, waitMs, signal)) return;
      const quietMs = clock.nowMs() - toldAtMs;
      const longestMs = Math.max(SETTLE_MS, nodes() * REST_MS_PER_NODE);
      restMs = quietMs < longestMs ? Math.min(restMs * REST_GROWTH, longestMs) : SETTLE_MS;
      // Less by up to a half, by chance, so that nodes which began together do not go on so.
      const leftMs = restMs * (1 - Math.random() / 2) - quietMs;
      if (!await clock.sleep(Math.max(SETTLE_MS, leftMs), signal)) return;
    }
  }
}

function summary(troubles: readonly Trouble[]): string {
  const named = troubles.slice(0, NAMED).map(({ subnet, health }) => `${subnet} (${health})`);
  const more = troubles.length - named.length;
  return `${troubles.length} other ${troubles.length === 1 ? "node is" : "nodes are"} in trouble: ${
    named.join(", ")
  }${more > 0 ? ` and ${more} more` : ""}`;
}
