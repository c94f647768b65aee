/**
 * ICMP errors about packets that can't be passed on (RFC 792, RFC 1812 section 4.3; ICMPv6: RFC 4443): when a node may
 * send one, and how often.
 *
 * @module
 */

import { type Family, MIN_MTU_BYTES } from "@denim/core/ip";
import type { PacketMemory } from "@denim/core/linux/packet-memory";
import { complement, sumBytes } from "./checksum.ts";
import {
  DESTINATION_OPTIONS,
  FRAGMENT,
  HOP_BY_HOP,
  ICMP,
  ICMP_LEN,
  ICMPV6,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_LEN,
  IPV4_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL,
  IPV4_TTL,
  IPV6_DESTINATION,
  IPV6_HOPS,
  IPV6_LEN,
  IPV6_NEXT,
  IPV6_PAYLOAD,
  IPV6_SOURCE,
  ROUTING,
  sourceOffset,
} from "./ip.ts";
import type { PeerMap } from "./peer_map.ts";

/** What is wrong with a packet. */
export type IcmpProblem = "expired" | "unreachable" | "tooBig";

/** Type and code of each. */
const KINDS: Readonly<Record<Family, Readonly<Record<IcmpProblem, readonly [number, number]>>>> = {
  4: { expired: [11, 0], unreachable: [3, 0], tooBig: [3, 4] },
  6: { expired: [3, 0], unreachable: [1, 0], tooBig: [2, 0] },
};

/** The longest error: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c). */
const MAX_BYTES: Readonly<Record<Family, number>> = { 4: 576, 6: MIN_MTU_BYTES[6] };
/** Room for one. */
export const ICMP_ERROR_ROOM: number = MAX_BYTES[6];

const TTL = 64;
/** The precedence of internetwork control (RFC 1812 section 4.3.2.5). */
const TOS = 0xc0;

/**
 * Whether this node may send an error about a packet: not about an ICMP error or a fragment but the first, and only if
 * the source is one host in this node's subnet. Other hosts' packets do not leave by this node.
 *
 * @param byteLength how much of the packet there is; its IP header at least
 */
export function mayReport(
  memory: PacketMemory,
  peers: PeerMap,
  family: Family,
  offset: number,
  byteLength: number,
): boolean {
  const { view, bytes } = memory;
  if (!peers.isOwn(family, view, offset + sourceOffset(family))) return false;
  if (family === 4) {
    if (peers.isOwnBroadcast(view.getInt32(offset + IPV4_SOURCE))) return false;
    if ((view.getUint16(offset + IPV4_FRAGMENT) & IPV4_OFFSET) !== 0) return false;
    if (bytes[offset + IPV4_PROTOCOL] !== ICMP) return true;
    const start = (bytes[offset]! & 15) * 4;
    if (start >= byteLength) return false;
    const type = bytes[offset + start]!;
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    return type !== 3 && type !== 4 && type !== 5 && type !== 11 && type !== 12;
  }
  let next = bytes[offset + IPV6_NEXT]!;
  for (let at = IPV6_LEN;;) {
    if (next === ICMPV6) {
      // Errors have types below 128; a redirect is one of neighbours' own (RFC 4443 section 2.4 (e)).
      const type = bytes[offset + at]!;
      return at < byteLength && type >= 128 && type !== 137;
    }
    const extension = next === HOP_BY_HOP || next === ROUTING || next === DESTINATION_OPTIONS ||
      next === FRAGMENT;
    if (!extension) return true;
    if (at + 8 > byteLength) return false;
    if (next === FRAGMENT && (view.getUint16(offset + at + 2) & 0xfff8) !== 0) return false;
    const length = next === FRAGMENT ? 8 : 8 * (bytes[offset + at + 1]! + 1);
    next = bytes[offset + at]!;
    at += length;
  }
}

/**
 * Writes an error about a packet, IP header and all, from this node's address to the packet's source.
 *
 * @param at where it is written; there is {@link ICMP_ERROR_ROOM}
 * @param offset where the packet is
 * @param byteLength how much of it there is
 * @param mtuBytes for "tooBig": how large a packet may be
 * @returns the error's length, in bytes
 */
export function writeIcmpError(
  memory: PacketMemory,
  peers: PeerMap,
  family: Family,
  problem: IcmpProblem,
  at: number,
  offset: number,
  byteLength: number,
  mtuBytes: number,
): number {
  const { view, bytes } = memory;
  const header = family === 4 ? IPV4_LEN : IPV6_LEN;
  const quoted = Math.min(byteLength, MAX_BYTES[family] - header - ICMP_LEN);
  const total = header + ICMP_LEN + quoted;
  bytes.fill(0, at, at + header + ICMP_LEN);
  const [type, code] = KINDS[family][problem];
  const icmp = at + header;
  view.setUint8(icmp, type);
  view.setUint8(icmp + 1, code);
  if (problem === "tooBig") {
    // IPv4 has it in the lower half (RFC 1191 section 4).
    view.setUint32(icmp + 4, mtuBytes);
  }
  bytes.copyWithin(icmp + ICMP_LEN, offset, offset + quoted);
  if (family === 4) {
    view.setUint8(at, 0x45);
    view.setUint8(at + IPV4_TOS, TOS);
    view.setUint16(at + IPV4_TOTAL, total);
    view.setUint8(at + IPV4_TTL, TTL);
    view.setUint8(at + IPV4_PROTOCOL, ICMP);
    view.setInt32(at + IPV4_SOURCE, peers.ownWord(4, 0));
    view.setInt32(at + IPV4_DESTINATION, view.getInt32(offset + IPV4_SOURCE));
    view.setUint16(at + IPV4_CHECKSUM, complement(sumBytes(memory, at, IPV4_LEN), false));
    const sum = sumBytes(memory, icmp, ICMP_LEN + quoted);
    view.setUint16(icmp + 2, complement(sum, false));
    return total;
  }
  view.setUint32(at, 0x6000_0000);
  view.setUint16(at + IPV6_PAYLOAD, ICMP_LEN + quoted);
  view.setUint8(at + IPV6_NEXT, ICMPV6);
  view.setUint8(at + IPV6_HOPS, TTL);
  for (let index = 0; index < 4; index++) {
    view.setInt32(at + IPV6_SOURCE + 4 * index, peers.ownWord(6, index));
  }
  bytes.copyWithin(at + IPV6_DESTINATION, offset + IPV6_SOURCE, offset + IPV6_SOURCE + 16);
  // Both addresses, and the pseudo header's length and protocol, are in the sum (RFC 8200 section 8.1).
  const sum = sumBytes(memory, at + IPV6_SOURCE, 32 + ICMP_LEN + quoted) + ICMP_LEN + quoted +
    ICMPV6;
  view.setUint16(icmp + 2, complement(sum, false));
  return total;
}

/** How many errors a node sends at once, and in a second: Linux's icmp_msgs_burst and icmp_msgs_per_sec. */
const BURST = 50, PER_SECOND = 1000;
/** The share of these that one pod may use up. */
const POD_SHARE = 0.2;
const PODS = 256;

/** Limits how often errors are sent, by the node and to one pod, so that one pod can't use up what all have. */
export class IcmpRate {
  /** The node's tokens, then those of each pod by a hash of its address. */
  readonly #tokens = new Float64Array(1 + PODS).fill(BURST * POD_SHARE);
  readonly #atMs = new Float64Array(1 + PODS);

  /** Full of tokens. */
  constructor() {
    this.#tokens[0] = BURST;
  }

  /**
   * Takes a token for an error.
   *
   * @param source the last word of the address of the pod that the error goes to
   * @returns whether there was one: only then the error may be sent
   */
  take(source: number, nowMs: number): boolean {
    const pod = 1 + ((source ^ (source >>> 8)) & (PODS - 1));
    if (this.#refill(pod, POD_SHARE, nowMs) < 1 || this.#refill(0, 1, nowMs) < 1) return false;
    this.#tokens[pod]!--;
    this.#tokens[0]!--;
    return true;
  }

  #refill(index: number, share: number, nowMs: number): number {
    const more = (nowMs - this.#atMs[index]!) / 1000 * PER_SECOND * share;
    this.#atMs[index] = nowMs;
    return this.#tokens[index] = Math.min(BURST * share, this.#tokens[index]! + more);
  }
}
