/**
 * UDP sockets for a tunnel (udp(7), ip(7)): large buffers, segmentation offloads, path MTU.
 *
 * @module
 */

import type { Family, IpAddress } from "../../ip.ts";
import { FileDescriptor } from "../sys/libc.ts";
import {
  EACCES,
  EADDRINUSE,
  EADDRNOTAVAIL,
  EHOSTUNREACH,
  EINVAL,
  ENETDOWN,
  ENETUNREACH,
  LinuxError,
} from "../sys/linux_error.ts";
import { bind, connect, getsockopt, send, setsockopt, socket } from "../sys/sockets.ts";
import { addressFamily } from "../sys/address_family.ts";
import { socketAddress } from "../sys/socket_address.ts";
import {
  IP_MTU,
  IP_MTU_DISCOVER,
  IP_PMTUDISC_DO,
  IP_PMTUDISC_WANT,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_RAW,
  IPV6_MTU,
  IPV6_MTU_DISCOVER,
  IPV6_V6ONLY,
  SO_RCVBUFFORCE,
  SO_REUSEPORT,
  SO_SNDBUFFORCE,
  SO_SNDTIMEO,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_RAW,
  SOL_SOCKET,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from "../uapi/socket.ts";

/** Room for what arrives while the reader's thread has no processor. */
const RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024;
/** Room for what a slow device has yet to send; more than ARP holds back for one silent neighbour. */
const SEND_BUFFER_BYTES = 4 * 1024 * 1024;
/** How long a full send buffer keeps a sender at the most. */
const SEND_TIMEOUT_US = 100_000n;

/** What the kernel does for datagrams in series. */
export interface UdpOffloads {
  /** Whether one call may send many datagrams (`UDP_SEGMENT`, since Linux 4.18). */
  readonly segment: boolean;
  /** Whether one call may receive many (`UDP_GRO`, since Linux 5.0). */
  readonly gro: boolean;
}

/** A socket of a tunnel, and what the kernel does for it. */
export interface TunnelSocket extends Disposable {
  /** What is sent and received through. */
  readonly descriptor: FileDescriptor;
  /** Which addresses it speaks with. */
  readonly family: Family;
  /** What the kernel was found to do. */
  readonly offloads: UdpOffloads;
}

/**
 * Opens sockets on one address and port, in this thread's network namespace. Their datagrams are not fragmented: sending
 * one that is too large for the path fails with EMSGSIZE. The kernel distributes what arrives among the sockets by
 * sender. Throws a LinuxError, with EADDRINUSE if any other socket has the port.
 */
export function openTunnelSockets(
  address: IpAddress,
  port: number,
  count: number,
  offloads: boolean,
): TunnelSocket[] {
  const sockets: TunnelSocket[] = [];
  try {
    while (sockets.length < count) {
      sockets.push(openOne(address, port, sockets.length > 0, offloads));
    }
    return sockets;
  } catch (error) {
    for (const opened of sockets) opened[Symbol.dispose]();
    throw error;
  }
}

function openOne(
  address: IpAddress,
  port: number,
  shared: boolean,
  offloads: boolean,
): TunnelSocket {
  const { family } = address;
  const descriptor = socket(addressFamily(family), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  try {
    const on = new Uint32Array([1]);
    if (shared) setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, on);
    if (family === 6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, on);
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([RECEIVE_BUFFER_BYTES]));
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, new Uint32Array([SEND_BUFFER_BYTES]));
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, new BigInt64Array([0n, SEND_TIMEOUT_US]));
    forbidFragments(descriptor.fd, family, true);
    bindTo(descriptor, address, port);
    // After the first is bound, so that no stranger's socket has the port too.
    if (!shared) setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, on);
    return {
      descriptor,
      family,
      offloads: {
        segment: offloads && accepts(descriptor, UDP_SEGMENT, 0),
        gro: offloads && accepts(descriptor, UDP_GRO, 1),
      },
      [Symbol.dispose]: () => descriptor[Symbol.dispose](),
    };
  } catch (error) {
    descriptor[Symbol.dispose]();
    throw error;
  }
}

function bindTo(descriptor: FileDescriptor, address: IpAddress, port: number): void {
  try {
    bind(descriptor, socketAddress(address, port));
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    const hint = error.errno === EADDRINUSE
      ? "another program has the port; stop it (flanneld?), or choose another"
      : error.errno === EADDRNOTAVAIL
      ? "no device has the address"
      : undefined;
    throw new LinuxError(error.errno, `bind UDP port ${port} of ${address}`, hint);
  }
}

function accepts(descriptor: FileDescriptor, option: number, value: number): boolean {
  try {
    setsockopt(descriptor, SOL_UDP, option, new Uint32Array([value]));
    return true;
  } catch (error) {
    if (error instanceof LinuxError) return false;
    throw error;
  }
}

/**
 * Says whether datagrams that are too large for the path fail (EMSGSIZE), or travel in fragments.
 *
 * @param fd the socket's number: another thread may have opened it
 */
export function forbidFragments(fd: number, family: Family, forbid: boolean): void {
  const [level, option] = family === 4
    ? [IPPROTO_IP, IP_MTU_DISCOVER]
    : [IPPROTO_IPV6, IPV6_MTU_DISCOVER];
  const value = forbid ? IP_PMTUDISC_DO : IP_PMTUDISC_WANT;
  setsockopt(new FileDescriptor(fd), level, option, new Uint32Array([value]));
}

/** Any port will do to ask for a route: RFC 863's, which discards what it gets. Nothing is sent. */
const DISCARD_PORT = 9;

/**
 * The largest packet that reaches an address, in bytes, as far as the kernel knows; `undefined` if it has no route to
 * the address.
 */
export function pathMtuBytes(address: IpAddress): number | undefined {
  const { family } = address;
  using probe = socket(addressFamily(family), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  try {
    connect(probe, socketAddress(address, DISCARD_PORT));
  } catch (error) {
    if (error instanceof LinuxError && NO_ROUTE.has(error.errno)) return undefined;
    throw error;
  }
  return family === 4
    ? getsockopt(probe, IPPROTO_IP, IP_MTU)
    : getsockopt(probe, IPPROTO_IPV6, IPV6_MTU);
}

const NO_ROUTE: ReadonlySet<number> = new Set([
  EACCES, // a route of type prohibit
  EADDRNOTAVAIL, // no address to send from
  EHOSTUNREACH,
  EINVAL, // a route of type blackhole
  ENETDOWN,
  ENETUNREACH,
]);

/** Opens a socket that sends whole IP packets, header included, and receives none. Needs CAP_NET_RAW. */
export function openRawSocket(family: Family): FileDescriptor {
  return socket(addressFamily(family), SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
}

/**
 * Sends a whole IP packet to a host. Returns false if the kernel refuses.
 *
 * @param fd the number of a socket of {@link openRawSocket}, which another thread may have opened
 */
export function sendRaw(fd: number, packet: Uint8Array<ArrayBuffer>, address: IpAddress): boolean {
  try {
    send(new FileDescriptor(fd), packet, packet.length, socketAddress(address, 0));
    return true;
  } catch (error) {
    if (error instanceof LinuxError) return false;
    throw error;
  }
}
