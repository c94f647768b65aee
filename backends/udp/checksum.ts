/**
 * The Internet checksum (RFC 1071): sums of 16-bit numbers in network order with the carry brought round.
 *
 * @module
 */

import type { PacketMemory } from "@denim/core/linux/packet-memory";

/** Brings the carries of a sum round, so that it has 16 bits again. */
export function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** The sum, folded, of `byteLength` bytes from `offset`; an odd last byte counts as if a zero followed. */
export function sumBytes(memory: PacketMemory, offset: number, byteLength: number): number {
  const { bytes, halves, words } = memory;
  const end = offset + byteLength;
  let at = offset;
  // The numbers are read in host order, and turned at the end: the sum is the same either way round (RFC
  // 1071 section 2.B). From an odd offset they come already turned, but for the byte before them.
  const odd = (at & 1) !== 0 && at < end;
  let low = odd ? bytes[at++]! << 8 : 0;
  if ((at & 2) !== 0 && at + 2 <= end) {
    low += halves[at >> 1]!;
    at += 2;
  }
  let high = 0;
  // 64 KiB are 16,384 words: neither sum grows out of 31 bits.
  const last = end >> 2;
  let word = at >> 2;
  for (; word + 4 <= last; word += 4) {
    const a = words[word]!, b = words[word + 1]!, c = words[word + 2]!, d = words[word + 3]!;
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
  }
  for (; word < last; word++) {
    low += words[word]! & 0xffff;
    high += words[word]! >>> 16;
  }
  at = Math.max(at, word << 2);
  if (at + 2 <= end) {
    low += halves[at >> 1]!;
    at += 2;
  }
  if (at < end) low += bytes[at]!;
  const sum = fold(fold(low) + fold(high));
  return odd ? sum : (sum >>> 8) | ((sum & 0xff) << 8);
}

/** The sum, folded, of a few 32-bit numbers in network order, such as a header's. */
export function sumHeader(memory: PacketMemory, offset: number, byteLength: number): number {
  const { view } = memory;
  let sum = 0;
  for (let at = offset; at < offset + byteLength; at += 4) {
    const word = view.getInt32(at);
    sum += (word >>> 16) + (word & 0xffff);
  }
  return fold(sum);
}

/** The checksum of a UDP datagram or TCP segment from its sum: UDP has no zero (RFC 768). */
export function complement(sum: number, udp: boolean): number {
  const checksum = ~fold(sum) & 0xffff;
  return udp && checksum === 0 ? 0xffff : checksum;
}
