/**
 * All nodes of a cluster, followed: a list, then a watch of metadata alone, which tells at a quarter of the cost
 * what happens to annotations, and that something happened to a podCIDR but not what. podCIDRs never change
 * once a node has them, so each is read once.
 *
 * @module
 */

import {
  Backoff,
  type BackoffOptions,
  EventCounter,
  type Logger,
  MAX_SLEEP_MS,
  RuntimeError,
  sleep,
  type StoreMetrics,
  throwUnlessAborted,
} from "../../mod.ts";
import { type AnnotationNames, type NodeRecord, sameAnnotations } from "./annotations.ts";
import { HistoryGoneError, type NodeApi, type NodeEvents, type NodeList } from "./node_api.ts";

/** How many nodes are read one by one; if more are unknown, all are listed. */
const MAX_SINGLE_READS = 50;
/** How many reads are under way at once. */
const READERS = 8;
/** Waits before a watch that broke is begun again. */
const REWATCH: BackoffOptions = { minMs: 20, maxMs: 1_000, jitter: 0.5 };
/**
 * Nodes list again at the same moment if a server restarts: they spread over so long for each node of the
 * cluster …
 */
const SPREAD_MS_PER_NODE = 1;
/** … and at most over this. */
const MAX_SPREAD_MS = 5_000;

/** What became known of nodes. */
export type NodeNews =
  | {
    /** All nodes as they are at this moment: the first news, and again after a gap. */
    readonly kind: "snapshot";
    /** Every node. */
    readonly nodes: Iterable<NodeRecord>;
  }
  | {
    /** What changed since the news before. */
    readonly kind: "changes";
    /** New nodes, and those of which something else is known now. */
    readonly put: readonly NodeRecord[];
    /** The names of nodes that are gone. */
    readonly removed: readonly string[];
  };

/** The podCIDRs of nodes by their uids: what is read of them stays true. */
export type PodCidrs = Map<string, readonly string[]>;

/** What a follower works with. */
export interface NodeFollowerOptions {
  /** Where the nodes are. */
  readonly api: NodeApi;
  /** The annotations that count. */
  readonly names: AnnotationNames;
  /** What is known from before; podCIDRs that are read are added, those of nodes that are gone removed. */
  readonly known: PodCidrs;
  /** Counts watches that are begun again. */
  readonly metrics: Pick<StoreMetrics, "watchRestarts">;
  /** Hears of them. */
  readonly log: Logger;
}

/** Follows the nodes until it is told to end. */
export class NodeFollower {
  readonly #api: NodeApi;
  readonly #names: AnnotationNames;
  readonly #known: PodCidrs;
  readonly #metrics: NodeFollowerOptions["metrics"];
  readonly #log: Logger;
  readonly #nodes = new Map<string, NodeRecord>();
  readonly #news = new EventCounter();
  /** The names of nodes of which there is news. */
  readonly #changed = new Set<string>();
  #listed = false;
  /** The names of nodes whose podCIDRs are to be read. */
  readonly #unread = new Set<string>();
  readonly #toRead = new EventCounter();
  #resourceVersion = "";

  /** Nothing is asked yet. */
  constructor({ api, names, known, metrics, log }: NodeFollowerOptions) {
    this.#api = api;
    this.#names = names;
    this.#known = known;
    this.#metrics = metrics;
    this.#log = log;
  }

  /** All nodes, then what becomes known of them, until the signal is aborted, which ends it. */
  async *follow(signal: AbortSignal): AsyncGenerator<NodeNews, void, void> {
    const over = new AbortController();
    const ending = AbortSignal.any([signal, over.signal]);
    let failed: { readonly error: unknown } | undefined;
    const guard = (work: Promise<void>) =>
      work.catch((error) => {
        if (ending.aborted) return throwUnlessAborted(error, ending);
        failed ??= { error };
        this.#news.add();
      });
    const work = [guard(this.#watch(ending)), guard(this.#readPodCidrs(ending))];
    try {
      for (let seen = 0; await this.#news.after(seen, MAX_SLEEP_MS, ending);) {
        seen = this.#news.count;
        if (failed !== undefined) throw failed.error;
        const news = this.#take();
        if (news !== undefined) yield news;
      }
    } finally {
      over.abort();
      await Promise.all(work);
    }
  }

  #take(): NodeNews | undefined {
    const changed = [...this.#changed];
    this.#changed.clear();
    if (this.#listed) {
      this.#listed = false;
      return { kind: "snapshot", nodes: [...this.#nodes.values()] };
    }
    if (changed.length === 0) return undefined;
    const put = changed.flatMap((name) => this.#nodes.get(name) ?? []);
    return { kind: "changes", put, removed: changed.filter((name) => !this.#nodes.has(name)) };
  }

  async #watch(ending: AbortSignal): Promise<void> {
    let listed = false;
    const backoff = new Backoff(REWATCH);
    while (!ending.aborted) {
      try {
        if (!listed) await this.#list(ending);
        listed = true;
        for await (
          const news of this.#api.watch({ resourceVersion: this.#resourceVersion }, ending)
        ) {
          backoff.reset();
          this.#hear(news);
        }
      } catch (error) {
        if (ending.aborted) return throwUnlessAborted(error, ending);
        if (!(error instanceof RuntimeError)) throw error;
        if (error instanceof HistoryGoneError) {
          listed = false;
          const spreadMs = Math.min(this.#nodes.size * SPREAD_MS_PER_NODE, MAX_SPREAD_MS);
          await sleep(Math.random() * spreadMs, ending);
        }
        this.#metrics.watchRestarts.add();
        this.#log.debug("watch-restarted", `the watch of the nodes begins again: ${error.message}`);
      }
      await sleep(backoff.next(), ending);
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const first = this.#known.size === 0;
    const { nodes, resourceVersion } = first
      ? await this.#listAll(signal)
      : await this.#api.listMetadata(signal);
    const uids = new Set(nodes.map(({ uid }) => uid));
    for (const uid of this.#known.keys()) if (!uids.has(uid)) this.#known.delete(uid);
    this.#nodes.clear();
    this.#resourceVersion = resourceVersion;
    for (const node of nodes) this.#nodes.set(node.name, this.#complete(node));
    // A snapshot that lacks a node would take away what leads to it. They are read from etcd as the list was: a server's
    // cache that has just begun may be seconds behind.
    if (!first) await this.#read([...this.#unread], undefined, signal);
    this.#unread.clear();
    this.#listed = true;
    this.#news.add();
  }

  async #listAll(signal: AbortSignal): Promise<NodeList> {
    const list = await this.#api.list(signal);
    for (const node of list.nodes) this.#learn(node);
    return list;
  }

  #learn({ uid, podCidrs }: NodeRecord): void {
    if (podCidrs.length > 0) this.#known.set(uid, podCidrs);
  }

  #hear({ events, resourceVersion }: NodeEvents): void {
    this.#resourceVersion = resourceVersion;
    for (const { present, node } of events) {
      const before = this.#nodes.get(node.name);
      if (!present) {
        // The node that was made again under the name stays, if its news came first.
        if (before?.uid !== node.uid) continue;
        this.#known.delete(node.uid);
        this.#nodes.delete(node.name);
        this.#unread.delete(node.name);
        this.#tell(node.name);
        continue;
      }
      const now = this.#complete(node);
      this.#nodes.set(node.name, now);
      // Most events are the kubelet's, and say that it lives.
      if (before === undefined || !alike(before, now)) this.#tell(node.name);
    }
    if (this.#unread.size > 0) this.#toRead.add();
  }

  #tell(name: string): void {
    this.#changed.add(name);
    this.#news.add();
  }

  /** A node with what is known of its podCIDRs; if nothing is, and it should have any, they are to be read. */
  #complete(node: NodeRecord): NodeRecord {
    const podCidrs = this.#known.get(node.uid) ?? [];
    const wanted = node.annotations[this.#names.managed] === "true";
    if (podCidrs.length === 0 && wanted) this.#unread.add(node.name);
    return { ...node, podCidrs };
  }

  async #readPodCidrs(ending: AbortSignal): Promise<void> {
    for (let seen = 0; await this.#toRead.after(seen, MAX_SLEEP_MS, ending);) {
      seen = this.#toRead.count;
      const names = [...this.#unread];
      this.#unread.clear();
      await this.#read(names, this.#resourceVersion, ending);
    }
  }

  /** Reads the podCIDRs of nodes, as they were at `resourceVersion` or later; as of now without it. */
  async #read(
    names: readonly string[],
    resourceVersion: string | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    if (names.length > MAX_SINGLE_READS) await this.#listAll(signal);
    else {
      const waiting = [...names];
      const read = async () => {
        for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
          const { node } = await this.#api.read(name, resourceVersion, signal);
          if (node !== undefined) this.#learn(node);
        }
      };
      await Promise.all(Array.from({ length: Math.min(READERS, names.length) }, read));
    }
    for (const name of names) {
      const node = this.#nodes.get(name);
      const podCidrs = node && this.#known.get(node.uid);
      // Else it has none yet, or was made again meanwhile: the watch tells.
      if (podCidrs === undefined || node!.podCidrs.length > 0) continue;
      this.#nodes.set(name, { ...node!, podCidrs });
      this.#tell(name);
    }
  }
}

function alike(one: NodeRecord, other: NodeRecord): boolean {
  return one.uid === other.uid && one.podCidrs.length === other.podCidrs.length &&
    sameAnnotations(one.annotations, other.annotations);
}
