/**
 * Peers as whoever probes them needs them: addresses as the bytes that go into packets, and are found by what packets say
 * of where they come from.
 *
 * @module
 */

import { Cidr, type Family, IpAddress, NO_ROW, RowIndex, withRoom } from "@denim/core";

/** One family's half of a peer. */
export interface KeptHalf {
  /** The subnet of the peer's pods. */
  readonly subnet: Cidr;
  /** The peer's address on the underlay. */
  readonly publicIp: IpAddress;
  /** Whether no router may pass packets to it on. */
  readonly isNear: boolean;
  /** The largest packet that reaches it, if nothing is wrong, in bytes; 0 if it is not probed. */
  readonly mtuBytes: number;
}

/** Room for an address of either family: IPv4's take the first four bytes. */
export const ADDRESS_BYTES: number = 16;
/** What is kept of a half in one byte. */
const IPV6 = 1, NEAR = 2;

/** Halves of peers by rows, some 60 bytes each. */
export class HalfRows {
  /** What is asked over the data path: the subnet's first address, or the next one where no router may pass it on. */
  #inner = new Uint8Array(0);
  /** The addresses on the underlay. */
  #outer = new Uint8Array(0);
  #flags = new Uint8Array(0);
  #prefixLengths = new Uint8Array(0);
  #mtus = new Int32Array(0);
  readonly #byInner = new RowIndex();
  /** Those that no router leads to: they send from their addresses on the underlay, too. */
  readonly #byOuter = new RowIndex();
  readonly #unused: number[] = [];
  #length = 0;
  /** What is looked for, and whether a row is it. Each packet is, so nothing is made for that. */
  #sought: Uint8Array = new Uint8Array(0);
  readonly #isInner = (row: number) => this.#isSought(this.#inner, row);
  readonly #isOuter = (row: number) => this.#isSought(this.#outer, row);

  /** Adds a half. Returns its row; a row that was removed gives its number to a later one. */
  add({ subnet, publicIp, isNear, mtuBytes }: KeptHalf): number {
    const row = this.#unused.pop() ?? this.#length++;
    const start = row * ADDRESS_BYTES;
    this.#inner = withRoom(this.#inner, start + ADDRESS_BYTES - 1);
    this.#outer = withRoom(this.#outer, start + ADDRESS_BYTES - 1);
    this.#flags = withRoom(this.#flags, row);
    this.#prefixLengths = withRoom(this.#prefixLengths, row);
    this.#mtus = withRoom(this.#mtus, row);
    const inner = (isNear ? subnet.at(1n) : subnet.address).toBytes(), outer = publicIp.toBytes();
    this.#inner.set(inner, start);
    this.#outer.set(outer, start);
    this.#flags[row] = (subnet.family === 6 ? IPV6 : 0) | (isNear ? NEAR : 0);
    this.#prefixLengths[row] = subnet.prefixLength;
    this.#mtus[row] = mtuBytes;
    this.#byInner.add(hashOf(inner), row);
    if (isNear) this.#byOuter.add(hashOf(outer), row);
    return row;
  }

  /** All rows are lower than this; some of those below may have been removed. */
  get length(): number {
    return this.#length;
  }

  /** Removes a row that is there. */
  remove(row: number): void {
    this.#byInner.remove(row);
    if (this.isNear(row)) this.#byOuter.remove(row);
    this.#unused.push(row);
  }

  /** The row of the peer that packets come from under an address of 4 or 16 bytes; {@link NO_ROW} if there is none. */
  from(address: Uint8Array): number {
    const hash = hashOf(address);
    this.#sought = address;
    const row = this.#byOuter.find(hash, this.#isOuter);
    return row === NO_ROW ? this.#byInner.find(hash, this.#isInner) : row;
  }

  #isSought(addresses: Uint8Array, row: number): boolean {
    const isOfFamily = this.family(row) === (this.#sought.length === 4 ? 4 : 6);
    return isOfFamily && startsAt(addresses, row * ADDRESS_BYTES, this.#sought);
  }

  /** Its family. */
  family(row: number): Family {
    return (this.#flags[row]! & IPV6) === 0 ? 4 : 6;
  }

  /** See {@link KeptHalf.isNear}. */
  isNear(row: number): boolean {
    return (this.#flags[row]! & NEAR) !== 0;
  }

  /** See {@link KeptHalf.mtuBytes}. */
  mtuBytes(row: number): number {
    return this.#mtus[row]!;
  }

  /** Writes the address that is asked, over the data path or on the underlay, into {@link ADDRESS_BYTES}. */
  write(row: number, isOuter: boolean, into: Uint8Array): void {
    const addresses = isOuter ? this.#outer : this.#inner, start = row * ADDRESS_BYTES;
    for (let index = 0; index < ADDRESS_BYTES; index++) into[index] = addresses[start + index]!;
  }

  /** See {@link KeptHalf.subnet}. */
  subnet(row: number): Cidr {
    return new Cidr(this.#read(this.#inner, row), this.#prefixLengths[row]!);
  }

  /** See {@link KeptHalf.publicIp}. */
  publicIp(row: number): IpAddress {
    return this.#read(this.#outer, row);
  }

  #read(addresses: Uint8Array, row: number): IpAddress {
    const start = row * ADDRESS_BYTES;
    return IpAddress.fromBytes(
      addresses.subarray(start, start + (this.family(row) === 4 ? 4 : 16)),
    );
  }
}

/** Whether bytes have a part at a place. */
export function startsAt(bytes: Uint8Array, start: number, part: Uint8Array): boolean {
  for (let index = 0; index < part.length; index++) {
    if (bytes[start + index] !== part[index]) return false;
  }
  return true;
}

/** FNV-1a, 32 bits. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c_9dc5;
  for (let index = 0; index < bytes.length; index++) {
    hash = Math.imul(hash ^ bytes[index]!, 0x0100_0193);
  }
  // The index goes by the lowest bits.
  return hash ^ hash >>> 15;
}
