/**
 * The expressions that nftables rules are made of, as bytes: a rule is a short program of the kernel's, whose
 * steps load a value into a register, compare it, and end with a verdict (nft(8); nf_tables.h). Numbers of the
 * frame are in network order; what a register holds is in the packet's order, or for a mark the host's.
 *
 * @module
 */

import { attributesOf, type MessageWriter } from "../netlink/netlink_codec.ts";
import {
  NFT_BITWISE_MASK_XOR,
  NFT_CMP_EQ,
  NFT_REG_1,
  NFT_REG_VERDICT,
  NFTA_BITWISE_DREG,
  NFTA_BITWISE_LEN,
  NFTA_BITWISE_MASK,
  NFTA_BITWISE_OP,
  NFTA_BITWISE_SREG,
  NFTA_BITWISE_XOR,
  NFTA_CMP_DATA,
  NFTA_CMP_OP,
  NFTA_CMP_SREG,
  NFTA_COUNTER_BYTES,
  NFTA_COUNTER_PACKETS,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_EXPR_DATA,
  NFTA_EXPR_NAME,
  NFTA_IMMEDIATE_DATA,
  NFTA_IMMEDIATE_DREG,
  NFTA_LIST_ELEM,
  NFTA_MASQ_FLAGS,
  NFTA_MASQ_REG_PROTO_MAX,
  NFTA_MASQ_REG_PROTO_MIN,
  NFTA_META_DREG,
  NFTA_META_KEY,
  NFTA_PAYLOAD_BASE,
  NFTA_PAYLOAD_DREG,
  NFTA_PAYLOAD_LEN,
  NFTA_PAYLOAD_OFFSET,
  NFTA_TARGET_INFO,
  NFTA_TARGET_NAME,
  NFTA_TARGET_REV,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
} from "../uapi/nf_tables.ts";

/**
 * One step of a rule. denim's rules need one register, `NFT_REG_1`, so no step names it. "other" is what a
 * rule of denim's never has: another kind of step, or one with another register or more to it.
 */
export type Expression =
  /** Loads `length` bytes of the packet, from `offset` in the header `base` (`NFT_PAYLOAD_…`). */
  | {
    readonly name: "payload";
    readonly base: number;
    readonly offset: number;
    readonly length: number;
  }
  /** Loads what the kernel knows of the packet: `NFT_META_MARK`, four bytes in host order. */
  | { readonly name: "meta"; readonly key: number }
  /** Keeps the bits of the register that the mask has. */
  | { readonly name: "bitwise"; readonly mask: Uint8Array }
  /** Goes on with the next rule unless the register compares so (`NFT_CMP_…`) with the value. */
  | { readonly name: "cmp"; readonly op: number; readonly value: Uint8Array }
  /** Ends the rule with a verdict: `NF_ACCEPT`, `NFT_RETURN`, or `NFT_JUMP` to a chain of the table. */
  | { readonly name: "immediate"; readonly verdict: number; readonly chain?: string }
  /** Counts the packets that get here; from what number on, and how many they are, says nobody. */
  | { readonly name: "counter" }
  /** Gives the packet the address of the device that it leaves by (`NF_NAT_RANGE_PROTO_…`). */
  | { readonly name: "masq"; readonly flags: number }
  /** Asks an extension of iptables' (`comment`) whether the packet fits, or has one (`MASQUERADE`) decide. */
  | {
    readonly name: "match" | "target";
    readonly extension: string;
    readonly revision: number;
    /** The extension's own struct, with zeroes up to a multiple of eight octets. */
    readonly info: Uint8Array;
  }
  | { readonly name: "other"; readonly kernelName: string };

const decoder = new TextDecoder();

/** A number in the four bytes that nftables' attributes have it in; negative ones too. */
export function be32(value: number): Uint8Array {
  return new Uint8Array([value >>> 24, value >>> 16, value >>> 8, value]);
}

/** Reads a number of four bytes in network order, signed as verdicts and priorities are. */
export function fromBe32(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getInt32(0);
}

/** Writes a rule's steps, in an attribute of this type. */
export function writeExpressions(
  writer: MessageWriter,
  type: number,
  expressions: readonly Expression[],
): void {
  writer.nested(type, () => {
    for (const expression of expressions) {
      writer.nested(NFTA_LIST_ELEM, () => {
        writer.stringAttribute(NFTA_EXPR_NAME, expression.name);
        writer.nested(NFTA_EXPR_DATA, () => writeData(writer, expression));
      });
    }
  });
}

function writeData(writer: MessageWriter, expression: Expression): void {
  const number = (type: number, value: number) => writer.bytesAttribute(type, be32(value));
  const data = (type: number, value: Uint8Array) =>
    writer.nested(type, () => writer.bytesAttribute(NFTA_DATA_VALUE, value));
  switch (expression.name) {
    case "payload":
      number(NFTA_PAYLOAD_DREG, NFT_REG_1);
      number(NFTA_PAYLOAD_BASE, expression.base);
      number(NFTA_PAYLOAD_OFFSET, expression.offset);
      number(NFTA_PAYLOAD_LEN, expression.length);
      return;
    case "meta":
      number(NFTA_META_DREG, NFT_REG_1);
      number(NFTA_META_KEY, expression.key);
      return;
    case "bitwise":
      number(NFTA_BITWISE_SREG, NFT_REG_1);
      number(NFTA_BITWISE_DREG, NFT_REG_1);
      number(NFTA_BITWISE_LEN, expression.mask.length);
      number(NFTA_BITWISE_OP, NFT_BITWISE_MASK_XOR);
      data(NFTA_BITWISE_MASK, expression.mask);
      data(NFTA_BITWISE_XOR, new Uint8Array(expression.mask.length));
      return;
    case "cmp":
      number(NFTA_CMP_SREG, NFT_REG_1);
      number(NFTA_CMP_OP, expression.op);
      data(NFTA_CMP_DATA, expression.value);
      return;
    case "immediate":
      number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
      writer.nested(NFTA_IMMEDIATE_DATA, () => {
        writer.nested(
          NFTA_DATA_VERDICT,
          () => {
            number(NFTA_VERDICT_CODE, expression.verdict);
            if (expression.chain !== undefined) {
              writer.stringAttribute(NFTA_VERDICT_CHAIN, expression.chain);
            }
          },
        );
      });
      return;
    case "counter":
      writer.bytesAttribute(NFTA_COUNTER_BYTES, new Uint8Array(8));
      writer.bytesAttribute(NFTA_COUNTER_PACKETS, new Uint8Array(8));
      return;
    case "masq":
      number(NFTA_MASQ_FLAGS, expression.flags);
      return;
    case "match":
    case "target":
      // Both have the same attributes (nf_tables_compat.h).
      writer.stringAttribute(NFTA_TARGET_NAME, expression.extension);
      number(NFTA_TARGET_REV, expression.revision);
      writer.bytesAttribute(NFTA_TARGET_INFO, expression.info);
      return;
    case "other":
      throw new TypeError(`nftables: can't write the expression ${expression.kernelName}`);
  }
}

/** Reads the steps of a rule (the value of `NFTA_RULE_EXPRESSIONS`). */
export function readExpressions(bytes: Uint8Array): Expression[] {
  return [...attributesOf(bytes)].map(([, element]) => {
    const attributes = new Map(attributesOf(element));
    const name = textOf(attributes.get(NFTA_EXPR_NAME));
    const data = attributes.get(NFTA_EXPR_DATA) ?? new Uint8Array();
    return readData(name, data) ?? { name: "other", kernelName: name };
  });
}

/** A text of the kernel's, up to the zero that ends it. */
export function textOf(bytes: Uint8Array | undefined): string {
  return decoder.decode(bytes).split("\0", 1)[0]!;
}

/**
 * Attributes that a later kernel may add, with what it does by default, are passed over: else denim would
 * write its rules again and again there.
 */
function readData(name: string, bytes: Uint8Array): Expression | undefined {
  const attributes = new Map(attributesOf(bytes));
  const number = (type: number) => {
    const value = attributes.get(type);
    return value === undefined ? undefined : fromBe32(value);
  };
  const data = (type: number, kind: number) =>
    new Map(attributesOf(attributes.get(type) ?? new Uint8Array())).get(kind);
  switch (name) {
    case "payload": {
      const base = number(NFTA_PAYLOAD_BASE), offset = number(NFTA_PAYLOAD_OFFSET);
      const length = number(NFTA_PAYLOAD_LEN);
      if (number(NFTA_PAYLOAD_DREG) !== NFT_REG_1) return undefined;
      if (base === undefined || offset === undefined || length === undefined) return undefined;
      return { name, base, offset, length };
    }
    case "meta": {
      const key = number(NFTA_META_KEY);
      if (number(NFTA_META_DREG) !== NFT_REG_1 || key === undefined) return undefined;
      return { name, key };
    }
    case "bitwise": {
      const mask = data(NFTA_BITWISE_MASK, NFTA_DATA_VALUE);
      const xor = data(NFTA_BITWISE_XOR, NFTA_DATA_VALUE);
      if (
        number(NFTA_BITWISE_SREG) !== NFT_REG_1 || number(NFTA_BITWISE_DREG) !== NFT_REG_1 ||
        number(NFTA_BITWISE_OP) !== NFT_BITWISE_MASK_XOR ||
        mask === undefined || xor === undefined || xor.some((byte) => byte !== 0)
      ) return undefined;
      return { name, mask: mask.slice() };
    }
    case "cmp": {
      const op = number(NFTA_CMP_OP), value = data(NFTA_CMP_DATA, NFTA_DATA_VALUE);
      if (number(NFTA_CMP_SREG) !== NFT_REG_1 || op === undefined || value === undefined) {
        return undefined;
      }
      return { name, op, value: value.slice() };
    }
    case "immediate": {
      const inner = new Map(
        attributesOf(data(NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT) ?? new Uint8Array()),
      );
      const verdict = inner.get(NFTA_VERDICT_CODE), chain = inner.get(NFTA_VERDICT_CHAIN);
      if (number(NFTA_IMMEDIATE_DREG) !== NFT_REG_VERDICT || verdict === undefined) {
        return undefined;
      }
      return { name, verdict: fromBe32(verdict), ...chain && { chain: textOf(chain) } };
    }
    case "counter":
      return { name };
    case "match":
    case "target": {
      const revision = number(NFTA_TARGET_REV) ?? 0;
      const info = attributes.get(NFTA_TARGET_INFO)?.slice() ?? new Uint8Array();
      return { name, extension: textOf(attributes.get(NFTA_TARGET_NAME)), revision, info };
    }
    case "masq":
      if (attributes.has(NFTA_MASQ_REG_PROTO_MIN) || attributes.has(NFTA_MASQ_REG_PROTO_MAX)) {
        return undefined;
      }
      return { name, flags: number(NFTA_MASQ_FLAGS) ?? 0 };
  }
  return undefined;
}

/** A step as `nft --debug=netlink` prints it: `cmp eq reg 1 0x0a05`, but with its bytes in order. */
export function expressionText(expression: Expression): string {
  switch (expression.name) {
    case "payload":
      return `payload load ${expression.length}b @ header ${expression.base} + ` +
        `${expression.offset} => reg 1`;
    case "meta":
      return `meta load ${expression.key} => reg 1`;
    case "bitwise":
      return `bitwise reg 1 = reg 1 & 0x${expression.mask.toHex()}`;
    case "cmp":
      return `cmp ${expression.op === NFT_CMP_EQ ? "eq" : expression.op} reg 1 ` +
        `0x${expression.value.toHex()}`;
    case "immediate":
      return `immediate reg 0 ${[expression.verdict, expression.chain ?? []].flat().join(" ")}`;
    case "counter":
      return "counter";
    case "match":
    case "target":
      return `${expression.name} ${expression.extension} rev ${expression.revision} ` +
        `0x${expression.info.toHex()}`;
    case "masq":
      return `masq flags 0x${expression.flags.toString(16)}`;
    case "other":
      return `? ${expression.kernelName}`;
  }
}
