/**
 * ICMP echo (RFC 792, RFC 4443): asks a host whether it is there, and measures how long the answer takes.
 *
 * @module
 */

import type { Family, IpAddress } from "../../ip.ts";
import { type FileDescriptor } from "./libc.ts";
import { pollInput } from "./poll.ts";
import { receive, send, setsockopt, socket } from "./sockets.ts";
import { socketAddress } from "./socket_address.ts";
import {
  AF_INET,
  AF_INET6,
  IP_MTU_DISCOVER,
  IP_PMTUDISC_DO,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_MTU_DISCOVER,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_RAW,
} from "../uapi/socket.ts";

/** Types and lengths of the two protocols. */
const ECHO = {
  4: { domain: AF_INET, protocol: IPPROTO_ICMP, request: 8, reply: 0 },
  6: { domain: AF_INET6, protocol: IPPROTO_ICMPV6, request: 128, reply: 129 },
} as const;
const HEADER_LEN = 8;
const MAX_PACKET_BYTES = 65_535;

/** Sends echo requests from the namespace in which it was made. Needs CAP_NET_RAW. */
export class Pinger implements Disposable {
  readonly #family: Family;
  readonly #fd: FileDescriptor;
  readonly #id = crypto.getRandomValues(new Uint16Array(1))[0]!;
  readonly #buffer = new Uint8Array(new ArrayBuffer(MAX_PACKET_BYTES));
  #sequence = 0;

  /** Opens a socket for one family. */
  constructor(family: Family) {
    this.#family = family;
    const { domain, protocol } = ECHO[family];
    using undo = new DisposableStack();
    this.#fd = undo.use(socket(domain, SOCK_RAW | SOCK_CLOEXEC, protocol));
    const [level, option] = family === 4
      ? [IPPROTO_IP, IP_MTU_DISCOVER]
      : [IPPROTO_IPV6, IPV6_MTU_DISCOVER];
    // Never in fragments: tests ask for the largest packet that gets through.
    setsockopt(this.#fd, level, option, new Uint32Array([IP_PMTUDISC_DO]));
    undo.move();
  }

  /** The identifier in its requests, by which a capture tells them from others. */
  get id(): number {
    return this.#id;
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }

  /**
   * Sends one request and waits for its reply, on this thread. `payloadBytes` comes on top of the 8 bytes of ICMP's
   * header and those of IP's. Throws a LinuxError if the packet can't be sent at all, such as EMSGSIZE.
   *
   * @returns the time from request to reply, in ms; `undefined` if none came in time
   */
  ping(address: IpAddress, timeoutMs: number, payloadBytes = 56): number | undefined {
    const sequence = ++this.#sequence & 0xffff;
    const packet = new Uint8Array(HEADER_LEN + payloadBytes);
    const view = new DataView(packet.buffer);
    view.setUint8(0, ECHO[this.#family].request);
    view.setUint16(4, this.#id);
    view.setUint16(6, sequence);
    for (let index = HEADER_LEN; index < packet.length; index++) packet[index] = index & 255;
    // The kernel fills in ICMPv6's checksum, which covers the addresses as well.
    if (this.#family === 4) view.setUint16(2, internetChecksum(packet));
    const startMs = performance.now();
    send(this.#fd, packet, packet.length, socketAddress(address, 0));
    for (;;) {
      const leftMs = startMs + timeoutMs - performance.now();
      // A thread that stood still looks once more: the reply may have come in time.
      if (!pollInput(this.#fd, Math.max(Math.ceil(leftMs), 0))) return undefined;
      const length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
      if (this.#isReply(length, sequence)) return performance.now() - startMs;
    }
  }

  #isReply(length: number, sequence: number): boolean {
    // IPv4's raw sockets deliver the IP header as well.
    const start = this.#family === 4 ? (this.#buffer[0]! & 15) * 4 : 0;
    if (length < start + HEADER_LEN) return false;
    const view = new DataView(this.#buffer.buffer, start);
    return view.getUint8(0) === ECHO[this.#family].reply && view.getUint16(4) === this.#id &&
      view.getUint16(6) === sequence;
  }
}

/** The Internet checksum (RFC 1071). */
function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let index = 0; index < bytes.length; index += 2) {
    sum += (bytes[index]! << 8) | (bytes[index + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
