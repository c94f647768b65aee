/**
 * Peers between two data paths. While the cluster changes its backend two nodes change at different moments, and hear of
 * each other's change later still. A data path that takes packets from peers alone would drop what the other node sends
 * meanwhile: so it knows a peer before it reaches that peer, and after.
 *
 * @module
 */

import type { KernelState, Peer } from "@denim/core";
import type { DataPath } from "./data_path.ts";
import type { DesiredKernel } from "./desired_kernel.ts";

/** A peer that changes, or has just changed, from one data path to another. */
export interface Handover {
  /** The peer as it is now. */
  readonly peer: Peer<unknown>;
  /** The data path that reached it, or does so until the handover is done. */
  readonly from: DataPath;
  /** The data path that is to reach it. */
  readonly to: DataPath;
  /** Whether `to` reaches it: then `from` takes its packets still. Before that it is the other way round. */
  readonly isDone: boolean;
}

/** Keeps the peers that are between two data paths, and what the kernel needs to take packets from both. */
export class Handovers {
  readonly #kernel: Pick<DesiredKernel, "set" | "delete" | "wantedBy">;
  readonly #open = new Map<string, Handover>();

  /** Without any yet. */
  constructor(kernel: Pick<DesiredKernel, "set" | "delete" | "wantedBy">) {
    this.#kernel = kernel;
  }

  /** Whether a data path reaches a peer, or takes its packets, although the peer is another one's. */
  has(key: string, path: DataPath): boolean {
    return this.#open.get(key)?.from === path;
  }

  /** The handover of a peer to a data path that does not reach it yet. */
  awaited(key: string, path: DataPath): Handover | undefined {
    const handover = this.#open.get(key);
    return handover?.isDone === false && handover.to === path ? handover : undefined;
  }

  /** Those that are not done, to a data path or from it. */
  undone(path: DataPath): Handover[] {
    return [...this.#open.values()].filter(({ from, to, isDone }) =>
      !isDone && (from === path || to === path)
    );
  }

  /** A peer is to be reached as before until {@link Handovers.finish}; the data path that follows takes its packets. */
  begin(peer: Peer<unknown>, from: DataPath, to: DataPath): void {
    this.#replace({ peer, from, to, isDone: false }, to.session.peerState(peer));
  }

  /**
   * A peer is reached by another data path from now on. Call it before the kernel is told. Returns the handover if the
   * one before takes the peer's packets still, until {@link Handovers.end}.
   */
  finish(peer: Peer<unknown>, from: DataPath | undefined, to: DataPath): Handover | undefined {
    const { key } = peer;
    if (from === undefined || from.closed || !from.session.refusesStrangers) {
      this.end(key);
      return undefined;
    }
    const owner = this.awaited(key, from) === undefined ? key : ownerOf(key);
    const handover = { peer, from, to, isDone: true };
    this.#replace(handover, this.#kernel.wantedBy(owner));
    return handover;
  }

  #replace(handover: Handover, state: KernelState): void {
    const { peer: { key }, from } = handover;
    const before = this.#open.get(key);
    this.#open.set(key, handover);
    this.#kernel.set(
      ownerOf(key),
      state.filter(({ kind }) => kind !== "route" && kind !== "nexthop"),
    );
    if (before !== undefined && before.from !== from) forget(key, before);
  }

  /** Ends what goes on with a peer: no other data path than its own takes its packets. With `handover`, only that one. */
  end(key: string, handover: Handover | undefined = this.#open.get(key)): void {
    if (handover === undefined || this.#open.get(key) !== handover) return;
    this.#open.delete(key);
    this.#kernel.delete(ownerOf(key));
    forget(key, handover);
  }

  /** Ends those from a data path that is about to be removed. */
  endFrom(path: DataPath): void {
    for (const [key, { from }] of [...this.#open]) if (from === path) this.end(key);
  }
}

/** Tells a data path that a peer has left it. */
function forget(key: string, { from }: Handover): void {
  if (!from.closed && !from.peers.has(key)) from.session.peersChanged?.([], [key]);
}

function ownerOf(key: string): string {
  return `packets from ${key}`;
}
