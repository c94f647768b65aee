/**
 * IP families as the kernel's numbers.
 *
 * @module
 */

import { addressBits, type Family, type IpAddress } from "../../ip.ts";
import { AF_INET, AF_INET6 } from "../uapi/socket.ts";

/** linux/socket.h's number for a family. */
export function addressFamily(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

/** The prefix length of a single host. */
export function hostPrefix(address: IpAddress): number {
  return addressBits(address.family);
}
