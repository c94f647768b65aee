/**
 * Where things are in the headers of IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293), UDP (RFC 768) and
 * ICMP (RFC 792, RFC 4443), and their numbers.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";

// deno-fmt-ignore-file
export const IPV4_LEN = 20;
export const IPV4_TOS = 1, IPV4_TOTAL = 2, IPV4_ID = 4, IPV4_FRAGMENT = 6, IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9, IPV4_CHECKSUM = 10, IPV4_SOURCE = 12, IPV4_DESTINATION = 16;
/** Bits of the word at IPV4_FRAGMENT: don't fragment, more fragments follow, the fragment's offset. */
export const IPV4_DF = 0x4000, IPV4_MF = 0x2000, IPV4_OFFSET = 0x1fff;

export const IPV6_LEN = 40;
export const IPV6_PAYLOAD = 4, IPV6_NEXT = 6, IPV6_HOPS = 7, IPV6_SOURCE = 8, IPV6_DESTINATION = 24;

export const ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58;
export const HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION_OPTIONS = 60;

export const TCP_LEN = 20;
export const TCP_SEQUENCE = 4,
  TCP_ACKNOWLEDGEMENT = 8,
  TCP_OFFSET = 12,
  TCP_FLAGS = 13,
  TCP_CHECKSUM = 16;
export const TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_ECE = 0x40, TCP_CWR = 0x80;

export const UDP_LEN = 8;
export const UDP_LENGTH = 4, UDP_CHECKSUM = 6;

export const ICMP_LEN = 8;

/** What the tunnel adds to a packet, in bytes: the outer IP header and UDP's. */
export const OVERHEAD_BYTES: Readonly<Record<Family, number>> = {
  4: IPV4_LEN + UDP_LEN,
  6: IPV6_LEN + UDP_LEN,
};

/** The family of what stands at an offset; 0 if it is not an IP packet, or its IP header is not all there. */
export function familyOf(bytes: Uint8Array, offset: number, byteLength: number): Family | 0 {
  const version = byteLength > 0 ? bytes[offset]! >> 4 : 0;
  if (version === 4 && byteLength >= IPV4_LEN) return 4;
  if (version === 6 && byteLength >= IPV6_LEN) return 6;
  return 0;
}

/** The length of a packet's IP header, in bytes, as the packet says. */
export function headerBytes(family: Family, bytes: Uint8Array, offset: number): number {
  return family === 4 ? (bytes[offset]! & 15) * 4 : IPV6_LEN;
}

/** Where a packet's source is, from its start. */
export function sourceOffset(family: Family): number {
  return family === 4 ? IPV4_SOURCE : IPV6_SOURCE;
}

/** Where a packet's destination is, from its start. */
export function destinationOffset(family: Family): number {
  return family === 4 ? IPV4_DESTINATION : IPV6_DESTINATION;
}
