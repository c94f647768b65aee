/**
 * What the threads count, by peer and by reason of a drop. Each thread writes numbers of its own in shared memory; the
 * agent reads them all and adds them up.
 *
 * @module
 */

import { sharedMemory } from "./shared_memory.ts";

/** Why a packet went no further, and on which way. */
export const DROPS = [
  /** Out: no IP packet, or one cut short. */
  "outMalformed",
  /** Out: to a multicast or broadcast address. */
  "outNotUnicast",
  /** Out: to no peer's subnet. */
  "outNoPeer",
  /** Out: its time to live is over. */
  "outExpired",
  /** Out: too large for the way to the peer, and not to be fragmented. */
  "outTooBig",
  /** Out: the kernel did not send it. */
  "outFailed",
  /** In: no IP packet, or one cut short. */
  "inMalformed",
  /** In: from an address that is not a peer's. */
  "inStranger",
  /** In: from a peer's address, with a source outside that peer's subnet. */
  "inForged",
  /** In: to an address outside this node's subnet. */
  "inNotOurs",
  /** In: the kernel did not take it. */
  "inFailed",
] as const;

/** Why a packet went no further. */
export type Drop = (typeof DROPS)[number];

/** Each reason's place. */
export const DROP: Readonly<Record<Drop, number>> = Object.fromEntries(
  DROPS.map((name, index) => [name, index]),
) as Record<Drop, number>;

/** The place of the number of ICMP errors sent. */
const ICMP_ERRORS = DROPS.length;

/** Room for reasons, of which some are yet to be thought of. */
const REASONS = 32;
/** What is counted for each peer, by each thread and way: packets, bytes, drops. */
const PER_WAY = 3;
const PER_PEER = 2 * PER_WAY;

/** Which way packets go: to the peers, or from them. */
export const WAYS = ["outbound", "inbound"] as const;
/** Which way packets go. */
export type Way = (typeof WAYS)[number];

/** Packets of one direction. */
export interface Traffic {
  /** Those carried. */
  readonly packets: number;
  /** Their bytes, without the outer headers. */
  readonly bytes: number;
  /** Those dropped. */
  readonly drops: number;
}

/** The numbers of one thread. */
export class Counters {
  readonly #values: Float64Array;
  readonly #start: number;

  /** Those of thread number `thread`. */
  constructor(shared: SharedArrayBuffer, capacity: number, thread: number) {
    this.#values = new Float64Array(shared, 0, shared.byteLength / Float64Array.BYTES_PER_ELEMENT);
    this.#start = thread * (REASONS + PER_PEER * capacity);
  }

  /** Memory for the numbers of some threads, all zero. */
  static memory(capacity: number, threads: number): SharedArrayBuffer {
    return sharedMemory(8 * threads * (REASONS + PER_PEER * capacity));
  }

  /** Counts drops for a reason. */
  drop(reason: number, count: number): void {
    this.#values[this.#start + reason]! += count;
  }

  /** Counts an ICMP error that was sent to a pod. */
  icmpErrorSent(): void {
    this.#values[this.#start + ICMP_ERRORS]!++;
  }

  #peer(way: Way, peer: number): number {
    return this.#start + REASONS + peer * PER_PEER + (way === "outbound" ? 0 : PER_WAY);
  }

  /** Counts drops against a peer, by its counter's number. */
  dropOf(way: Way, peer: number, count: number): void {
    this.#values[this.#peer(way, peer) + 2]! += count;
  }

  /** Counts packets of a peer, by its counter's number. */
  pass(way: Way, peer: number, packets: number, byteLength: number): void {
    const at = this.#peer(way, peer);
    this.#values[at]! += packets;
    this.#values[at + 1]! += byteLength;
  }

  /** How many drops there were for a reason. */
  drops(reason: number): number {
    return this.#values[this.#start + reason]!;
  }

  /** How many ICMP errors were sent to pods. */
  get icmpErrors(): number {
    return this.#values[this.#start + ICMP_ERRORS]!;
  }

  /** What was counted for the peers whose counters' numbers are from `from` on and below `to`. */
  traffic(way: Way, from: number, to: number): Traffic {
    let packets = 0, bytes = 0, drops = 0;
    for (let peer = from; peer < to; peer++) {
      const at = this.#peer(way, peer);
      packets += this.#values[at]!;
      bytes += this.#values[at + 1]!;
      drops += this.#values[at + 2]!;
    }
    return { packets, bytes, drops };
  }
}
