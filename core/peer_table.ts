/**
 * The peers of a node, kept from its store's lease events.
 *
 * @module
 */

import type { Backend, Peer } from "./backend.ts";
import { digestOf } from "./digest.ts";
import type { Lease } from "./lease.ts";
import type { LeaseEvent } from "./lease_store.ts";
import type { Logger } from "./log.ts";
import type { NetworkConfig } from "./net_conf.ts";

/** What an event changes among the peers. What stays as it was is not in it. */
export interface PeerChanges<PeerData> {
  /** Peers that are new, or that published something else. */
  readonly put: readonly Peer<PeerData>[];
  /** The keys of peers that left. */
  readonly removed: readonly string[];
}

/**
 * Reads leases into peers of one backend. It leaves out this node's own lease and those that this node can't follow
 * (another backend's, unreadable, outside the network), with one warning for each of these as long as its value stays
 * the same. An event costs work for the leases in it, not for those in the table.
 */
export class PeerTable<PeerData> {
  readonly #backend: Pick<Backend<never, PeerData>, "leaseType" | "peerData">;
  readonly #config: NetworkConfig;
  readonly #log: Logger;
  /** The digest of each lease seen, by key, to compare the next one with. */
  readonly #seen = new Map<string, number>();
  /** Why leases are refused, by key. */
  readonly #refused = new Map<string, string>();
  /** The peers, if the table keeps them. */
  readonly #peers: Map<string, Peer<PeerData>> | undefined;
  readonly #conflict: (peer: Peer<PeerData>) => string | undefined;
  readonly #conflicts = new Map<string, string>();
  #size = 0;
  #ownKey: string | undefined;

  /**
   * An empty table.
   *
   * @param backend whose leases are read
   * @param options.keep whether the table keeps its peers, so that they can be iterated over: 1 KB each
   * @param options.conflict says what a peer has that only this node may have, as `BackendSession.conflict` does
   */
  constructor(
    backend: Pick<Backend<never, PeerData>, "leaseType" | "peerData">,
    config: NetworkConfig,
    log: Logger,
    options: {
      readonly keep?: boolean;
      readonly conflict?: (peer: Peer<PeerData>) => string | undefined;
    } = {},
  ) {
    this.#backend = backend;
    this.#config = config;
    this.#log = log;
    this.#peers = options.keep ? new Map() : undefined;
    this.#conflict = options.conflict ?? (() => undefined);
  }

  /** The number of peers. */
  get size(): number {
    return this.#size;
  }

  /** The peers as they are now, if the table keeps them; otherwise none. */
  *[Symbol.iterator](): Generator<Peer<PeerData>, void, void> {
    if (this.#peers !== undefined) yield* this.#peers.values();
  }

  /** The keys of the leases that are refused, and why. */
  refused(): Iterable<readonly [key: string, reason: string]> {
    return this.#refused;
  }

  /** The keys of all leases that the table knows, also of those that are not peers. */
  keys(): Iterable<string> {
    return this.#seen.keys();
  }

  /** The leases that have what only this node may have, as sentences for operators, by their keys. */
  get conflicts(): ReadonlyMap<string, string> {
    return this.#conflicts;
  }

  /** Whether there is a peer whose lease has this key. */
  has(key: string): boolean {
    return this.#seen.has(key) && !this.#refused.has(key);
  }

  /** The key of this node's own lease, which is never a peer. Set it before the first event. */
  set ownKey(key: string) {
    this.#ownKey = key;
  }

  /** Applies an event of the store's watch, and returns what changed. */
  apply(event: LeaseEvent): PeerChanges<PeerData> {
    const put: Peer<PeerData>[] = [];
    const leases = event.kind === "snapshot" ? event.leases : event.put;
    const removed = event.kind === "snapshot"
      ? this.#absentFrom(new Set(leases.map((lease) => lease.key)))
      : event.removed;
    const gone = removed.filter((key) => this.#remove(key));
    for (const lease of leases) {
      if (lease.key === this.#ownKey) continue;
      const digest = digestOf(publishedBy(lease));
      if (this.#seen.get(lease.key) === digest) continue;
      const wasPeer = this.#remove(lease.key);
      const peer = this.#read(lease);
      this.#seen.set(lease.key, digest);
      if (typeof peer === "string") {
        this.#refused.set(lease.key, peer);
        if (wasPeer) gone.push(lease.key);
      } else {
        this.#peers?.set(lease.key, peer);
        put.push(peer);
        this.#size++;
      }
    }
    return { put, removed: gone };
  }

  #absentFrom(keys: ReadonlySet<string>): string[] {
    return [...this.#seen.keys()].filter((key) => !keys.has(key));
  }

  /** Returns whether the key was a peer's. */
  #remove(key: string): boolean {
    const peer = this.has(key);
    this.#seen.delete(key);
    this.#refused.delete(key);
    this.#peers?.delete(key);
    this.#conflicts.delete(key);
    if (peer) this.#size--;
    return peer;
  }

  /** The peer; or why it is none. */
  #read(lease: Lease): Peer<PeerData> | string {
    const skip = (reason: string, isUsual = false) => {
      const text = `lease ${lease.key} is not followed: ${reason}`, fields = { lease: lease.key };
      if (isUsual) this.#log.info("peer-refused", text, fields);
      else this.#log.warn("peer-refused", text, fields);
      return reason;
    };
    if (lease.backendType !== this.#backend.leaseType) {
      if (lease.backendType === "" && lease.expiry === "never") {
        return skip("it is reserved, and no agent of its node has published anything yet", true);
      }
      const say = (type: string) => type === "" ? "no type" : type;
      return skip(
        `its node runs another backend (${say(lease.backendType)}, ` +
          `here ${say(this.#backend.leaseType)})`,
      );
    }
    const halves = [];
    for (const { subnet, publicIp, backendData } of lease.halves) {
      const network = this.#config.families.find(({ family }) => family === subnet.family)?.network;
      if (network === undefined) continue;
      if (!network.contains(subnet)) return skip(`${subnet} is outside the network ${network}`);
      if (!publicIp.isReachable) return skip(`its public IP ${publicIp} is no host's for others`);
      const data = this.#backend.peerData.safeParse(backendData);
      if (!data.success) {
        const [issue] = data.error.issues;
        return skip(`its backend data: ${[...issue!.path, issue!.message].join(": ")}`);
      }
      halves.push({ subnet, publicIp, data: data.data });
    }
    if (halves.length === 0) return skip("it has no family in common");
    const peer = { key: lease.key, halves };
    const conflict = this.#conflict(peer);
    if (conflict === undefined) return peer;
    const addresses = halves.map(({ publicIp }) => publicIp).join(" ");
    const sentence = `the node ${addresses} has this node's ${conflict}`;
    this.#conflicts.set(lease.key, sentence);
    return skip(`${sentence}; look for a cloned machine`);
  }
}

/** What a lease says to its node's peers, as one text. */
function publishedBy({ backendType, halves }: Lease): string {
  return halves.reduce(
    (text, { subnet, publicIp, backendData }) =>
      `${text} ${subnet} ${publicIp} ${JSON.stringify(backendData)}`,
    backendType,
  );
}
