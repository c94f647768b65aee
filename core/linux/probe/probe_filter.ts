/**
 * Which ICMP messages reach the sockets of probes: of all that a node gets, those that answer its own probes, and other
 * nodes' probes.
 *
 * @module
 */

import type { Family } from "../../ip.ts";

/** What begins the payload of each echo request that is a probe: "dnim". */
export const PROBE_MAGIC = 0x646e696d;

/** The types of ICMP and ICMPv6 messages that matter here (RFC 792, RFC 4443). */
export const ICMP_TYPE = {
  4: { reply: 0, request: 8, unreachable: 3, expired: 11 },
  6: { reply: 129, request: 128, unreachable: 1, expired: 3 },
} as const;

/** The codes of unreachable that mean a closed port. */
export const PORT_UNREACHABLE: Readonly<Record<Family, number>> = { 4: 3, 6: 4 };

/** The length of ICMP's header, behind which an error quotes a packet. */
export const ICMP_LEN = 8;
/** The length of the quoted IP header: probes have no options. */
export const QUOTED_IP_LEN: Readonly<Record<Family, number>> = { 4: 20, 6: 40 };
/** Where the quoted header says which protocol follows. */
const QUOTED_PROTOCOL: Readonly<Record<Family, number>> = { 4: 9, 6: 6 };
/** As much of a message as is of interest, in bytes, IP options included. */
export const RECEIVED_LEN = 192;
/** As much of an echo: the rest is zeros, and long. */
const RECEIVED_ECHO_LEN = 96;
const UDP = 17;
const ICMP: Readonly<Record<Family, number>> = { 4: 1, 6: 58 };

/** One instruction of classic BPF (linux/filter.h): code, jump if true, jump if false, k. */
type Instruction = readonly [code: number, jt: number, jf: number, k: number];

/**
 * A program for a raw ICMP socket. IPv4's packets begin with the IP header, IPv6's with that of ICMPv6.
 *
 * @param id the identifier of this node's echo requests, and the source port of its UDP probes
 */
export function probeFilter(family: Family, id: number): readonly Instruction[] {
  const LDX_MSH = 0xb1, LDX_IMM = 0x01, LD_B_IND = 0x50, LD_H_IND = 0x48, LD_W_IND = 0x40;
  const JEQ = 0x15, RET = 0x06;
  const type = ICMP_TYPE[family];
  const quoted = ICMP_LEN + QUOTED_IP_LEN[family];
  return [
    // X is where the ICMP header begins.
    family === 4 ? [LDX_MSH, 0, 0, 0] : [LDX_IMM, 0, 0, 0],
    [LD_B_IND, 0, 0, 0],
    [JEQ, 4, 0, type.reply],
    [JEQ, 5, 0, type.request],
    [JEQ, 6, 0, type.unreachable],
    [JEQ, 5, 0, type.expired],
    [RET, 0, 0, 0],
    // 7: an answer bears the identifier.
    [LD_H_IND, 0, 0, 4],
    [JEQ, 10, 11, id],
    // 9: another node's probe bears the magic number.
    [LD_W_IND, 0, 0, ICMP_LEN],
    [JEQ, 8, 9, PROBE_MAGIC],
    // 11: an error quotes a probe.
    [LD_B_IND, 0, 0, ICMP_LEN + QUOTED_PROTOCOL[family]],
    [JEQ, 1, 0, UDP],
    [JEQ, 2, 6, ICMP[family]],
    // 14: UDP's source port.
    [LD_H_IND, 0, 0, quoted],
    [JEQ, 2, 4, id],
    // 16: ICMP's identifier.
    [LD_H_IND, 0, 0, quoted + 4],
    [JEQ, 0, 2, id],
    // 18: as much as may matter of an error, and of the others; 20: nothing.
    [RET, 0, 0, RECEIVED_LEN],
    [RET, 0, 0, RECEIVED_ECHO_LEN],
    [RET, 0, 0, 0],
  ];
}

/** A program that lets nothing through, for sockets that only send. */
export const NOTHING: readonly Instruction[] = [[0x06, 0, 0, 0]];
