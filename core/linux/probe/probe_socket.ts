/**
 * Probes of other nodes, many in one system call: echo requests of any size (RFC 792, RFC 4443), and datagrams to closed
 * ports, whose refusal shows that they arrived with a right checksum. The kernel notes when an answer comes, so that the
 * answers may lie until somebody reads them.
 *
 * @module
 */

import { type Family, IpAddress } from "../../ip.ts";
import { addressFamily } from "../sys/address_family.ts";
import type { FileDescriptor } from "../sys/libc.ts";
import { EAGAIN, ENOBUFS } from "../sys/linux_error.ts";
import { MMSGHDR_LEN, realTimeMs, receiveMessages, sendMessages } from "../sys/message_batch.ts";
import { attachFilter, bind, getsockname, setsockopt, socket } from "../sys/sockets.ts";
import { SOCKADDR_ADDRESS, SOCKADDR_LEN, socketAddress } from "../sys/socket_address.ts";
import { IOVEC_LEN, PacketMemory } from "../tunnel/packet_memory.ts";
import {
  IP_MTU_DISCOVER,
  IP_PMTUDISC_PROBE,
  IP_TTL,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_CHECKSUM,
  IPV6_MTU_DISCOVER,
  IPV6_UNICAST_HOPS,
  SO_RCVBUFFORCE,
  SO_TIMESTAMPNS,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_RAW,
  SOL_SOCKET,
} from "../uapi/socket.ts";
import {
  ICMP_LEN,
  ICMP_TYPE,
  NOTHING,
  PORT_UNREACHABLE,
  PROBE_MAGIC,
  probeFilter,
  QUOTED_IP_LEN,
  RECEIVED_LEN,
} from "./probe_filter.ts";

/**
 * How a probe travels: `echo`, an echo request; `near`, one that no router passes on, so that a host on the link answers
 * even if it has not the address; `udp`, a datagram to a closed port, whose checksum the kernel or a device does; and
 * `plain`, one that needs no such help.
 */
export type ProbeKind = "echo" | "near" | "udp" | "plain";

/** A packet to be sent. It may become another one later: nothing of it is kept. */
export interface Probe {
  /** How it travels. */
  kind: ProbeKind;
  /** Where to: as many bytes as the family has, in network order; what is behind them does not matter. */
  readonly to: Uint8Array;
  /** The length of an echo request's packet, IP header included; at least {@link MIN_PROBE_BYTES}. */
  bytes: number;
  /** The number of an echo request, 16 bits. */
  sequence: number;
  /** What an echo request tells the node that gets it, 32 bits. */
  tag: number;
  /** When it was sent, in milliseconds since 1970; set by {@link ProbeSocket.send}. */
  sentAtMs: number;
  /** What became of it; set by {@link ProbeSocket.send}. `busy`: the kernel had no room, which says nothing of a host. */
  outcome: "waiting" | "sent" | "refused" | "busy";
}

/**
 * Takes what {@link ProbeSocket.receive} finds. Times are in milliseconds since 1970. Addresses are bytes in network
 * order, which stand until the method returns.
 */
export interface ProbeListener {
  /** An echo request was answered. */
  onAnswer(sequence: number, from: Uint8Array, atMs: number): void;
  /** A host that is not the echo request's destination got it, and no router may pass it on. */
  onExpired(sequence: number, from: Uint8Array, atMs: number): void;
  /** A host says that a port is closed. */
  onClosed(kind: "udp" | "plain", from: Uint8Array, atMs: number): void;
  /** Another node probes this one. */
  onRequest(tag: number, from: Uint8Array): void;
}

/** The length of the shortest echo request, in bytes. */
export const MIN_PROBE_BYTES: Readonly<Record<Family, number>> = { 4: 36, 6: 56 };

/** How many messages one system call takes. */
const BATCH = 64;
/** An echo request's header, the magic number and the tag. */
const ECHO_LEN = 16;
/** A datagram: UDP's header and as much again. */
const DATAGRAM_LEN = 16, UDP_LEN = 8;
/** The ports to which datagrams go: traceroute's first ones, which nobody serves. */
const CLOSED_PORT = { udp: 33_434, plain: 33_435 } as const;
/** Where UDP has its checksum. */
const UDP_CHECKSUM = 6;
const MAX_PACKET_BYTES = 65_536;
/** The errors of a kernel that has no room. */
const BUSY: ReadonlySet<number> = new Set([EAGAIN, ENOBUFS]);
/** Room for a message's time (`struct cmsghdr`, `struct timespec`). */
const CONTROL_LEN = 48, CMSGHDR_LEN = 16;
/** Room for the answers of some seconds. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;

const PROTOCOLS = {
  4: { icmp: IPPROTO_ICMP, level: IPPROTO_IP, discover: IP_MTU_DISCOVER, hops: IP_TTL },
  6: {
    icmp: IPPROTO_ICMPV6,
    level: IPPROTO_IPV6,
    discover: IPV6_MTU_DISCOVER,
    hops: IPV6_UNICAST_HOPS,
  },
} as const;

const KINDS: readonly ProbeKind[] = ["echo", "near", "udp", "plain"];

/** Where a message that is sent has its parts, in the memory. All messages of a kind have the rest in common. */
interface OutSlot {
  readonly message: number;
  /** Where to. */
  readonly address: Uint8Array;
  readonly head: number;
  /** Of what follows an echo request's head. */
  readonly rest: number;
}

/** Probes of a kind that leave together, each in its slot. */
interface OutBatch {
  readonly fd: FileDescriptor;
  readonly slots: readonly OutSlot[];
  /** The first `count` are to be sent; those behind them were. */
  readonly probes: Probe[];
  count: number;
}

/** Where one that is received has them. */
interface InSlot {
  readonly message: number;
  /** Where from. */
  readonly address: Uint8Array;
  readonly head: number;
  readonly control: number;
}

/** The sockets of one family, in this thread's network namespace. Needs CAP_NET_RAW. */
export class ProbeSocket implements Disposable {
  readonly #family: Family;
  readonly #sockets: Readonly<Record<ProbeKind, FileDescriptor>>;
  readonly #open: DisposableStack;
  /** The identifier of the echo requests, and the source port of the datagrams. */
  readonly #id: number;
  readonly #memory: PacketMemory;
  readonly #out: Readonly<Record<ProbeKind, OutBatch>>;
  readonly #in: readonly InSlot[];
  /** The Internet checksum (RFC 1071), not folded, of what all echo requests have in common. */
  readonly #echoSum: number;

  /** Opens them. Throws a LinuxError. */
  constructor(family: Family) {
    this.#family = family;
    using open = new DisposableStack();
    this.#sockets = openSockets(family, open);
    this.#id = localPort(family, this.#sockets.udp);
    attachFilter(this.#sockets.echo, probeFilter(family, this.#id));
    const outBytes = MMSGHDR_LEN + 3 * 64;
    const inBytes = MMSGHDR_LEN + 2 * 64 + RECEIVED_LEN + CONTROL_LEN;
    this.#memory = new PacketMemory(
      BATCH * (KINDS.length * outBytes + inBytes + 64) + MAX_PACKET_BYTES,
    );
    // What follows an echo request's head: zeros, which change no checksum.
    const zeros = this.#memory.allocate(MAX_PACKET_BYTES);
    const out = (kind: ProbeKind): OutBatch => {
      return { fd: this.#sockets[kind], slots: this.#makeOut(kind, zeros), probes: [], count: 0 };
    };
    this.#out = { echo: out("echo"), near: out("near"), udp: out("udp"), plain: out("plain") };
    this.#in = this.#makeIn();
    this.#echoSum = (ICMP_TYPE[family].request << 8) + this.#id + (PROBE_MAGIC >>> 16) +
      (PROBE_MAGIC & 0xffff);
    this.#open = open.move();
  }

  #makeOut(kind: ProbeKind, zeros: number): readonly OutSlot[] {
    const memory = this.#memory, family = this.#family;
    const isEcho = kind === "echo" || kind === "near";
    // The messages of a call stand side by side.
    const messages = memory.allocate(BATCH * MMSGHDR_LEN);
    return Array.from({ length: BATCH }, (_, index) => {
      const message = messages + index * MMSGHDR_LEN;
      const name = memory.allocate(SOCKADDR_LEN[family]);
      const iovec = memory.allocate(2 * IOVEC_LEN);
      const head = memory.allocate(ECHO_LEN);
      memory.writeSocketAddress(name, family, kind === "udp" ? CLOSED_PORT.udp : 0);
      if (isEcho) {
        memory.view.setUint8(head, ICMP_TYPE[family].request);
        memory.view.setUint16(head + 4, this.#id);
        memory.view.setUint32(head + 8, PROBE_MAGIC);
      } else if (kind === "plain") {
        memory.view.setUint16(head, this.#id);
        memory.view.setUint16(head + 2, CLOSED_PORT.plain);
        // Without a checksum over IPv4 (RFC 768); over IPv6 the kernel does it in software.
        memory.view.setUint16(head + 4, DATAGRAM_LEN);
      }
      memory.writeIovec(iovec, head, kind === "udp" ? DATAGRAM_LEN - UDP_LEN : ECHO_LEN);
      memory.writeIovec(iovec + IOVEC_LEN, zeros, 0);
      memory.writeMessage(message, {
        name,
        nameLength: SOCKADDR_LEN[family],
        iovec,
        iovecCount: isEcho ? 2 : 1,
        control: 0,
        controlLength: 0,
      });
      return { message, address: this.#addressAt(name), head, rest: iovec + IOVEC_LEN };
    });
  }

  #makeIn(): readonly InSlot[] {
    const memory = this.#memory, family = this.#family;
    const messages = memory.allocate(BATCH * MMSGHDR_LEN);
    return Array.from({ length: BATCH }, (_, index) => {
      const message = messages + index * MMSGHDR_LEN;
      const iovec = memory.allocate(IOVEC_LEN);
      const name = memory.allocate(SOCKADDR_LEN[family]);
      const head = memory.allocate(RECEIVED_LEN);
      const control = memory.allocate(CONTROL_LEN);
      memory.writeIovec(iovec, head, RECEIVED_LEN);
      memory.writeMessage(message, {
        name,
        nameLength: SOCKADDR_LEN[family],
        iovec,
        iovecCount: 1,
        control,
        controlLength: CONTROL_LEN,
      });
      return { message, address: this.#addressAt(name), head, control };
    });
  }

  /** The address in a socket address. */
  #addressAt(name: number): Uint8Array {
    const start = name + SOCKADDR_ADDRESS[this.#family];
    return this.#memory.bytes.subarray(start, start + (this.#family === 4 ? 4 : 16));
  }

  /** Closes them. */
  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]();
  }

  /** Sends probes, without waiting, and notes in each what became of it. */
  send(probes: readonly Probe[]): void {
    for (const probe of probes) {
      const batch = this.#out[probe.kind];
      this.#write(probe, batch.slots[batch.count]!);
      batch.probes[batch.count++] = probe;
      if (batch.count === BATCH) this.#sendBatch(batch);
    }
    for (const kind of KINDS) this.#sendBatch(this.#out[kind]);
  }

  #sendBatch(batch: OutBatch): void {
    const { fd, slots, probes, count } = batch;
    batch.count = 0;
    let at = 0;
    while (at < count) {
      const startMs = realTimeMs();
      const sent = sendMessages(fd, this.#memory.pointer(slots[at]!.message), count - at);
      if (sent <= 0) {
        probes[at++]!.outcome = BUSY.has(-sent) ? "busy" : "refused";
        continue;
      }
      // They left one after the other.
      const eachMs = (realTimeMs() - startMs) / sent;
      for (let index = 0; index < sent; index++) {
        const probe = probes[at + index]!;
        probe.outcome = "sent";
        probe.sentAtMs = startMs + index * eachMs;
      }
      at += sent;
    }
  }

  #write({ kind, to, bytes, sequence, tag }: Probe, { address, head, rest }: OutSlot): void {
    for (let index = 0; index < address.length; index++) address[index] = to[index]!;
    if (kind !== "echo" && kind !== "near") return;
    const { view } = this.#memory;
    view.setUint16(head + 6, sequence);
    view.setUint32(head + 12, tag);
    // The kernel does ICMPv6's checksum.
    if (this.#family === 4) {
      view.setUint16(head + 2, folded(this.#echoSum + sequence + (tag >>> 16) + (tag & 0xffff)));
    }
    this.#memory.setIovecLength(rest, bytes - QUOTED_IP_LEN[this.#family] - ECHO_LEN);
  }

  /** Reads all that came since the last time. Throws a LinuxError. */
  receive(listener: ProbeListener): void {
    for (;;) {
      const count = receiveMessages(
        this.#sockets.echo,
        this.#memory.pointer(this.#in[0]!.message),
        BATCH,
      );
      for (let index = 0; index < count; index++) {
        const slot = this.#in[index]!;
        this.#read(slot, listener);
        // The kernel wrote there how much it used.
        this.#memory.setMessageName(slot.message, SOCKADDR_LEN[this.#family]);
        this.#memory.setMessageControl(slot.message, CONTROL_LEN);
      }
      if (count < BATCH) return;
    }
  }

  #read({ address, head, control }: InSlot, listener: ProbeListener): void {
    const { view, words } = this.#memory;
    const family = this.#family;
    // IPv6's messages come without the IP header.
    const icmp = head + (family === 4 ? (view.getUint8(head) & 15) * 4 : 0);
    const type = view.getUint8(icmp);
    const kinds = ICMP_TYPE[family];
    if (type === kinds.request) return listener.onRequest(view.getUint32(icmp + 12), address);
    const timespec = control + CMSGHDR_LEN >> 2;
    const seconds = words[timespec + 1]! * 2 ** 32 + (words[timespec]! >>> 0);
    const atMs = seconds * 1e3 + words[timespec + 2]! / 1e6;
    if (type === kinds.reply) return listener.onAnswer(view.getUint16(icmp + 6), address, atMs);
    const quoted = icmp + ICMP_LEN + QUOTED_IP_LEN[family];
    if (type === kinds.expired) {
      return listener.onExpired(view.getUint16(quoted + 6), address, atMs);
    }
    if (view.getUint8(icmp + 1) !== PORT_UNREACHABLE[family]) return;
    const port = view.getUint16(quoted + 2);
    if (port === CLOSED_PORT.udp) listener.onClosed("udp", address, atMs);
    else if (port === CLOSED_PORT.plain) listener.onClosed("plain", address, atMs);
  }
}

function openSockets(family: Family, open: DisposableStack): Record<ProbeKind, FileDescriptor> {
  const { icmp, level, discover, hops } = PROTOCOLS[family];
  const raw = (type: number, protocol: number) => {
    const fd = open.use(socket(addressFamily(family), type | SOCK_CLOEXEC, protocol));
    attachFilter(fd, NOTHING);
    // Never in fragments, whatever the kernel believes of the path: that is to be found out.
    setsockopt(fd, level, discover, new Uint32Array([IP_PMTUDISC_PROBE]));
    return fd;
  };
  const sockets = {
    echo: raw(SOCK_RAW, icmp),
    near: raw(SOCK_RAW, icmp),
    udp: raw(SOCK_DGRAM, 0),
    plain: raw(SOCK_RAW, IPPROTO_UDP),
  };
  setsockopt(sockets.echo, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([RECEIVE_BUFFER_BYTES]));
  setsockopt(sockets.echo, SOL_SOCKET, SO_TIMESTAMPNS, new Uint32Array([1]));
  setsockopt(sockets.near, level, hops, new Uint32Array([1]));
  if (family === 6) {
    setsockopt(sockets.plain, IPPROTO_IPV6, IPV6_CHECKSUM, new Uint32Array([UDP_CHECKSUM]));
  }
  return sockets;
}

/** Binds a socket to a port that the kernel chooses, and returns it. */
function localPort(family: Family, fd: FileDescriptor): number {
  const any = socketAddress(new IpAddress(family, 0n), 0);
  bind(fd, any);
  getsockname(fd, any);
  return new DataView(any.buffer).getUint16(2);
}

/** The Internet checksum of which a sum of 16-bit words is known (RFC 1071). */
function folded(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return ~((once & 0xffff) + (once >>> 16)) & 0xffff;
}
