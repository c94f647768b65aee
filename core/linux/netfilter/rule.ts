/**
 * A packet filter's rule in plain words, and its form as a program for the kernel.
 *
 * @module
 */

import { addressBits, Cidr, type Family, IpAddress } from "../../ip.ts";
import { NF_NAT_RANGE_PROTO_RANDOM_FULLY } from "../uapi/netfilter.ts";
import {
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
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
