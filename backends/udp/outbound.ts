/**
 * Outbound flow, from the TUN device to the peers
 *
 * 1. {@link Outbound.prepareRead} makes room; the kernel reads a packet of up to 64 KiB from the TUN device's queue.
 * 2. {@link Outbound.take} checks the packet's header, and finds the peer that has the destination.
 * 3. What goes no further is dropped and counted; its sender is told by ICMP, if it may be.
 * 4. A packet that stands for many (TSO, USO) is cut: each segment has headers of its own and its share of the
 *    payload, which stays where it was read. Checksums are finished, unless the peer takes them as they are.
 * 5. Datagrams of one size for one peer wait in a batch.
 * 6. {@link Outbound.flush} sends the batch by one call (UDP_SEGMENT). What the kernel refuses as a whole goes one
 *    by one; what is too large for the path goes in fragments, or is refused by ICMP.
 *
 * One thread does all of this, in this order, and nothing here makes an object for a packet. The peers' table
 * is read while the agent writes it; see peer_map.ts. What the kernel has to do is asked of an
 * {@link OutboundKernel}: the rest is work on memory.
 *
 * @module
 */

import { type Family, MIN_MTU_BYTES } from "@denim/core/ip";
import { NO_CHECKSUMS, SERIES_TOO_LARGE, TOO_LARGE } from "@denim/core/linux/packet-io";
import {
  CONTROL_LEN,
  IOVEC_LEN,
  MSGHDR_LEN,
  PacketMemory,
  SOCKADDR_ADDRESS,
  SOCKADDR_LEN,
} from "@denim/core/linux/packet-memory";
import {
  VIRTIO_NET_HDR,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_LEN,
} from "@denim/core/linux/virtio-net";
import { AddressWords } from "./address_words.ts";
import { complement, fold, sumBytes, sumHeader } from "./checksum.ts";
import { type Counters, DROP } from "./counters.ts";
import {
  ICMP_ERROR_ROOM,
  type IcmpProblem,
  IcmpRate,
  mayReport,
  writeIcmpError,
} from "./icmp_error.ts";
import {
  destinationOffset,
  familyOf,
  headerBytes,
  IPV4_CHECKSUM,
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_ID,
  IPV4_LEN,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL,
  IPV4_TTL,
  IPV6_HOPS,
  IPV6_LEN,
  IPV6_NEXT,
  IPV6_PAYLOAD,
  IPV6_SOURCE,
  OVERHEAD_BYTES,
  TCP,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_FIN,
  TCP_FLAGS,
  TCP_LEN,
  TCP_OFFSET,
  TCP_PSH,
  TCP_SEQUENCE,
  UDP,
  UDP_CHECKSUM,
  UDP_LEN,
  UDP_LENGTH,
} from "./ip.ts";
import { PeerLookup } from "./peer_lookup.ts";
import type { PeerMap } from "./peer_map.ts";

/** What the kernel does for packets that leave. */
export interface OutboundKernel {
  /**
   * Sends the message at {@link Outbound.message}.
   *
   * @param fragments whether a datagram that is too large for the path may travel in fragments
   * @returns the number of bytes sent, or an error's number negated
   */
  send(family: Family, fragments: boolean): number;
  /**
   * Sends an IP packet to a pod of this node.
   *
   * @param offset where the packet is in {@link Outbound.memory}
   * @param destination where its destination is
   */
  sendPacket(family: Family, offset: number, byteLength: number, destination: number): void;
  /** The largest packet that reaches an address, in bytes; `undefined` if there is no route to it. */
  pathMtuBytes(address: AddressWords): number | undefined;
  /** The time, in milliseconds. */
  nowMs(): number;
}

/** What the outbound side can count on. */
export interface OutboundOptions {
  /** The peers' UDP port. */
  readonly port: number;
  /** Whether a header of virtio stands before each packet. */
  readonly header: boolean;
  /** Whether one call may send many datagrams. */
  readonly segment: boolean;
}

/** One IP packet, with its headers, at the most. */
const MAX_PACKET = 65_535;
/** Room for one, at a multiple of 64 bytes. */
const PACKET_ROOM = 64 * 1024;
/**
 * Two large packets, of which one may wait in part while the next is read; or small ones that fill a batch, and
 * a large one. No more: memory that goes round fast stays in the processor's cache.
 */
const READ_ROOM = 2 * PACKET_ROOM + 8 * 1024;
/** How many segments the kernel takes in one call (`UDP_MAX_SEGMENTS`). */
const MAX_SEGMENTS = 64;
/** How many bytes it takes in one call: an IP packet less its header and UDP's. */
const MAX_BATCH: Readonly<Record<Family, number>> = { 4: 65_507, 6: 65_527 };
/** Room for the headers of one segment. */
const HEADER_ROOM = 192;

/** Takes packets as they come from the TUN device, and sends them on. */
export class Outbound {
  /** Where everything is. */
  readonly memory: PacketMemory = new PacketMemory(READ_ROOM + 32 * 1024);
  /** Where the next packet is to be read to, an array of `struct iovec`. */
  readonly readIovec: number;
  /** How many elements that has. */
  readonly readIovecCount: number;
  /** What is to be sent, a `struct msghdr`. */
  readonly message: number;

  readonly #peers: PeerMap;
  readonly #counters: Counters;
  readonly #kernel: OutboundKernel;
  readonly #rate = new IcmpRate();
  readonly #options: OutboundOptions;
  readonly #maxSegments: number;

  // Where things are in the memory.
  readonly #vnet: number;
  readonly #packets: number;
  readonly #headers: number;
  readonly #iovec: number;
  readonly #name: number;
  readonly #control: number;
  readonly #error: number;

  /** Where the next packet is read to. */
  #next: number;
  /** Where the first packet begins that waits, in whole or in part. */
  #waiting = 0;
  /** Where the packet at hand begins. */
  #packet = 0;

  // The batch: datagrams of one size, of which the last may be shorter, for one peer.
  #count = 0;
  #peer = -1;
  #family: Family = 4;
  #segmentBytes = 0;
  #batchBytes = 0;
  #iovecCount = 0;
  #closed = false;
  /** The first iovec of each datagram, and the last one's end. */
  readonly #firstIovec = new Int32Array(MAX_SEGMENTS + 1);
  /** The family of each datagram's packet. */
  readonly #inner = new Int32Array(MAX_SEGMENTS);

  readonly #lookup: PeerLookup;
  /** Where the batch goes. */
  readonly #outer = new AddressWords();

  /** Sends to the peers in a table, through a kernel. */
  constructor(
    peers: PeerMap,
    counters: Counters,
    kernel: OutboundKernel,
    options: OutboundOptions,
  ) {
    this.#peers = peers;
    this.#lookup = new PeerLookup(peers);
    this.#counters = counters;
    this.#kernel = kernel;
    this.#options = options;
    this.#maxSegments = options.segment ? MAX_SEGMENTS : 1;
    const { memory } = this;
    this.#vnet = memory.allocate(VIRTIO_NET_HDR_LEN);
    this.readIovec = memory.allocate(2 * IOVEC_LEN);
    this.readIovecCount = options.header ? 2 : 1;
    this.message = memory.allocate(MSGHDR_LEN);
    this.#name = memory.allocate(SOCKADDR_LEN[6]);
    this.#control = memory.allocate(CONTROL_LEN);
    this.#iovec = memory.allocate(2 * MAX_SEGMENTS * IOVEC_LEN);
    this.#headers = memory.allocate(MAX_SEGMENTS * HEADER_ROOM);
    this.#error = memory.allocate(ICMP_ERROR_ROOM);
    this.#packets = memory.allocate(READ_ROOM);
    this.#next = this.#packets;
    memory.writeIovec(this.readIovec, this.#vnet, VIRTIO_NET_HDR_LEN);
    memory.writeMessage(this.message, {
      name: this.#name,
      nameLength: 0,
      iovec: this.#iovec,
      iovecCount: 0,
      control: this.#control,
      controlLength: 0,
    });
    this.prepareRead();
  }

  /** Makes room for the next packet. Packets that were taken before may still wait to be sent. */
  prepareRead(): void {
    if (this.#count === 0) {
      this.#next = this.#packets;
    } else if (this.#next + PACKET_ROOM > this.#end()) {
      // Back to the start, unless packets wait there.
      const round = this.#waiting >= this.#next;
      if (round || this.#waiting - this.#packets < PACKET_ROOM) this.flush();
      this.#next = this.#packets;
    }
    const at = this.readIovec + (this.#options.header ? IOVEC_LEN : 0);
    this.memory.writeIovec(at, this.#next, MAX_PACKET);
  }

  /** Where the room ends: at the packets that wait, or at the end of the memory for packets. */
  #end(): number {
    return this.#waiting >= this.#next ? this.#waiting : this.#packets + READ_ROOM;
  }

  /** Takes what was read: `byteLength` bytes, virtio's header included if there is one. */
  take(byteLength: number): void {
    const length = byteLength - (this.#options.header ? VIRTIO_NET_HDR_LEN : 0);
    const offset = this.#next;
    // Packets start at multiples of 64, so that headers are copied by words. Behind a large packet is room for another.
    const room = length > PACKET_ROOM / 2 ? PACKET_ROOM : (length + 63) & ~63;
    this.#next = offset + room;
    this.#packet = offset;
    const family = familyOf(this.memory.bytes, offset, length);
    if (family === 0) this.#counters.drop(DROP.outMalformed, 1);
    else this.#route(family, offset, length);
  }

  /** Finds the peer that a packet is for, and sends it on with one hop less to go. */
  #route(family: Family, offset: number, length: number): void {
    const { view, bytes } = this.memory;
    const header = headerBytes(family, bytes, offset);
    if (header < IPV4_LEN || header > length) {
      this.#counters.drop(DROP.outMalformed, 1);
      return;
    }
    const destination = offset + destinationOffset(family);
    const word = view.getInt32(destination);
    // From 224.0.0.0 and ff00:: on: multicast, and what must not be routed (RFC 1112, RFC 4291 section 2.7, RFC 1812
    // section 5.3.7).
    if (family === 4 ? word >>> 29 === 7 : word >>> 24 === 0xff) {
      this.#counters.drop(DROP.outNotUnicast, 1);
      return;
    }
    const hopsAt = offset + (family === 4 ? IPV4_TTL : IPV6_HOPS);
    const hops = bytes[hopsAt]!;
    if (hops <= 1) {
      this.#refuse(DROP.outExpired, family, "expired", offset, length, 0);
      return;
    }
    const peer = this.#lookup.find(family, view, destination);
    if (peer < 0) {
      this.#refuse(DROP.outNoPeer, family, "unreachable", offset, length, 0);
      return;
    }
    bytes[hopsAt] = hops - 1;
    if (family === 4) {
      // The sum falls by 0x100, so its complement rises by that (RFC 1624 eqn. 3).
      const checksum = fold(view.getUint16(offset + IPV4_CHECKSUM) + 0x100);
      view.setUint16(offset + IPV4_CHECKSUM, checksum);
    }
    const protocol = bytes[offset + (family === 4 ? IPV4_PROTOCOL : IPV6_NEXT)]!;
    this.#dispatch(family, peer, offset, length, header, protocol);
  }

  /** Sends a packet on as virtio's header says: whole, or cut into segments. */
  #dispatch(
    family: Family,
    peer: number,
    offset: number,
    length: number,
    ipLength: number,
    protocol: number,
  ): void {
    const { bytes, halves } = this.memory;
    const vnet = this.#options.header ? this.#vnet : -1;
    const gso = vnet < 0
      ? VIRTIO_NET_HDR_GSO_NONE
      : bytes[vnet + VIRTIO_NET_HDR.gsoType]! & ~VIRTIO_NET_HDR_GSO_ECN;
    if (gso !== VIRTIO_NET_HDR_GSO_NONE) {
      const start = halves[(vnet + VIRTIO_NET_HDR.checksumStart) >> 1]!;
      const size = halves[(vnet + VIRTIO_NET_HDR.gsoSize) >> 1]!;
      const udp = gso === VIRTIO_NET_HDR_GSO_UDP_L4;
      this.#segment(family, peer, offset, length, ipLength, start, size, udp);
      return;
    }
    if (vnet >= 0 && (bytes[vnet + VIRTIO_NET_HDR.flags]! & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      this.#finishChecksum(peer, offset, length, ipLength, protocol);
    }
    this.#reserve(peer, length);
    this.#append(family, offset, length, 0, 0, length);
  }

  /** Finishes the checksum that the kernel left to do, unless the peer takes the packet as it is. */
  #finishChecksum(
    peer: number,
    offset: number,
    length: number,
    ipLength: number,
    protocol: number,
  ): void {
    const { halves, view } = this.memory;
    const start = halves[(this.#vnet + VIRTIO_NET_HDR.checksumStart) >> 1]!;
    const place = halves[(this.#vnet + VIRTIO_NET_HDR.checksumOffset) >> 1]!;
    // The peer knows an unfinished checksum by the pseudo header's sum, and looks for it right behind IP's header.
    const plain = start === ipLength &&
      (protocol === TCP && place === TCP_CHECKSUM || protocol === UDP && place === UDP_CHECKSUM);
    if (plain && this.#peers.takesPartialChecksums(peer)) return;
    if (start + place + 2 > length) return;
    const sum = sumBytes(this.memory, offset + start, length - start);
    view.setUint16(offset + start + place, complement(sum, place === UDP_CHECKSUM));
  }

  /** Cuts a packet into those that it stands for, each with headers of its own before its share of the payload. */
  #segment(
    family: Family,
    peer: number,
    offset: number,
    length: number,
    ipLength: number,
    start: number,
    size: number,
    udp: boolean,
  ): void {
    const { view, bytes, words } = this.memory;
    const l4 = offset + start;
    const l4Header = udp
      ? UDP_LEN
      : start + TCP_LEN <= length
      ? (bytes[l4 + TCP_OFFSET]! >> 4) * 4
      : 0;
    const header = start + l4Header;
    if (
      size === 0 || start < ipLength || l4Header < (udp ? UDP_LEN : TCP_LEN) || header >= length ||
      header > HEADER_ROOM || (header & 3) !== 0
    ) {
      this.#counters.drop(DROP.outMalformed, 1);
      return;
    }
    const partial = this.#peers.takesPartialChecksums(peer) && start === ipLength;
    const place = udp ? UDP_CHECKSUM : TCP_CHECKSUM;
    const flags = udp ? 0 : bytes[l4 + TCP_FLAGS]!;
    const sequence = udp ? 0 : view.getUint32(l4 + TCP_SEQUENCE);
    const id = view.getUint16(offset + IPV4_ID);

    // What all segments have in common is summed up once. Of IPv4's header that is all but length and id.
    view.setUint16(l4 + place, 0);
    let ipSum = 0;
    if (family === 4) {
      view.setUint16(offset + IPV4_TOTAL, 0);
      view.setUint16(offset + IPV4_ID, 0);
      view.setUint16(offset + IPV4_CHECKSUM, 0);
      ipSum = sumHeader(this.memory, offset, ipLength);
    }
    // Of the pseudo header it is all but the length; of UDP's and TCP's headers what does not differ.
    const addresses = family === 4
      ? sumHeader(this.memory, offset + IPV4_SOURCE, 8)
      : sumHeader(this.memory, offset + IPV6_SOURCE, 32);
    const pseudo = addresses + (udp ? UDP : TCP);
    let l4Sum = 0;
    if (!partial) {
      if (udp) view.setUint16(l4 + UDP_LENGTH, 0);
      else {
        bytes[l4 + TCP_FLAGS] = 0;
        view.setUint32(l4 + TCP_SEQUENCE, 0);
      }
      l4Sum = sumHeader(this.memory, l4, l4Header);
    }

    const last = length - size;
    for (let at = header, index = 0; at < length; at += size, index++) {
      const payload = at > last ? length - at : size;
      const total = header + payload;
      this.#reserve(peer, total);
      const slot = this.#headers + this.#count * HEADER_ROOM;
      for (let from = offset >> 2, to = slot >> 2, end = to + (header >> 2); to < end;) {
        words[to++] = words[from++]!;
      }
      if (family === 4) {
        const segmentId = (id + index) & 0xffff;
        view.setUint16(slot + IPV4_TOTAL, total);
        view.setUint16(slot + IPV4_ID, segmentId);
        view.setUint16(slot + IPV4_CHECKSUM, ~fold(ipSum + total + segmentId));
      } else {
        view.setUint16(slot + IPV6_PAYLOAD, total - IPV6_LEN);
      }
      const l4Length = total - start;
      let sum = pseudo + l4Length;
      if (udp) {
        view.setUint16(slot + start + UDP_LENGTH, l4Length);
        if (!partial) sum += l4Length;
      } else {
        const segmentSequence = (sequence + index * size) >>> 0;
        let segmentFlags = flags;
        // FIN and PSH belong to the last segment, CWR, the answer to ECN's echo, to the first.
        if (at < last) segmentFlags &= ~(TCP_FIN | TCP_PSH);
        if (index > 0) segmentFlags &= ~TCP_CWR;
        view.setUint32(slot + start + TCP_SEQUENCE, segmentSequence);
        bytes[slot + start + TCP_FLAGS] = segmentFlags;
        if (!partial) {
          sum += (segmentSequence >>> 16) + (segmentSequence & 0xffff) + segmentFlags;
        }
      }
      if (partial) {
        view.setUint16(slot + start + place, fold(sum));
      } else {
        const whole = sum + l4Sum + sumBytes(this.memory, offset + at, payload);
        view.setUint16(slot + start + place, complement(whole, udp));
      }
      this.#append(family, slot, header, offset + at, payload, total);
    }
  }

  /** Makes room in the batch for a datagram of a size for a peer: sends the batch if it has none. */
  #reserve(peer: number, byteLength: number): void {
    if (
      this.#count > 0 &&
      (peer !== this.#peer || this.#closed || byteLength > this.#segmentBytes ||
        this.#count >= this.#maxSegments || this.#batchBytes + byteLength > MAX_BATCH[this.#family])
    ) this.flush();
    if (this.#count > 0) return;
    this.#peer = peer;
    this.#waiting = this.#packet;
    this.#family = this.#peers.publicFamily(peer);
    this.#segmentBytes = byteLength;
  }

  /** Adds a datagram of one part or two to the batch. */
  #append(
    inner: Family,
    first: number,
    firstLength: number,
    second: number,
    secondLength: number,
    byteLength: number,
  ): void {
    const { memory } = this;
    let iovec = this.#iovecCount;
    this.#firstIovec[this.#count] = iovec;
    this.#inner[this.#count] = inner;
    memory.writeIovec(this.#iovec + iovec++ * IOVEC_LEN, first, firstLength);
    if (secondLength > 0) {
      memory.writeIovec(this.#iovec + iovec++ * IOVEC_LEN, second, secondLength);
    }
    this.#iovecCount = iovec;
    this.#count++;
    this.#batchBytes += byteLength;
    if (byteLength < this.#segmentBytes) this.#closed = true;
  }

  /** Sends what waits if it is a single datagram. */
  flushSingle(): void {
    if (this.#count === 1) this.flush();
  }

  /** Sends what waits. */
  flush(): void {
    const count = this.#count;
    if (count === 0) return;
    const { memory, message } = this;
    this.#firstIovec[count] = this.#iovecCount;
    this.#writeName();
    memory.setMessageIovec(message, this.#iovec, this.#iovecCount);
    if (count > 1) memory.writeSegmentSize(this.#control, this.#segmentBytes);
    memory.setMessageControl(message, count > 1 ? CONTROL_LEN : 0);
    const result = this.#kernel.send(this.#family, false);
    if (count === 1) {
      this.#settle(0, result);
    } else if (result >= 0) {
      this.#counters.pass("outbound", this.#peers.counter(this.#peer), count, this.#batchBytes);
    } else {
      // A series fails as a whole if the path is too narrow for one datagram, or the device can't cut it.
      const apart = result === TOO_LARGE || result === SERIES_TOO_LARGE || result === NO_CHECKSUMS;
      for (let index = 0; index < count; index++) {
        this.#settle(index, apart ? this.#sendOne(index) : result);
      }
    }
    this.#count = 0;
    this.#iovecCount = 0;
    this.#batchBytes = 0;
    this.#closed = false;
    this.#peer = -1;
  }

  #writeName(): void {
    const { memory } = this;
    const address = this.#outer;
    this.#peers.readPublic(this.#peer, address);
    const { family } = address;
    memory.writeSocketAddress(this.#name, family, this.#options.port);
    address.write(memory.view, this.#name + SOCKADDR_ADDRESS[family]);
    memory.setMessageName(this.message, SOCKADDR_LEN[family]);
  }

  /** Sends one datagram of the batch by itself. */
  #sendOne(index: number): number {
    const first = this.#firstIovec[index]!;
    const count = this.#firstIovec[index + 1]! - first;
    this.memory.setMessageIovec(this.message, this.#iovec + first * IOVEC_LEN, count);
    this.memory.setMessageControl(this.message, 0);
    return this.#kernel.send(this.#family, false);
  }

  /** Deals with the result of sending one datagram. The message is still as it was sent. */
  #settle(index: number, result: number): void {
    const { memory } = this;
    const first = this.#firstIovec[index]!;
    const head = memory.readIovec(this.#iovec + first * IOVEC_LEN);
    let byteLength = 0;
    for (let iovec = first; iovec < this.#firstIovec[index + 1]!; iovec++) {
      byteLength += memory.readIovec(this.#iovec + iovec * IOVEC_LEN).byteLength;
    }
    let outcome = result;
    const pathMtuBytes = outcome === TOO_LARGE ? this.#kernel.pathMtuBytes(this.#outer) : undefined;
    if (pathMtuBytes !== undefined) {
      const inner = this.#inner[index] as Family;
      const leftBytes = pathMtuBytes - OVERHEAD_BYTES[this.#family];
      const mtuBytes = inner === 6 ? Math.max(leftBytes, MIN_MTU_BYTES[6]) : leftBytes;
      const whole = inner === 6
        ? byteLength > mtuBytes
        : (memory.view.getUint16(head.offset + IPV4_FRAGMENT) & IPV4_DF) !== 0;
      if (whole) {
        this.#refuse(DROP.outTooBig, inner, "tooBig", head.offset, head.byteLength, mtuBytes);
        return;
      }
      // A packet that may be fragmented may travel in a datagram that is: the peer's kernel puts that together (RFC 2003
      // section 3.1).
      outcome = this.#kernel.send(this.#family, true);
    }
    const counter = this.#peers.counter(this.#peer);
    if (outcome >= 0) {
      this.#counters.pass("outbound", counter, 1, byteLength);
    } else {
      this.#counters.drop(DROP.outFailed, 1);
      this.#counters.dropOf("outbound", counter, 1);
    }
  }

  /** Drops a packet, and tells its sender, if that is allowed. */
  #refuse(
    reason: number,
    family: Family,
    problem: IcmpProblem,
    offset: number,
    byteLength: number,
    mtuBytes: number,
  ): void {
    this.#counters.drop(reason, 1);
    const { memory } = this;
    if (!mayReport(memory, this.#peers, family, offset, byteLength)) return;
    // The last word tells pods apart.
    const source = memory.view.getInt32(offset + (family === 4 ? IPV4_SOURCE : IPV6_SOURCE + 12));
    if (!this.#rate.take(source, this.#kernel.nowMs())) return;
    const length = writeIcmpError(
      memory,
      this.#peers,
      family,
      problem,
      this.#error,
      offset,
      byteLength,
      mtuBytes,
    );
    this.#kernel.sendPacket(family, this.#error, length, this.#error + destinationOffset(family));
    this.#counters.icmpErrorSent();
  }
}
