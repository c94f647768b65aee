/**
 * The ways in which a node's packets reach its peers: one, but while the cluster changes its backend two or
 * more side by side, each with the peers that it fits.
 *
 * @module
 */

import type {
  Backend,
  BackendSession,
  Lease,
  LeaseEvent,
  PeerChanges,
  PeerTable,
} from "@denim/core";

/** A backend, whatever its options and peer data are. */
// deno-lint-ignore no-explicit-any -- each backend has types of its own, checked by its own schemas
export type AnyBackend = Backend<any, any>;

/** A backend at work, with the peers that it reaches. */
export interface DataPath {
  /** On whose behalf the reconciler keeps what the node itself needs for it. */
  readonly owner: string;
  /** What it was opened with, as text: another text asks for another data path. */
  readonly settings: string;
  /** The kind of network. */
  readonly backend: AnyBackend;
  /** The backend at work. */
  readonly session: BackendSession;
  /** Those that it reaches. */
  readonly peers: PeerTable<unknown>;
}

/**
 * How long a peer is reached as before when its lease names a backend that this node does not run: it keeps
 * its old data path for those that have not changed yet, and this node may be about to change too.
 */
export const HOLD_MS = 10_000;

/** Decides which data path reaches which peer. */
export class DataPaths {
  #current: DataPath;
  readonly #former = new Set<DataPath>();
  readonly #heldUntilMs = new Map<string, number>();
  readonly #onHold: () => void;

  /** Starts with one. `onHold` is told of a peer that is held for {@link HOLD_MS}. */
  constructor(first: DataPath, onHold: () => void) {
    this.#current = first;
    this.#onHold = onHold;
  }

  /** The one that this node publishes. */
  get current(): DataPath {
    return this.#current;
  }

  /** All of them, the current one first. */
  get all(): readonly DataPath[] {
    return [this.#current, ...this.#former];
  }

  /** Makes another the current one; the one so far stays for the peers that it fits. */
  change(next: DataPath): void {
    this.#former.delete(next);
    this.#former.add(this.#current);
    this.#current = next;
  }

  /** Adds one for peers that the current one does not fit. */
  addFormer(path: DataPath): void {
    this.#former.add(path);
  }

  /** Takes a former one out. */
  delete(path: DataPath): void {
    this.#former.delete(path);
  }

  /** Tells what an event means for each data path. `nowMs` is in milliseconds since any moment. */
  take(event: LeaseEvent, nowMs: number): ReadonlyMap<DataPath, PeerChanges<unknown>> {
    const leases = event.kind === "snapshot" ? event.leases : event.put;
    const { all } = this;
    const shares = new Map(all.map((path) => [path, new Map<string, Lease>()]));
    const held = new Set<string>();
    if (event.kind === "changes") {
      for (const key of event.removed) this.#heldUntilMs.delete(key);
    }
    for (const lease of leases) {
      const path = all.find(({ backend }) => backend.leaseType === lease.backendType);
      if (path === undefined && this.#hold(lease.key, nowMs)) held.add(lease.key);
      else {
        this.#heldUntilMs.delete(lease.key);
        shares.get(path ?? this.#current)!.set(lease.key, lease);
      }
    }
    return new Map(
      [...shares].map(([path, share]) => {
        const elsewhere = event.kind === "snapshot"
          ? [...path.peers.keys()]
          : [...event.removed, ...leases.map(({ key }) => key)];
        const removed = elsewhere.filter((key) => !share.has(key) && !held.has(key));
        return [path, path.peers.apply({ kind: "changes", put: [...share.values()], removed })];
      }),
    );
  }

  #hold(key: string, nowMs: number): boolean {
    if (!this.all.some(({ peers }) => peers.has(key))) return false;
    const untilMs = this.#heldUntilMs.get(key);
    if (untilMs !== undefined) return nowMs < untilMs;
    this.#heldUntilMs.set(key, nowMs + HOLD_MS);
    this.#onHold();
    return true;
  }
}
