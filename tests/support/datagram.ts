/**
 * UDP datagrams that are sent as a program would, and found among what a device received.
 *
 * @module
 */

import { IpAddress } from "@denim/core";
import { bind, send, setsockopt, socket } from "../../core/linux/sys/sockets.ts";
import { addressFamily } from "../../core/linux/sys/address_family.ts";
import { socketAddress } from "../../core/linux/sys/socket_address.ts";
import { SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET } from "../../core/linux/uapi/socket.ts";

/** Sends a UDP datagram from an address of this thread's namespace, by a device if one is named. */
export function sendDatagram(from: string, to: string, port: number, device?: string): void {
  const [source, destination] = [IpAddress.parse(from), IpAddress.parse(to)];
  using fd = socket(addressFamily(source.family), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const SO_BINDTODEVICE = 25;
  if (device !== undefined) {
    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, new TextEncoder().encode(device));
  }
  bind(fd, socketAddress(source, 0));
  send(fd, new Uint8Array([1]), 1, socketAddress(destination, port));
}

/** The sources of the UDP datagrams to a port among Ethernet frames. */
export function sourcesOf(frames: readonly Uint8Array[], port: number): string[] {
  return frames.flatMap((frame) => {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const [family, header, next, from] = view.getUint16(12) === 0x0800
      ? [4, 20, 9, 12] as const
      : [6, 40, 6, 8] as const;
    const UDP = 17;
    if (frame.length < 14 + header + 8 || frame[14 + next] !== UDP) return [];
    if (view.getUint16(14 + header + 2) !== port) return [];
    const octets = frame.subarray(14 + from, 14 + from + (family === 4 ? 4 : 16));
    return [`${new IpAddress(family, BigInt(`0x${octets.toHex()}`))}`];
  });
}
