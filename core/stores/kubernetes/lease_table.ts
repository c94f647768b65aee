/**
 * Nodes as leases: which of them hold one, and what became of it.
 *
 * @module
 */

import { Complaints, type Lease, type LeaseEvent, type Logger, RuntimeError } from "../../mod.ts";
import { type AnnotationNames, leaseOf, type NodeRecord, sameLease } from "./annotations.ts";
import type { NodeNews } from "./node_follower.ts";

/** Turns what becomes known of nodes into what becomes of leases. */
export class LeaseTable {
  readonly #names: AnnotationNames;
  readonly #log: Logger;
  /** The leases by their nodes' names. */
  readonly #leases = new Map<string, Lease>();
  /** By a lease's key the names of the nodes that hold it, the one that counts first: more than one is a mistake. */
  readonly #holders = new Map<string, string[]>();
  readonly #complaints = new Complaints();

  /** A table without leases, for annotations of these names. */
  constructor(names: AnnotationNames, log: Logger) {
    this.#names = names;
    this.#log = log;
  }

  /** How many nodes hold a lease. */
  get size(): number {
    return this.#leases.size;
  }

  /** Takes news and tells what it means for the leases; `undefined` if it means nothing. */
  apply(news: NodeNews): LeaseEvent | undefined {
    if (news.kind === "snapshot") {
      const names = new Set<string>();
      for (const node of news.nodes) {
        names.add(node.name);
        this.#put(node);
      }
      for (const name of [...this.#leases.keys()]) if (!names.has(name)) this.#remove(name);
      return { kind: "snapshot", leases: [...this.#holders.keys()].map((key) => this.#held(key)!) };
    }
    const before = new Map<string, Lease | undefined>();
    for (const name of news.removed) {
      this.#complaints.resolve(name);
      this.#remove(name, before);
    }
    for (const node of news.put) this.#put(node, before);
    const put: Lease[] = [];
    const removed: string[] = [];
    for (const [key, was] of before) {
      const is = this.#held(key);
      if (is === undefined) was && removed.push(key);
      else if (was === undefined || !sameLease(was, is)) put.push(is);
    }
    return put.length + removed.length === 0 ? undefined : { kind: "changes", put, removed };
  }

  /** @param before gets the lease that counted until now under each key that may change */
  #put(node: NodeRecord, before?: Map<string, Lease | undefined>): void {
    const lease = this.#read(node);
    const { name } = node;
    if (lease === undefined || this.#leases.get(name)?.key !== lease.key) {
      this.#remove(name, before);
    }
    if (lease === undefined) return;
    this.#note(lease.key, before);
    this.#leases.set(name, lease);
    const holders = this.#holders.get(lease.key) ?? [];
    if (holders.includes(name)) return;
    this.#holders.set(lease.key, [...holders, name]);
    if (holders.length === 0) return;
    this.#log.warn(
      "node-not-followed",
      `node ${name} is not followed: it has the podCIDR of node ${
        holders[0]
      }, ${lease.key}; delete the one ` +
        "of the two that is gone, or have one made again",
    );
  }

  #remove(name: string, before?: Map<string, Lease | undefined>): void {
    const lease = this.#leases.get(name);
    if (lease === undefined) return;
    this.#note(lease.key, before);
    this.#leases.delete(name);
    const others = this.#holders.get(lease.key)!.filter((holder) => holder !== name);
    if (others.length > 0) this.#holders.set(lease.key, others);
    else this.#holders.delete(lease.key);
  }

  #note(key: string, before: Map<string, Lease | undefined> | undefined): void {
    if (before?.has(key) === false) before.set(key, this.#held(key));
  }

  #held(key: string): Lease | undefined {
    const [holder] = this.#holders.get(key) ?? [];
    return holder === undefined ? undefined : this.#leases.get(holder);
  }

  #read(node: NodeRecord): Lease | undefined {
    const { name } = node;
    try {
      const lease = leaseOf(this.#names, node);
      this.#complaints.resolve(name);
      return lease;
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      const { message } = error;
      if (this.#complaints.isNew(message, name)) {
        this.#log.warn("node-not-followed", `node ${name} is not followed: ${message}`, {
          node: name,
        });
      }
      return undefined;
    }
  }
}
