/**
 * A packet filter's rule in plain words, and its form as a program for the kernel.
 *
 * @module
 */

import { addressBits, Cidr, type Family, IpAddress } from "../../ip.ts";
import { NF_ACCEPT, NF_NAT_RANGE_PROTO_RANDOM_FULLY } from "../uapi/netfilter.ts";
import {
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_JUMP,
  NFT_META_MARK,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_RETURN,
} from "../uapi/nf_tables.ts";
import type { Expression } from "./nft_codec.ts";

/** What a packet must be like. */
export type Match =
  /** The bits of its mark under `mask` are those of `value`: iptables' `--mark VALUE/MASK`; with `not`, others. */
  | {
    readonly kind: "mark";
    readonly value: number;
    readonly mask: number;
    readonly not?: boolean;
  }
  /** Its source (`saddr`) or destination (`daddr`) lies in the network; with `not`, outside of it. */
  | { readonly kind: "saddr" | "daddr"; readonly network: Cidr; readonly not?: boolean };

/** What becomes of a packet for which all matches hold. */
export type Verdict =
  /** It passes. */
  | { readonly kind: "accept" }
  /** The rules of another chain of the table decide, and then, if they don't, this chain's next. */
  | { readonly kind: "jump"; readonly chain: string }
  /** It skips this chain's other rules. */
  | { readonly kind: "return" }
  /**
   * Its source becomes the address of the device that it leaves by. `fullyRandom` draws the port at random, so
   * that two connections begun at once don't take the same one and lose a packet.
   */
  | { readonly kind: "masquerade"; readonly fullyRandom: boolean };

/** A rule. In a chain, the first rule whose matches all hold says what becomes of the packet. */
export interface Rule {
  /** What must hold, in this order. */
  readonly matches: readonly Match[];
  /** What then becomes of the packet. */
  readonly verdict: Verdict;
  /** What the rule is for, for people who list the table; at most 127 octets. */
  readonly comment: string;
}

/** Where addresses are in the header, in bytes (RFC 791 section 3.1, RFC 8200 section 3). */
const ADDRESS_OFFSETS: Readonly<
  Record<Family, { readonly saddr: number; readonly daddr: number }>
> = { 4: { saddr: 12, daddr: 16 }, 6: { saddr: 8, daddr: 24 } };

/** The rule as the kernel's program, of the same form for each network whatever its prefix length. */
export function ruleExpressions({ matches, verdict }: Rule): Expression[] {
  return [...matches.flatMap(matchExpressions), verdictExpression(verdict)];
}

/**
 * The rule as iptables-nft(8) writes it: it prints, and removes on request, what has this form. It knows no
 * masquerading but that of its own extension, and has a counter in each rule.
 */
export function iptablesExpressions({ matches, verdict }: Rule, family: Family): Expression[] {
  return [
    ...matches.flatMap(matchExpressions),
    { name: "counter" },
    verdict.kind === "masquerade"
      ? masqueradeTarget(family, verdict.fullyRandom)
      : verdictExpression(verdict),
  ];
}

/**
 * iptables' target MASQUERADE. Its struct is nf_nat_ipv4_multi_range_compat (how many ranges; the first one's flags)
 * or nf_nat_range (flags) of linux/netfilter/nf_nat.h, in host order.
 */
function masqueradeTarget(family: Family, fullyRandom: boolean): Expression {
  const info = new DataView(new ArrayBuffer(family === 4 ? 24 : 40));
  if (family === 4) info.setUint32(0, 1, true);
  const flags = fullyRandom ? NF_NAT_RANGE_PROTO_RANDOM_FULLY : 0;
  info.setUint32(family === 4 ? 4 : 0, flags, true);
  return {
    name: "target",
    extension: "MASQUERADE",
    revision: 0,
    info: new Uint8Array(info.buffer),
  };
}

/** The rule as iptables(8) prints it behind `-A CHAIN`, and takes it. */
export function iptablesText({ matches, verdict, comment }: Rule): string {
  const words = matches.map((match) =>
    match.kind === "mark"
      ? `-m mark ${match.not ? "! " : ""}--mark 0x${match.value.toString(16)}/0x${
        match.mask.toString(16)
      }`
      : `${match.not ? "! " : ""}${match.kind === "saddr" ? "-s" : "-d"} ${match.network}`
  );
  return [...words, `-m comment --comment "${comment}"`, `-j ${targetText(verdict)}`].join(" ");
}

function targetText(verdict: Verdict): string {
  switch (verdict.kind) {
    case "jump":
      return verdict.chain;
    case "masquerade":
      return verdict.fullyRandom ? "MASQUERADE --random-fully" : "MASQUERADE";
    default:
      return verdict.kind.toUpperCase();
  }
}

function matchExpressions(match: Match): Expression[] {
  const op = match.not ? NFT_CMP_NEQ : NFT_CMP_EQ;
  if (match.kind === "mark") {
    return [
      { name: "meta", key: NFT_META_MARK },
      { name: "bitwise", mask: hostOrder(match.mask) },
      { name: "cmp", op, value: hostOrder(match.value) },
    ];
  }
  const { network } = match;
  const value = network.address.toBytes();
  return [
    {
      name: "payload",
      base: NFT_PAYLOAD_NETWORK_HEADER,
      offset: ADDRESS_OFFSETS[network.family][match.kind],
      length: value.length,
    },
    { name: "bitwise", mask: netmask(network) },
    { name: "cmp", op, value },
  ];
}

function verdictExpression(verdict: Verdict): Expression {
  switch (verdict.kind) {
    case "accept":
      return { name: "immediate", verdict: NF_ACCEPT };
    case "jump":
      return { name: "immediate", verdict: NFT_JUMP, chain: verdict.chain };
    case "return":
      return { name: "immediate", verdict: NFT_RETURN };
    case "masquerade":
      return { name: "masq", flags: verdict.fullyRandom ? NF_NAT_RANGE_PROTO_RANDOM_FULLY : 0 };
  }
}

/** The bits of an address that say its network. */
function netmask({ family, prefixLength }: Cidr): Uint8Array {
  const bits = addressBits(family);
  const hostBits = BigInt(bits - prefixLength);
  return new IpAddress(family, ((1n << BigInt(bits)) - 1n) >> hostBits << hostBits).toBytes();
}

function hostOrder(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
