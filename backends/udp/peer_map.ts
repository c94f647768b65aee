/**
 * The peers' table, for the threads that carry packets. It is in shared memory: the agent writes it while the threads read
 * it, without a lock.
 *
 * Records are in chains by a hash of their subnet. The agent never changes a record that readers may find: it puts a new
 * one into the chain in one step, and uses the old one's memory again only after a while, so that a thread that has just
 * found the old record still reads it whole.
 *
 * @module
 */

import { addressBits, type Cidr, type Family, type IpAddress } from "@denim/core/ip";
import { AddressWords } from "./address_words.ts";
import { sharedMemory } from "./shared_memory.ts";

/** One record: what a node says of one family. */
export interface PeerRecord {
  /** The subnet of its pods. */
  readonly subnet: Cidr;
  /** The node's address: datagrams for these pods go there, and theirs come from there. */
  readonly publicIp: IpAddress;
  /** Whether the node takes packets whose inner checksum is unfinished. */
  readonly partialChecksums: boolean;
}

const VERSION = 0;
const STOP = 1;
/** For each family the own subnet: four words of address, four of mask. */
const OWN = 2;
/** For each family how many prefix lengths there are, then these, the longest first. */
const LENGTHS = OWN + 2 * 8;
const MAX_LENGTHS = 129;
const HEADER_WORDS = LENGTHS + 2 * (1 + MAX_LENGTHS);

// A record's words. Addresses are four words, the most significant first; IPv4's is the first of them.
const NEXT = 0, KIND = 1, SUBNET = 2, PUBLIC_FAMILY = 6, PUBLIC = 7, FLAGS = 11, COUNTER = 12;
const NEXT_BY_ADDRESS = 13;
const RECORD_WORDS = 16;

const PARTIAL_CHECKSUMS = 1;

/** How long a record's memory is not used again. Readers need a record for microseconds. */
const REST_MS = 10_000;

/** The word at `index` of the mask of a prefix length. */
function maskWord(prefixLength: number, index: number): number {
  const bits = prefixLength - 32 * index;
  return bits <= 0 ? 0 : bits >= 32 ? -1 : -1 << (32 - bits);
}

function kindOf(family: Family, prefixLength: number): number {
  return family << 8 | prefixLength;
}

function hash(kind: number, a: number, b: number, c: number, d: number): number {
  const mixed = Math.imul(a ^ kind, 0x9e37_79b1) ^ Math.imul(b, 0x85eb_ca6b) ^
    Math.imul(c, 0xc2b2_ae35) ^ Math.imul(d, 0x27d4_eb2f);
  return mixed ^ (mixed >>> 15) ^ (mixed >>> 7);
}

/** The table as threads read it. A record's name is its number, from 0 on. */
export class PeerMap {
  /** The memory that all share. */
  readonly shared: SharedArrayBuffer;
  /** The largest number of records; a power of two. */
  readonly capacity: number;
  protected readonly words: Int32Array;
  protected readonly bySubnet: number;
  protected readonly byAddress: number;
  readonly #records: number;

  /** Opens a table in memory of the right size; see {@link PeerMap.create}. */
  constructor(shared: SharedArrayBuffer, capacity: number) {
    this.shared = shared;
    this.capacity = capacity;
    // With a length of its own: a view that grows with its memory is slower.
    this.words = new Int32Array(shared, 0, shared.byteLength / Int32Array.BYTES_PER_ELEMENT);
    this.bySubnet = HEADER_WORDS;
    this.byAddress = this.bySubnet + capacity;
    this.#records = this.byAddress + capacity;
  }

  /** Memory for a table, zeroed: an empty table. */
  static memory(capacity: number): SharedArrayBuffer {
    return sharedMemory(4 * (HEADER_WORDS + capacity * (2 + RECORD_WORDS)));
  }

  /** Where a record begins. */
  protected record(slot: number): number {
    return this.#records + slot * RECORD_WORDS;
  }

  /** Another number after each change: what a reader found before may have changed. */
  get version(): number {
    return Atomics.load(this.words, VERSION);
  }

  /** Whether the threads are to end. */
  get stopped(): boolean {
    return Atomics.load(this.words, STOP) !== 0;
  }

  /** Whether the address that stands at an offset, in network order, is in this node's own subnet. */
  isOwn(family: Family, view: DataView, offset: number): boolean {
    const { words } = this;
    // A subnet that is not there has a mask that lets nothing through, and an address that is not zero.
    if (family === 4) return (view.getInt32(offset) & words[OWN + 4]!) === words[OWN];
    const at = OWN + 8;
    return (view.getInt32(offset) & words[at + 4]!) === words[at] &&
      (view.getInt32(offset + 4) & words[at + 5]!) === words[at + 1] &&
      (view.getInt32(offset + 8) & words[at + 6]!) === words[at + 2] &&
      (view.getInt32(offset + 12) & words[at + 7]!) === words[at + 3];
  }

  /** Whether an IPv4 address, as a number of 32 bits, is the last of this node's own subnet: its broadcast. */
  isOwnBroadcast(address: number): boolean {
    const mask = this.words[OWN + 4]!;
    return (address | mask) === -1 && (address & mask) === this.words[OWN];
  }

  /** The first address of this node's own subnet, as word `index` of it. */
  ownWord(family: Family, index: number): number {
    return this.words[OWN + (family === 4 ? 0 : 8) + index]!;
  }

  /** The record of the longest subnet that an address is in, or -1. */
  find({ family, a, b, c, d }: AddressWords): number {
    const { words } = this;
    const lengths = LENGTHS + (family === 4 ? 0 : 1 + MAX_LENGTHS);
    const count = Atomics.load(words, lengths);
    for (let index = 1; index <= count; index++) {
      const length = words[lengths + index]!;
      const kind = kindOf(family, length);
      const ma = a & maskWord(length, 0), mb = b & maskWord(length, 1);
      const mc = c & maskWord(length, 2), md = d & maskWord(length, 3);
      const bucket = this.bySubnet + (hash(kind, ma, mb, mc, md) & (this.capacity - 1));
      for (let next = Atomics.load(words, bucket); next !== 0;) {
        const at = this.record(next - 1);
        if (
          words[at + KIND] === kind && words[at + SUBNET] === ma && words[at + SUBNET + 1] === mb &&
          words[at + SUBNET + 2] === mc && words[at + SUBNET + 3] === md
        ) return next - 1;
        next = Atomics.load(words, at + NEXT);
      }
    }
    return -1;
  }

  /** A record whose public address this is, or -1. */
  findByAddress(address: AddressWords): number {
    const { words } = this;
    const { family, a, b, c, d } = address;
    const bucket = this.byAddress + (hash(family, a, b, c, d) & (this.capacity - 1));
    for (let next = Atomics.load(words, bucket); next !== 0;) {
      const slot = next - 1;
      if (this.isAt(slot, address)) return slot;
      next = Atomics.load(words, this.record(slot) + NEXT_BY_ADDRESS);
    }
    return -1;
  }

  /** Whether a record's public address is this. */
  isAt(slot: number, { family, a, b, c, d }: AddressWords): boolean {
    const { words } = this;
    const at = this.record(slot);
    return words[at + PUBLIC] === a && words[at + PUBLIC_FAMILY] === family &&
      words[at + PUBLIC + 1] === b && words[at + PUBLIC + 2] === c && words[at + PUBLIC + 3] === d;
  }

  /** The family of a record's public address. */
  publicFamily(slot: number): Family {
    return this.words[this.record(slot) + PUBLIC_FAMILY] as Family;
  }

  /** Reads a record's public address. */
  readPublic(slot: number, into: AddressWords): void {
    const { words } = this;
    const at = this.record(slot);
    into.family = words[at + PUBLIC_FAMILY] as Family;
    into.a = words[at + PUBLIC]!;
    into.b = words[at + PUBLIC + 1]!;
    into.c = words[at + PUBLIC + 2]!;
    into.d = words[at + PUBLIC + 3]!;
  }

  /** Whether a record's node takes partial checksums. */
  takesPartialChecksums(slot: number): boolean {
    return (this.words[this.record(slot) + FLAGS]! & PARTIAL_CHECKSUMS) !== 0;
  }

  /** The number under which a record's packets are counted. */
  counter(slot: number): number {
    return this.words[this.record(slot) + COUNTER]!;
  }
}

/** The table as its one writer has it. */
export class PeerMapWriter extends PeerMap {
  readonly #slots = new Map<string, number>();
  readonly #resting: { readonly slot: number; readonly sinceMs: number }[] = [];
  #restingFrom = 0;
  #fresh = 0;
  readonly #freeCounters: number[] = [];
  #counters = 0;

  /** An empty table. */
  constructor(capacity: number) {
    super(PeerMap.memory(capacity), capacity);
    for (const at of [OWN, OWN + 8]) this.words[at] = -1;
  }

  /** Says which subnets are this node's own. Before any reader starts. */
  setOwn(subnets: readonly Cidr[]): void {
    for (const { family, address, prefixLength } of subnets) {
      const at = OWN + (family === 4 ? 0 : 8);
      this.#write(address, at);
      for (let index = 0; index < 4; index++) {
        this.words[at + 4 + index] = maskWord(prefixLength, index);
      }
    }
  }

  /** Tells the readers to end. */
  stop(): void {
    Atomics.store(this.words, STOP, 1);
  }

  /**
   * Adds a record, or replaces the one of the same subnet.
   *
   * @param nowMs the time, in milliseconds since any moment
   * @returns false if the table is full
   */
  put(record: PeerRecord, nowMs: number): boolean {
    const { subnet, publicIp, partialChecksums } = record;
    const slot = this.#allocate(nowMs);
    if (slot < 0) return false;
    const key = `${subnet}`;
    const old = this.#slots.get(key);
    const at = this.record(slot);
    this.words[at + KIND] = kindOf(subnet.family, subnet.prefixLength);
    this.#write(subnet.address, at + SUBNET);
    this.words[at + PUBLIC_FAMILY] = publicIp.family;
    this.#write(publicIp, at + PUBLIC);
    this.words[at + FLAGS] = partialChecksums ? PARTIAL_CHECKSUMS : 0;
    this.words[at + COUNTER] = old === undefined
      ? this.#freeCounters.pop() ?? this.#counters++
      : this.counter(old);
    this.#link(this.#subnetBucket(slot), slot, NEXT);
    this.#link(this.#addressBucket(slot), slot, NEXT_BY_ADDRESS);
    this.#slots.set(key, slot);
    if (old === undefined) this.#addLength(subnet.family, subnet.prefixLength);
    else this.#unlink(old, nowMs);
    Atomics.add(this.words, VERSION, 1);
    return true;
  }

  /** Removes the record of a subnet. */
  remove(subnet: Cidr, nowMs: number): void {
    const key = `${subnet}`;
    const slot = this.#slots.get(key);
    if (slot === undefined) return;
    this.#slots.delete(key);
    this.#unlink(slot, nowMs);
    this.#freeCounters.push(this.counter(slot));
    Atomics.add(this.words, VERSION, 1);
  }

  /** How many counters are in use, or were. */
  get counters(): number {
    return this.#counters;
  }

  /** A record's memory: unused memory first, then what was freed longest ago. */
  #allocate(nowMs: number): number {
    if (this.#fresh < this.capacity) return this.#fresh++;
    const oldest = this.#resting[this.#restingFrom];
    if (oldest === undefined || nowMs - oldest.sinceMs < REST_MS) return -1;
    this.#restingFrom++;
    if (this.#restingFrom > 1024) this.#resting.splice(0, this.#restingFrom), this.#restingFrom = 0;
    return oldest.slot;
  }

  #write(address: IpAddress, at: number): void {
    const { a, b, c, d } = AddressWords.of(address);
    this.words.set([a, b, c, d], at);
  }

  #subnetBucket(slot: number): number {
    const at = this.record(slot);
    const [a, b, c, d] = this.words.subarray(at + SUBNET, at + SUBNET + 4);
    return this.bySubnet + (hash(this.words[at + KIND]!, a!, b!, c!, d!) & (this.capacity - 1));
  }

  #addressBucket(slot: number): number {
    const at = this.record(slot);
    const [family, a, b, c, d] = this.words.subarray(at + PUBLIC_FAMILY, at + PUBLIC + 4);
    return this.byAddress + (hash(family!, a!, b!, c!, d!) & (this.capacity - 1));
  }

  #link(bucket: number, slot: number, next: number): void {
    Atomics.store(this.words, this.record(slot) + next, this.words[bucket]!);
    Atomics.store(this.words, bucket, slot + 1);
  }

  /** The record keeps its link to the next one, for a reader that is at it. */
  #unlink(slot: number, nowMs: number): void {
    for (
      const [bucket, next] of [
        [this.#subnetBucket(slot), NEXT],
        [this.#addressBucket(slot), NEXT_BY_ADDRESS],
      ] as const
    ) {
      let at = bucket;
      while (this.words[at] !== slot + 1) at = this.record(this.words[at]! - 1) + next;
      Atomics.store(this.words, at, this.words[this.record(slot) + next]!);
    }
    this.#resting.push({ slot, sinceMs: nowMs });
  }

  /** A length stays, also when no record has it any more: it costs a lookup some nanoseconds. */
  #addLength(family: Family, prefixLength: number): void {
    const lengths = LENGTHS + (family === 4 ? 0 : 1 + MAX_LENGTHS);
    const count = this.words[lengths]!;
    const known = this.words.subarray(lengths + 1, lengths + 1 + count);
    if (known.includes(prefixLength) || prefixLength > addressBits(family)) return;
    // From the end, so that a reader meets each length at least once at any moment.
    let index = count + 1;
    for (; index > 1 && this.words[lengths + index - 1]! < prefixLength; index--) {
      Atomics.store(this.words, lengths + index, this.words[lengths + index - 1]!);
      if (index === count + 1) Atomics.store(this.words, lengths, count + 1);
    }
    Atomics.store(this.words, lengths + index, prefixLength);
    Atomics.store(this.words, lengths, count + 1);
  }
}
