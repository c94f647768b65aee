/**
 * Netlink messages as bytes: a writer that packs many into one buffer, and a reader that walks a buffer
 * without an object for each attribute. Integers are in host order, which is little-endian on every
 * machine that Deno runs on.
 *
 * @module
 */

import type { IpAddress } from "../../ip.ts";
import type { MacAddress } from "../../mac.ts";
import { SOCKADDR_LEN, writeSocketAddress } from "../sys/socket_address.ts";
import { NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_REQUEST, NLMSG_HDRLEN } from "../uapi/netlink.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** `struct nlattr`, which an attribute begins with. */
const ATTRIBUTE_HEAD_BYTES = 4;
/** The longest address's length, IPv6's. */
const MAX_ADDRESS_BYTES = 16;

/** Rounds up to the four bytes that messages and attributes are aligned to (`NLMSG_ALIGN`). */
function align(length: number): number {
  return (length + 3) & ~3;
}

/** Packs messages one behind the other. Grows as needed; used again after {@link MessageWriter.clear}. */
export class MessageWriter {
  #bytes = new Uint8Array(new ArrayBuffer(4096));
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #messageStart = 0;
  #previousStart = 0;
  #begun = false;
  #count = 0;

  /** The number of bytes written. */
  get length(): number {
    return this.#length;
  }

  /** The number of messages written. */
  get count(): number {
    return this.#count;
  }

  /** The buffer; its first `length` bytes are valid until the next write. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  /** Forgets what was written. */
  clear(): void {
    this.#length = 0;
    this.#count = 0;
    this.#begun = false;
  }

  /** Starts a message, a request with these flags besides. Its sequence number is its place, from 1. */
  begin(type: number, flags: number): this {
    this.#previousStart = this.#messageStart;
    this.#messageStart = this.#length;
    this.#begun = true;
    this.#count++;
    return this.u32(0).u16(type).u16(flags | NLM_F_REQUEST).u32(this.#count).u32(0);
  }

  /** Ends the message: its length is known now. */
  end(): void {
    this.#pad();
    this.#view.setUint32(this.#messageStart, this.#length - this.#messageStart, true);
    this.#begun = false;
  }

  /** Takes back the message that was begun and not ended, if there is one. */
  abandon(): void {
    if (!this.#begun) return;
    this.#length = this.#messageStart;
    this.#messageStart = this.#previousStart;
    this.#begun = false;
    this.#count--;
  }

  /** Sets flags of the message written last. */
  addFlags(flags: number): void {
    const at = this.#messageStart + 6;
    this.#view.setUint16(at, this.#view.getUint16(at, true) | flags, true);
  }

  /** Writes one byte. */
  u8(value: number): this {
    this.#reserve(1);
    this.#view.setUint8(this.#length++, value);
    return this;
  }

  /** Writes two bytes in host order. */
  u16(value: number): this {
    this.#reserve(2);
    this.#view.setUint16(this.#length, value, true);
    this.#length += 2;
    return this;
  }

  /** Writes four bytes in host order. */
  u32(value: number): this {
    this.#reserve(4);
    this.#view.setUint32(this.#length, value, true);
    this.#length += 4;
    return this;
  }

  /** Writes an attribute that is there or not (`NLA_FLAG`). */
  flagAttribute(type: number): this {
    return this.bytesAttribute(type, new Uint8Array());
  }

  /** Writes an attribute of one byte. */
  u8Attribute(type: number, value: number): this {
    return this.#wordAttribute(type, 1, value);
  }

  /** Writes an attribute of two bytes in host order. */
  u16Attribute(type: number, value: number): this {
    return this.#wordAttribute(type, 2, value);
  }

  /** Writes an attribute of two bytes in network order, as ports are. */
  be16Attribute(type: number, value: number): this {
    return this.#wordAttribute(type, 2, value >> 8 | (value & 255) << 8);
  }

  /** Writes an attribute of four bytes in host order. */
  u32Attribute(type: number, value: number): this {
    return this.#wordAttribute(type, 4, value);
  }

  /** Writes an attribute of text that ends in a zero (`NLA_NUL_STRING`). */
  stringAttribute(type: number, value: string): this {
    return this.bytesAttribute(type, encoder.encode(`${value}\0`));
  }

  /** Writes an attribute of an address in network order. */
  addressAttribute(type: number, value: IpAddress | MacAddress): this {
    this.#reserve(ATTRIBUTE_HEAD_BYTES + MAX_ADDRESS_BYTES);
    const start = this.#length;
    const octets = value.writeTo(this.#bytes, start + ATTRIBUTE_HEAD_BYTES);
    const length = ATTRIBUTE_HEAD_BYTES + octets;
    this.#view.setUint32(start, length | type << 16, true);
    this.#length = start + length;
    this.#pad();
    return this;
  }

  /** Writes an attribute of a `struct sockaddr_in` or `struct sockaddr_in6`. */
  socketAddressAttribute(type: number, address: IpAddress, port: number): this {
    const at = this.#attribute(type, SOCKADDR_LEN[address.family]);
    writeSocketAddress(this.#bytes, at, address, port);
    return this;
  }

  /** Writes an attribute of any bytes. */
  bytesAttribute(type: number, value: Uint8Array): this {
    const at = this.#attribute(type, value.length);
    this.#bytes.set(value, at);
    return this;
  }

  /** Writes an attribute made of what `content` writes. */
  nested(type: number, content: () => void): this {
    const start = this.beginNested(type);
    content();
    this.endNested(start);
    return this;
  }

  /** Starts an attribute that is made of others. Returns its place, by which it is ended. */
  beginNested(type: number): number {
    return this.#attribute(type | NLA_F_NESTED, 0) - ATTRIBUTE_HEAD_BYTES;
  }

  /** Ends an attribute that is made of others: its length is known now. */
  endNested(start: number): void {
    this.#view.setUint16(start, this.#length - start, true);
  }

  /** Writes an attribute of at most four bytes, which with their padding are one word. */
  #wordAttribute(type: number, length: number, word: number): this {
    const at = this.#attribute(type, length);
    this.#view.setUint32(at, word, true);
    return this;
  }

  /** Writes an attribute's head, and its padding. Returns the place of its value. */
  #attribute(type: number, length: number): number {
    const start = this.#length, value = start + ATTRIBUTE_HEAD_BYTES, end = value + align(length);
    this.#reserve(end - start);
    // The padding is in the last word.
    this.#view.setUint32(end - 4, 0);
    this.#view.setUint32(start, ATTRIBUTE_HEAD_BYTES + length | type << 16, true);
    this.#length = end;
    return value;
  }

  #pad(): void {
    while (this.#length & 3) this.u8(0);
  }

  #reserve(extra: number): void {
    if (this.#length + extra <= this.#bytes.length) return;
    const grown = new Uint8Array(new ArrayBuffer(2 * (this.#length + extra)));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** The highest attribute number that a reader keeps; none that denim reads is higher. */
const MAX_ATTRIBUTE = 63;

/**
 * Walks the messages of a buffer, and the attributes of the message at hand. One reader serves a whole
 * dump: what it says is true until the next call of `next` or `readAttributes`.
 */
export class MessageReader {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #end: number;
  #next = 0;
  #body = 0;
  #bodyEnd = 0;
  readonly #at = new Int32Array(MAX_ATTRIBUTE + 1);
  readonly #attributeLength = new Int32Array(MAX_ATTRIBUTE + 1);

  /** Reads the first `length` bytes of a buffer. */
  constructor(bytes: Uint8Array<ArrayBuffer>, length: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, length);
    this.#end = length;
  }

  /** Moves to the next message. False at the end, and at a message that is cut short. */
  next(): boolean {
    const start = this.#next;
    if (start + NLMSG_HDRLEN > this.#end) return false;
    const length = this.#view.getUint32(start, true);
    if (length < NLMSG_HDRLEN || start + length > this.#end) return false;
    this.#body = start + NLMSG_HDRLEN;
    this.#bodyEnd = start + length;
    this.#next = start + align(length);
    return true;
  }

  /** The message's type: `RTM_NEWROUTE`. */
  get type(): number {
    return this.#view.getUint16(this.#body - 12, true);
  }

  /** The message's flags (`NLM_F_…`). */
  get flags(): number {
    return this.#view.getUint16(this.#body - 10, true);
  }

  /** The sequence number of the request that it answers. */
  get sequence(): number {
    return this.#view.getUint32(this.#body - 8, true);
  }

  /** One byte of the message's body. */
  u8(offset: number): number {
    return this.#view.getUint8(this.#body + offset);
  }

  /** Two bytes of the body, in host order. */
  u16(offset: number): number {
    return this.#view.getUint16(this.#body + offset, true);
  }

  /** Four bytes of the body, in host order. */
  u32(offset: number): number {
    return this.#view.getUint32(this.#body + offset, true);
  }

  /** Four bytes of the body, in host order, signed. */
  i32(offset: number): number {
    return this.#view.getInt32(this.#body + offset, true);
  }

  /** Finds the attributes behind a header of `offset` bytes. */
  readAttributes(offset: number): this {
    return this.#scan(this.#body + align(offset), this.#bodyEnd);
  }

  /** Enters a nested attribute, whose attributes then replace the outer ones; false if there is none. */
  enter(type: number): boolean {
    const start = this.#at[type]!;
    if (start === 0) return false;
    this.#scan(start, start + this.#attributeLength[type]!);
    return true;
  }

  #scan(start: number, end: number): this {
    this.#at.fill(0);
    for (let at = start; at + 4 <= end;) {
      const length = this.#view.getUint16(at, true);
      if (length < 4 || at + length > end) break;
      const type = this.#view.getUint16(at + 2, true) & NLA_TYPE_MASK;
      if (type <= MAX_ATTRIBUTE) {
        this.#at[type] = at + 4;
        this.#attributeLength[type] = length - 4;
      }
      at += align(length);
    }
    return this;
  }

  /** Whether the attribute is there. */
  has(type: number): boolean {
    return this.#at[type] !== 0;
  }

  /** An attribute of one byte. */
  u8Attribute(type: number): number | undefined {
    return this.#at[type] ? this.#view.getUint8(this.#at[type]!) : undefined;
  }

  /** An attribute of two bytes in host order. */
  u16Attribute(type: number): number | undefined {
    return this.#at[type] ? this.#view.getUint16(this.#at[type]!, true) : undefined;
  }

  /** An attribute of two bytes in network order. */
  be16Attribute(type: number): number | undefined {
    return this.#at[type] ? this.#view.getUint16(this.#at[type]!) : undefined;
  }

  /** An attribute of four bytes in host order. */
  u32Attribute(type: number): number | undefined {
    return this.#at[type] ? this.#view.getUint32(this.#at[type]!, true) : undefined;
  }

  /** An attribute of any bytes: a view of the buffer, for use before the next message. */
  bytesAttribute(type: number): Uint8Array<ArrayBuffer> | undefined {
    const at = this.#at[type]!;
    return at ? this.#bytes.subarray(at, at + this.#attributeLength[type]!) : undefined;
  }

  /** An attribute of text; the zero that ends it is left out. */
  stringAttribute(type: number): string | undefined {
    const bytes = this.bytesAttribute(type);
    if (bytes === undefined) return undefined;
    const zero = bytes.indexOf(0);
    return decoder.decode(zero < 0 ? bytes : bytes.subarray(0, zero));
  }
}

/** The attributes in a nested attribute, in order; of a type that comes again, each. */
export function* attributesOf(
  bytes: Uint8Array,
): Generator<readonly [type: number, value: Uint8Array]> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > bytes.length) return;
    yield [view.getUint16(at + 2, true) & NLA_TYPE_MASK, bytes.subarray(at + 4, at + length)];
    at += (length + 3) & ~3;
  }
}
