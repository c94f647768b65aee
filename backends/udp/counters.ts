/**
 * What the workers count: by peer and by reason of a drop. Each worker has numbers of its own in shared
 * memory that nobody else writes; reading them is adding them up.
 *
 * @module
 */

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
  /** In: from an address that is no peer's. */
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
export const ICMP_ERRORS: number = DROPS.length;

/** Room for reasons, of which some are yet to be thought of. */
const REASONS = 32;
/** What is counted for each peer, by each worker: packets, bytes, drops. */
const PER_PEER = 3;

/** The numbers of one worker. */
export class Counters {
  readonly #values: Float64Array;
  readonly #start: number;

  /** Those of worker number `worker`. */
  constructor(shared: SharedArrayBuffer, capacity: number, worker: number) {
    this.#values = new Float64Array(shared);
    this.#start = worker * (REASONS + PER_PEER * capacity);
  }

  /** Memory for the numbers of some workers. What nobody writes to costs nothing. */
  static memory(capacity: number, workers: number): SharedArrayBuffer {
    return new SharedArrayBuffer(8 * workers * (REASONS + PER_PEER * capacity));
  }

  /** Counts drops for a reason. */
  drop(reason: number, count: number): void {
    this.#values[this.#start + reason]! += count;
  }

  /** Counts drops against a peer, by its counter's number. */
  dropOf(peer: number, count: number): void {
    this.#values[this.#start + REASONS + peer * PER_PEER + 2]! += count;
  }

  /** Counts packets of a peer, by its counter's number. */
  pass(peer: number, packets: number, byteLength: number): void {
    const at = this.#start + REASONS + peer * PER_PEER;
    this.#values[at]! += packets;
    this.#values[at + 1]! += byteLength;
  }

  /** How many drops there were for a reason. */
  drops(reason: number): number {
    return this.#values[this.#start + reason]!;
  }

  /** What was counted for a peer. */
  ofPeer(
    peer: number,
  ): { readonly packets: number; readonly bytes: number; readonly drops: number } {
    const at = this.#start + REASONS + peer * PER_PEER;
    return {
      packets: this.#values[at]!,
      bytes: this.#values[at + 1]!,
      drops: this.#values[at + 2]!,
    };
  }
}
