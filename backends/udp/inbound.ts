/**
 * Inbound flow, from the peers to the TUN device
 *
 * 1. {@link Inbound.prepareReceive} makes the message ready; the kernel receives a datagram, or a series of them that
 *    came from one sender (UDP_GRO).
 * 2. {@link Inbound.take} reads who sent it, and looks at the packet in each datagram.
 * 3. A packet is dropped and counted unless its source is in the subnet of the peer that sent it, and its
 *    destination in this node's.
 * 4. Packets that follow each other in one TCP or UDP flow are joined, the payloads where they were received (GRO),
 *    if their checksums are right.
 * 5. At the end of the series, and before a packet of another flow, what was joined is written to the TUN device as
 *    one packet.
 *
 * One thread does all of this, in this order. Nothing here makes an object for a packet, and nothing that
 * arrives makes it throw. The peers' table is read while the agent writes it; see peer_map.ts. What the kernel
 * has to do is asked of an {@link InboundKernel}: the rest is work on memory.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";
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
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_LEN,
} from "@denim/core/linux/virtio-net";
import { AddressWords } from "./address_words.ts";
import { fold, sumBytes, sumHeader } from "./checksum.ts";
import { type Counters, DROP } from "./counters.ts";
import {
  destinationOffset,
  familyOf,
  headerBytes,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_ID,
  IPV4_LEN,
  IPV4_MF,
  IPV4_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL,
  IPV4_TTL,
  IPV6_LEN,
  IPV6_NEXT,
  IPV6_PAYLOAD,
  IPV6_SOURCE,
  sourceOffset,
  TCP,
  TCP_ACK,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_ECE,
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

/** What the kernel does for packets that arrive. */
export interface InboundKernel {
  /**
   * Hands the first `count` elements of {@link Inbound.writeIovec} to the TUN device as one packet. The
   * number of bytes, or an error's number negated.
   */
  write(count: number): number;
}

/** What the inbound side can count on. */
export interface InboundOptions {
  /** Whether a header of virtio stands before each packet. */
  readonly header: boolean;
  /** Whether checksums may be left to do. */
  readonly checksums: boolean;
  /** Whether TCP may be handed over in large packets. */
  readonly tcp: boolean;
  /** Whether UDP may. */
  readonly udp: boolean;
}

/** The longest datagram, or series of them that the kernel received as one. No IP packet is longer. */
const RECEIVE_ROOM = 65_535;
/** As many segments as a series that the kernel received can have (`UDP_MAX_SEGMENTS`). */
const MAX_SEGMENTS = 128;

/** Takes datagrams as they come from the sockets, and hands on what they carry. */
export class Inbound {
  /** Where everything is. */
  readonly memory: PacketMemory = new PacketMemory((64 + 8) * 1024);
  /** Where the next datagram is to be received, a `struct msghdr`. */
  readonly message: number;
  /** What is to be written, an array of `struct iovec`. */
  readonly writeIovec: number;
  /** Where the datagram is. */
  readonly data: number;

  readonly #peers: PeerMap;
  readonly #counters: Counters;
  readonly #kernel: InboundKernel;
  readonly #options: InboundOptions;
  readonly #vnet: number;
  readonly #name: number;
  readonly #control: number;
  /** The element of `writeIovec` behind that of virtio's header. */
  readonly #firstIovec: number;

  readonly #lookup: PeerLookup;
  /** Who sent the datagram. */
  readonly #outer = new AddressWords();

  // The packet at hand.
  #family: Family = 4;
  #offset = 0;
  #length = 0;
  #ipLength = 0;
  /** TCP or UDP, if its header is all there, right behind IP's; otherwise 0. */
  #l4 = 0;
  #l4Header = 0;
  /** Its checksum is left to do. */
  #partial = false;

  // The chain: packets of one flow that wait to be written as one. These fields describe its first packet.
  #count = 0;
  #chainFamily: Family = 4;
  #chainOffset = 0;
  #chainLength = 0;
  #chainIpLength = 0;
  #chainL4 = 0;
  #chainHeader = 0;
  #chainPartial = false;
  /** The payload of each packet but the last, which may have less, in bytes. */
  #chainPayload = 0;
  /** The length of all of them with one header, in bytes. */
  #chainTotal = 0;
  #chainFlags = 0;
  #chainSequence = 0;
  /** No more packets may be joined. */
  #chainClosed = false;
  /** The first packet's checksums were checked. */
  #chainChecked = false;

  /** Hands packets of the peers in a table to a kernel. */
  constructor(peers: PeerMap, counters: Counters, kernel: InboundKernel, options: InboundOptions) {
    this.#peers = peers;
    this.#lookup = new PeerLookup(peers);
    this.#counters = counters;
    this.#kernel = kernel;
    this.#options = options;
    const { memory } = this;
    this.message = memory.allocate(MSGHDR_LEN);
    this.#name = memory.allocate(SOCKADDR_LEN[6]);
    this.#control = memory.allocate(CONTROL_LEN);
    this.#vnet = memory.allocate(VIRTIO_NET_HDR_LEN);
    this.writeIovec = memory.allocate((2 + MAX_SEGMENTS) * IOVEC_LEN);
    const receiveIovec = memory.allocate(IOVEC_LEN);
    this.data = memory.allocate(RECEIVE_ROOM);
    memory.writeIovec(this.writeIovec, this.#vnet, VIRTIO_NET_HDR_LEN);
    this.#firstIovec = options.header ? 1 : 0;
    memory.writeIovec(receiveIovec, this.data, RECEIVE_ROOM);
    memory.writeMessage(this.message, {
      name: this.#name,
      nameLength: SOCKADDR_LEN[6],
      iovec: receiveIovec,
      iovecCount: 1,
      control: this.#control,
      controlLength: CONTROL_LEN,
    });
  }

  /** Makes the message ready for the next datagram. */
  prepareReceive(): void {
    this.memory.setMessageName(this.message, SOCKADDR_LEN[6]);
    this.memory.setMessageControl(this.message, CONTROL_LEN);
  }

  /** Takes what was received into the message, `byteLength` bytes. */
  take(byteLength: number): void {
    const { memory } = this;
    if (memory.isTruncated(this.message)) {
      this.#counters.drop(DROP.inMalformed, 1);
      return;
    }
    const family = memory.readSocketFamily(this.#name);
    this.#outer.read(family, memory.view, this.#name + SOCKADDR_ADDRESS[family]);
    this.takeSeries(byteLength, memory.readSegmentSize(this.message, this.#control));
  }

  /** Says who sent what is taken next. */
  setSource(address: AddressWords): void {
    this.#outer.copy(address);
  }

  /**
   * Takes the datagrams that stand at `data`, each of `segmentBytes` but the last, or one datagram if that is 0. Writes
   * all that they carry.
   */
  takeSeries(byteLength: number, segmentBytes: number): void {
    const end = this.data + byteLength;
    const step = segmentBytes > 0 ? segmentBytes : byteLength;
    for (let at = this.data; at < end; at += step) {
      this.#takePacket(at, Math.min(step, end - at));
    }
    if (byteLength === 0) this.#counters.drop(DROP.inMalformed, 1);
    this.#flush();
  }

  #takePacket(offset: number, room: number): void {
    const { view, bytes } = this.memory;
    const family = familyOf(bytes, offset, room);
    if (family === 0) return this.#drop(DROP.inMalformed);
    const header = headerBytes(family, bytes, offset);
    const total = family === 4
      ? view.getUint16(offset + IPV4_TOTAL)
      : IPV6_LEN + view.getUint16(offset + IPV6_PAYLOAD);
    if (header < IPV4_LEN || total < header || total > room) return this.#drop(DROP.inMalformed);
    this.#family = family;
    this.#ipLength = header;
    this.#length = total;
    this.#offset = offset;

    const peer = this.#findPeer(family, offset + sourceOffset(family));
    if (peer < 0) return;
    if (!this.#peers.isOwn(family, view, offset + destinationOffset(family))) {
      return this.#drop(DROP.inNotOurs);
    }
    this.#counters.pass("inbound", this.#peers.counter(peer), 1, this.#length);
    this.#readTransport();
    if (this.#joins()) return;
    this.#flush();
    this.#begin();
  }

  /** The peer whose pod sent the packet and whose node sent the datagram; -1 if the packet was dropped. */
  #findPeer(family: Family, source: number): number {
    const peer = this.#lookup.find(family, this.memory.view, source);
    if (peer >= 0 && this.#peers.isAt(peer, this.#outer)) return peer;
    const sender = this.#peers.findByAddress(this.#outer);
    this.#dropFrom(sender, sender < 0 ? DROP.inStranger : DROP.inForged);
    return -1;
  }

  #drop(reason: number): void {
    this.#dropFrom(this.#peers.findByAddress(this.#outer), reason);
  }

  /** Counts a drop, also against any peer at the sender's address; `sender` is -1 if there is none. */
  #dropFrom(sender: number, reason: number): void {
    this.#counters.drop(reason, 1);
    if (sender >= 0) this.#counters.dropOf("inbound", this.#peers.counter(sender), 1);
  }

  /** Finds TCP's or UDP's header, and whether its checksum is left to do. */
  #readTransport(): void {
    const { view, bytes } = this.memory;
    const offset = this.#offset;
    this.#l4 = 0;
    this.#partial = false;
    const protocol = this.#family === 4
      ? bytes[offset + IPV4_PROTOCOL]!
      : bytes[offset + IPV6_NEXT]!;
    if (protocol !== TCP && protocol !== UDP) return;
    if (
      this.#family === 4 && (view.getUint16(offset + IPV4_FRAGMENT) & (IPV4_MF | IPV4_OFFSET)) !== 0
    ) return;
    const l4 = offset + this.#ipLength;
    const l4Length = this.#length - this.#ipLength;
    if (protocol === TCP) {
      if (l4Length < TCP_LEN) return;
      const header = (bytes[l4 + TCP_OFFSET]! >> 4) * 4;
      if (header < TCP_LEN || header > l4Length) return;
      this.#l4Header = header;
    } else {
      if (l4Length < UDP_LEN || view.getUint16(l4 + UDP_LENGTH) !== l4Length) return;
      this.#l4Header = UDP_LEN;
    }
    this.#l4 = protocol;
    // The pseudo header's sum in the checksum's place says that the rest is left to do. A checksum that is
    // done and happens to be the same comes out the same when it is done again.
    const place = l4 + (protocol === TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
    this.#partial = this.#options.checksums &&
      view.getUint16(place) === fold(this.#pseudoSum(offset, l4Length));
  }

  /** The sum of the pseudo header of a packet of the family and protocol at hand. */
  #pseudoSum(offset: number, l4Length: number): number {
    const addresses = this.#family === 4
      ? sumHeader(this.memory, offset + IPV4_SOURCE, 8)
      : sumHeader(this.memory, offset + IPV6_SOURCE, 32);
    return addresses + this.#l4 + l4Length;
  }

  /** Starts a chain with the packet at hand. */
  #begin(): void {
    const { memory } = this;
    const { view, bytes } = memory;
    const offset = this.#offset;
    const l4 = offset + this.#ipLength;
    const payload = this.#length - this.#ipLength - this.#l4Header;
    this.#count = 1;
    this.#chainFamily = this.#family;
    this.#chainOffset = offset;
    this.#chainLength = this.#length;
    this.#chainIpLength = this.#ipLength;
    this.#chainL4 = this.#l4;
    this.#chainHeader = this.#ipLength + this.#l4Header;
    this.#chainPartial = this.#partial;
    this.#chainPayload = payload;
    this.#chainTotal = this.#length;
    this.#chainChecked = false;
    memory.writeIovec(this.writeIovec + this.#firstIovec * IOVEC_LEN, offset, this.#length);
    this.#chainClosed = this.#l4 === 0 || payload === 0 ||
      this.#family === 4 && this.#ipLength !== IPV4_LEN;
    if (this.#chainClosed) return;
    if (this.#l4 === TCP) {
      this.#chainFlags = bytes[l4 + TCP_FLAGS]!;
      this.#chainSequence = (view.getUint32(l4 + TCP_SEQUENCE) + payload) | 0;
      // Only data in the middle of a stream is joined: a segment that says anything else must arrive as it is.
      this.#chainClosed = !this.#options.tcp ||
        (this.#chainFlags & ~(TCP_ECE | TCP_PSH)) !== TCP_ACK;
    } else {
      this.#chainClosed = !this.#options.udp || view.getUint16(l4 + UDP_CHECKSUM) === 0;
    }
  }

  /** Joins the packet at hand to the chain if it is the next of the same flow; returns whether it did. */
  #joins(): boolean {
    if (
      this.#count === 0 || this.#chainClosed || this.#count >= MAX_SEGMENTS ||
      this.#l4 !== this.#chainL4 || this.#family !== this.#chainFamily ||
      this.#ipLength !== this.#chainIpLength ||
      this.#ipLength + this.#l4Header !== this.#chainHeader
    ) return false;
    const payload = this.#length - this.#chainHeader;
    if (
      payload === 0 || payload > this.#chainPayload || !this.#sameFlow()
    ) return false;
    if (!this.#chainChecked) {
      this.#chainChecked = true;
      const right = this.#checksumsRight(
        this.#chainOffset,
        this.#chainLength,
        this.#chainPartial,
      );
      if (!right) {
        this.#chainClosed = true;
        return false;
      }
    }
    if (!this.#checksumsRight(this.#offset, this.#length, this.#partial)) return false;
    const { memory } = this;
    const iovec = this.writeIovec + (this.#firstIovec + this.#count) * IOVEC_LEN;
    memory.writeIovec(iovec, this.#offset + this.#chainHeader, payload);
    this.#count++;
    this.#chainTotal += payload;
    if (payload < this.#chainPayload) this.#chainClosed = true;
    if (this.#l4 === TCP) {
      this.#chainSequence = (this.#chainSequence + payload) | 0;
      const flags = memory.bytes[this.#offset + this.#ipLength + TCP_FLAGS]!;
      // PSH asks for haste, and so the whole does; it marks no place in the stream (RFC 9293 section 3.9.1).
      this.#chainFlags |= flags;
      if ((flags & TCP_FIN) !== 0) this.#chainClosed = true;
    }
    return true;
  }

  /** Whether the packet at hand begins where the chain ends, and all else in its headers is as in the first's. */
  #sameFlow(): boolean {
    const { view, bytes } = this.memory;
    const [first, here] = [this.#chainOffset, this.#offset];
    if (this.#family === 4) {
      const fragment = view.getUint16(here + IPV4_FRAGMENT);
      if (
        view.getInt32(first + IPV4_SOURCE) !== view.getInt32(here + IPV4_SOURCE) ||
        view.getInt32(first + IPV4_DESTINATION) !== view.getInt32(here + IPV4_DESTINATION) ||
        bytes[first + IPV4_TOS] !== bytes[here + IPV4_TOS] ||
        view.getUint16(first + IPV4_TTL) !== view.getUint16(here + IPV4_TTL) ||
        view.getUint16(first + IPV4_FRAGMENT) !== fragment
      ) return false;
      // The numbers of packets that must not be fragmented mean nothing (RFC 6864 section 4.1).
      const id = (view.getUint16(first + IPV4_ID) + this.#count) & 0xffff;
      if ((fragment & IPV4_DF) === 0 && view.getUint16(here + IPV4_ID) !== id) return false;
    } else {
      if (
        view.getInt32(first) !== view.getInt32(here) ||
        view.getUint16(first + IPV6_NEXT) !== view.getUint16(here + IPV6_NEXT)
      ) return false;
      for (let at = IPV6_SOURCE; at < IPV6_LEN; at += 4) {
        if (view.getInt32(first + at) !== view.getInt32(here + at)) return false;
      }
    }
    const firstL4 = first + this.#ipLength, hereL4 = here + this.#ipLength;
    if (view.getInt32(firstL4) !== view.getInt32(hereL4)) return false; // the ports
    if (this.#l4 === UDP) return view.getUint16(hereL4 + UDP_CHECKSUM) !== 0;
    // The word of the header's length, the flags and the window.
    const ends = (TCP_FIN | TCP_PSH) << 16;
    if (
      view.getInt32(hereL4 + TCP_SEQUENCE) !== this.#chainSequence ||
      view.getInt32(firstL4 + TCP_ACKNOWLEDGEMENT) !==
        view.getInt32(hereL4 + TCP_ACKNOWLEDGEMENT) ||
      ((view.getInt32(firstL4 + TCP_OFFSET) ^ view.getInt32(hereL4 + TCP_OFFSET)) & ~ends) !== 0
    ) return false;
    for (let at = TCP_LEN; at < this.#l4Header; at += 4) {
      if (view.getInt32(firstL4 + at) !== view.getInt32(hereL4 + at)) return false;
    }
    return true;
  }

  /**
   * Whether a packet's checksums are right, as far as they are done: what is joined gets new ones, and a
   * fault would be covered up.
   */
  #checksumsRight(offset: number, length: number, partial: boolean): boolean {
    if (this.#family === 4 && sumHeader(this.memory, offset, this.#ipLength) !== 0xffff) {
      return false;
    }
    if (partial) return true;
    const l4Length = length - this.#ipLength;
    const sum = this.#pseudoSum(offset, l4Length) +
      sumBytes(this.memory, offset + this.#ipLength, l4Length);
    return fold(sum) === 0xffff;
  }

  /** Writes the chain to the TUN device. */
  #flush(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    if (count > 1) this.#makeOne();
    if (this.#options.header) this.#writeHeader(count);
    if (this.#kernel.write(this.#firstIovec + count) < 0) this.#counters.drop(DROP.inFailed, count);
  }

  /** Makes the first packet's header that of all of them. */
  #makeOne(): void {
    const { memory } = this;
    const { view, bytes } = memory;
    const offset = this.#chainOffset, total = this.#chainTotal;
    const l4 = offset + this.#chainIpLength, l4Length = total - this.#chainIpLength;
    let addresses;
    if (this.#chainFamily === 4) {
      view.setUint16(offset + IPV4_TOTAL, total);
      view.setUint16(offset + IPV4_CHECKSUM, 0);
      const sum = sumHeader(memory, offset, this.#chainIpLength);
      view.setUint16(offset + IPV4_CHECKSUM, ~sum);
      addresses = sumHeader(memory, offset + IPV4_SOURCE, 8);
    } else {
      view.setUint16(offset + IPV6_PAYLOAD, l4Length);
      addresses = sumHeader(memory, offset + IPV6_SOURCE, 32);
    }
    const sum = fold(addresses + this.#chainL4 + l4Length);
    if (this.#chainL4 === TCP) {
      bytes[l4 + TCP_FLAGS] = this.#chainFlags;
      view.setUint16(l4 + TCP_CHECKSUM, sum);
    } else {
      view.setUint16(l4 + UDP_LENGTH, l4Length);
      view.setUint16(l4 + UDP_CHECKSUM, sum);
    }
  }

  #writeHeader(count: number): void {
    const { bytes, halves } = this.memory;
    const vnet = this.#vnet;
    const many = count > 1;
    const partial = many || this.#chainPartial;
    const udp = this.#chainL4 === UDP;
    bytes[vnet + VIRTIO_NET_HDR.flags] = partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0;
    bytes[vnet + VIRTIO_NET_HDR.gsoType] = !many
      ? VIRTIO_NET_HDR_GSO_NONE
      : udp
      ? VIRTIO_NET_HDR_GSO_UDP_L4
      : this.#chainFamily === 4
      ? VIRTIO_NET_HDR_GSO_TCPV4
      : VIRTIO_NET_HDR_GSO_TCPV6;
    halves[(vnet + VIRTIO_NET_HDR.headerLength) >> 1] = many ? this.#chainHeader : 0;
    halves[(vnet + VIRTIO_NET_HDR.gsoSize) >> 1] = many ? this.#chainPayload : 0;
    halves[(vnet + VIRTIO_NET_HDR.checksumStart) >> 1] = partial ? this.#chainIpLength : 0;
    halves[(vnet + VIRTIO_NET_HDR.checksumOffset) >> 1] = !partial
      ? 0
      : udp
      ? UDP_CHECKSUM
      : TCP_CHECKSUM;
  }
}
