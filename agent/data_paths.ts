/**
 * Which data path reaches which peer. There is one data path, but while the cluster changes its backend two or
 * more side by side, each with the peers that it fits.
 *
 * @module
 */

import type { Lease, LeaseEvent, PeerChanges } from "@denim/core";
import type { DataPath } from "./data_path.ts";

/**
 * How long this node reaches a peer as before when the peer's lease names a backend that this node does not run.
 * The peer keeps its former data path for the nodes that have not changed yet, and this node may be about to change
 * too.
 */
export const HOLD_MS = 10_000;

/** What {@link DataPaths} has to know of a data path. */
export type AssignablePath = Pick<DataPath, "backend" | "peers">;

/** Assigns peers to data paths. */
export class DataPaths<Path extends AssignablePath = DataPath> {
  #current: Path;
  readonly #former = new Set<Path>();
  readonly #heldUntilMs = new Map<string, number>();
  readonly #onHold: () => void;

  /**
   * Starts with one data path.
   *
   * @param onHold called when a peer is held: its lease must be read again after {@link HOLD_MS}
   */
  constructor(first: Path, onHold: () => void) {
    this.#current = first;
    this.#onHold = onHold;
  }

  /** The one that this node publishes with its lease. */
  get current(): Path {
    return this.#current;
  }

  /** All of them, the current one first. */
  get all(): readonly Path[] {
    return [this.#current, ...this.#former];
  }

  /** Makes another the current one. The one before stays, for the peers that it fits. */
  change(next: Path): void {
    this.#former.delete(next);
    this.#former.add(this.#current);
    this.#current = next;
  }

  /** Adds one for peers that the current one does not fit. */
  addFormer(path: Path): void {
    this.#former.add(path);
  }

  /** Removes a former one. */
  delete(path: Path): void {
    this.#former.delete(path);
  }

  /**
   * Applies an event of the store's watch, and returns what it means for each data path.
   *
   * @param nowMs the time, in milliseconds since any moment
   */
  apply(event: LeaseEvent, nowMs: number): ReadonlyMap<Path, PeerChanges<unknown>> {
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

  /** Whether a peer that no data path fits is still reached as before. */
  #hold(key: string, nowMs: number): boolean {
    if (!this.all.some(({ peers }) => peers.has(key))) return false;
    const untilMs = this.#heldUntilMs.get(key);
    if (untilMs !== undefined) return nowMs < untilMs;
    this.#heldUntilMs.set(key, nowMs + HOLD_MS);
    this.#onHold();
    return true;
  }
}
