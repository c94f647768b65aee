/**
 * Socket addresses in the kernel's form.
 *
 * @module
 */

import type { IpAddress } from "../../ip.ts";
import { addressFamily } from "./address_family.ts";

/** The length of `struct sockaddr_in` and of `struct sockaddr_in6`, in bytes. */
export const SOCKADDR_IN_LEN = 16, SOCKADDR_IN6_LEN = 28;

/** `struct sockaddr_in` or `struct sockaddr_in6`. */
export function socketAddress(address: IpAddress, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(address.family === 4 ? SOCKADDR_IN_LEN : SOCKADDR_IN6_LEN);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, addressFamily(address.family), true);
  view.setUint16(2, port);
  bytes.set(address.toBytes(), address.family === 4 ? 4 : 8);
  return bytes;
}
