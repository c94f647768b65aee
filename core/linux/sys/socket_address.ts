/**
 * Socket addresses in the kernel's form.
 *
 * @module
 */

import type { Family, IpAddress } from "../../ip.ts";
import { AF_UNIX } from "../uapi/socket.ts";
import { addressFamily } from "./address_family.ts";

/** The length of `struct sockaddr_in` and of `struct sockaddr_in6`, in bytes. */
export const SOCKADDR_LEN: Readonly<Record<Family, number>> = { 4: 16, 6: 28 };

/** Where the address is in them: behind the family and the port, and IPv6's flow. */
export const SOCKADDR_ADDRESS: Readonly<Record<Family, number>> = { 4: 4, 6: 8 };

/** `struct sockaddr_in` or `struct sockaddr_in6`. */
export function socketAddress(address: IpAddress, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SOCKADDR_LEN[address.family]);
  writeSocketAddress(bytes, 0, address, port);
  return bytes;
}

/** Writes what {@link socketAddress} makes, from a place of an array on. */
export function writeSocketAddress(
  bytes: Uint8Array,
  at: number,
  address: IpAddress,
  port: number,
): void {
  const { family } = address;
  bytes.fill(0, at, at + SOCKADDR_LEN[family]);
  // The kernel's constants are below 256.
  bytes[at] = addressFamily(family);
  bytes[at + 2] = port >> 8;
  bytes[at + 3] = port;
  address.writeTo(bytes, at + SOCKADDR_ADDRESS[family]);
}

/**
 * `struct sockaddr_un` (unix(7)) of a path, or of `@` and a name without a file: an abstract name begins with a zero and
 * ends with the address.
 */
export function unixAddress(path: string): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
  const bytes = new Uint8Array(2 + name.length);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return bytes;
}
