/**
 * Memory for packets that the kernel reads and writes in place, with the structures that tell the kernel where they are.
 *
 * @module
 */

import type { Family } from "../../ip.ts";
import { AF_INET, AF_INET6, MSG_TRUNC, SOL_UDP, UDP_GRO, UDP_SEGMENT } from "../uapi/socket.ts";

export { SOCKADDR_ADDRESS, SOCKADDR_LEN } from "../sys/socket_address.ts";

/** `struct iovec`: address, length. */
export const IOVEC_LEN = 16;

/** `struct msghdr` on 64-bit machines, and the offsets of its fields. */
export const MSGHDR_LEN = 56;
const MSG_NAME = 0, MSG_NAMELEN = 8, MSG_IOV = 16, MSG_IOVLEN = 24;
const MSG_CONTROL = 32, MSG_CONTROLLEN = 40, MSG_FLAGS = 48;

/** `struct cmsghdr`: length, level, type; then the data, of which the whole is a multiple of eight bytes. */
const CMSGHDR_LEN = 16;
const CMSG_LEVEL = 8, CMSG_TYPE = 12;
/** Room for one control message with a number in it. */
export const CONTROL_LEN = 24;

/** A line of the processor's cache, and a page. */
const ALIGNMENT = 64, PAGE = 4096;

/** A buffer at a known address. Offsets count bytes from its start. */
export class PacketMemory {
  /** The bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same as numbers of 16 bits, in host order. */
  readonly halves: Uint16Array<ArrayBuffer>;
  /** The same as numbers of 32 bits, in host order. */
  readonly words: Int32Array<ArrayBuffer>;
  /** The same, for numbers in network order and off their alignment. */
  readonly view: DataView<ArrayBuffer>;
  readonly #base: Deno.PointerObject;
  readonly #low: number;
  readonly #high: number;
  #used = 0;

  /** Takes memory from the system, zeroed; `byteLength` is a multiple of four. */
  constructor(byteLength: number) {
    // An address is written as two numbers of 32 bits, of which the upper one must be the same for the whole buffer.
    const refused: ArrayBuffer[] = [];
    for (;;) {
      const buffer = new ArrayBuffer(byteLength + PAGE);
      const base = Deno.UnsafePointer.of(buffer)!;
      const address = BigInt(Deno.UnsafePointer.value(base));
      this.#base = base;
      this.#low = Number(address & 0xffff_ffffn);
      this.#high = Number(address >> 32n);
      if (this.#low + buffer.byteLength <= 0xffff_ffff) {
        this.#used = -this.#low & (PAGE - 1);
        this.bytes = new Uint8Array(buffer);
        this.halves = new Uint16Array(buffer);
        this.words = new Int32Array(buffer);
        this.view = new DataView(buffer);
        return;
      }
      refused.push(buffer);
    }
  }

  /** Allocates a part, at an address that is a multiple of 64. Throws a RangeError if there is not enough left. */
  allocate(byteLength: number): number {
    const offset = this.#used;
    this.#used += Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
    if (this.#used > this.bytes.length) throw new RangeError("the packet memory is full");
    return offset;
  }

  /** A pointer for the kernel, valid for as long as this object lives. */
  pointer(offset: number): Deno.PointerObject {
    return Deno.UnsafePointer.offset(this.#base, offset)!;
  }

  #writeAddress(at: number, offset: number): void {
    this.words[at >> 2] = this.#low + offset;
    this.words[(at >> 2) + 1] = this.#high;
  }

  /** Writes a `struct iovec` at `at` for the bytes from `offset`. */
  writeIovec(at: number, offset: number, byteLength: number): void {
    const word = at >> 2;
    this.words[word] = this.#low + offset;
    this.words[word + 1] = this.#high;
    this.words[word + 2] = byteLength;
    this.words[word + 3] = 0;
  }

  /** Sets how many bytes the `struct iovec` at `at` tells of. */
  setIovecLength(at: number, byteLength: number): void {
    this.words[(at >> 2) + 2] = byteLength;
  }

  /** Reads a `struct iovec` back. */
  readIovec(at: number): { readonly offset: number; readonly byteLength: number } {
    return {
      offset: (this.words[at >> 2]! >>> 0) - this.#low,
      byteLength: this.words[(at >> 2) + 2]!,
    };
  }

  /** Writes a `struct msghdr` at `at`. */
  writeMessage(
    at: number,
    parts: {
      readonly name: number;
      readonly nameLength: number;
      readonly iovec: number;
      readonly iovecCount: number;
      readonly control: number;
      readonly controlLength: number;
    },
  ): void {
    this.#writeAddress(at + MSG_NAME, parts.name);
    this.#writeAddress(at + MSG_CONTROL, parts.control);
    this.setMessageName(at, parts.nameLength);
    this.setMessageIovec(at, parts.iovec, parts.iovecCount);
    this.setMessageControl(at, parts.controlLength);
  }

  /**
   * Writes the beginning of a `struct sockaddr_in` or `struct sockaddr_in6` at `at`. The address is yet to be
   * written, behind {@link SOCKADDR_ADDRESS} bytes.
   */
  writeSocketAddress(at: number, family: Family, port: number): void {
    this.halves[at >> 1] = family === 4 ? AF_INET : AF_INET6;
    this.view.setUint16(at + 2, port);
    // IPv6's flow; IPv4's address, which comes after this.
    this.words[(at + 4) >> 2] = 0;
  }

  /** The family of the `struct sockaddr_in` or `struct sockaddr_in6` at `at`. */
  readSocketFamily(at: number): Family {
    return this.halves[at >> 1] === AF_INET ? 4 : 6;
  }

  /** Sets how long the address in a `struct msghdr` is, or may become. */
  setMessageName(at: number, byteLength: number): void {
    this.words[(at + MSG_NAMELEN) >> 2] = byteLength;
  }

  /** Sets where the data of a `struct msghdr` is. */
  setMessageIovec(at: number, iovec: number, count: number): void {
    this.#writeAddress(at + MSG_IOV, iovec);
    this.words[(at + MSG_IOVLEN) >> 2] = count;
  }

  /** Sets how much control data a `struct msghdr` has, or may get. */
  setMessageControl(at: number, byteLength: number): void {
    this.words[(at + MSG_CONTROLLEN) >> 2] = byteLength;
  }

  /** Writes the control message at `at` that has a send cut its data into datagrams (`UDP_SEGMENT`). */
  writeSegmentSize(at: number, byteLength: number): void {
    this.words[at >> 2] = CMSGHDR_LEN + 2;
    this.words[(at >> 2) + 1] = 0;
    this.words[(at + CMSG_LEVEL) >> 2] = SOL_UDP;
    this.words[(at + CMSG_TYPE) >> 2] = UDP_SEGMENT;
    this.words[(at + CMSGHDR_LEN) >> 2] = byteLength;
  }

  /**
   * How long each datagram but the last is of those that the kernel received as one (`UDP_GRO`); 0 if it is a single
   * one.
   *
   * @param at the message
   * @param control its control data
   */
  readSegmentSize(at: number, control: number): number {
    return this.words[(at + MSG_CONTROLLEN) >> 2]! > CMSGHDR_LEN &&
        this.words[(control + CMSG_LEVEL) >> 2] === SOL_UDP &&
        this.words[(control + CMSG_TYPE) >> 2] === UDP_GRO
      ? this.words[(control + CMSGHDR_LEN) >> 2]!
      : 0;
  }

  /** Whether the kernel had to cut a message short (`MSG_TRUNC`). */
  isTruncated(at: number): boolean {
    return (this.words[(at + MSG_FLAGS) >> 2]! & MSG_TRUNC) !== 0;
  }
}
