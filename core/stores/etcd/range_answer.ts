/**
 * etcd's answer to a range request, from its bytes (protobuf, https://protobuf.dev/programming-guides/encoding; the
 * messages `RangeResponse`, `ResponseHeader` and `KeyValue` of etcd's `rpc.proto` and `kv.proto`). An agent that starts
 * reads tens of thousands of keys.
 *
 * @module
 */

/** A key, with its value. */
export interface RangeRow {
  /** The key, without what all keys of the range begin with. */
  readonly key: string;
  /** Its value. */
  readonly value: string;
  /** The revision that created the key. */
  readonly createRevision: number;
  /** The revision of its last write. */
  readonly modRevision: number;
  /** The id of the etcd lease that it is under, as etcd3 has it; "0" if none. */
  readonly etcdLease: string;
}

/** What a range of keys holds. */
export interface RangeAnswer {
  /** The keys, in order; as many as were asked for. */
  readonly rows: readonly RangeRow[];
  /** The last of them, in full; empty if there is none. */
  readonly lastKey: Uint8Array;
  /** Whether there are more. */
  readonly more: boolean;
  /** How many keys the range has in all. */
  readonly count: number;
  /** The cluster's revision at that time. */
  readonly revision: number;
  /** The cluster's id, as etcd3 has it. */
  readonly clusterId: string;
}

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
/** A number of 64 bits takes no more bytes. */
const MAX_VARINT_BYTES = 10;

/**
 * Reads an answer. Throws a RangeError if it is none, or cut short.
 *
 * @param prefixBytes how many bytes of each key to leave out
 */
export function readRangeAnswer(message: Uint8Array, prefixBytes: number): RangeAnswer {
  const rows: RangeRow[] = [];
  const reader = new Reader(message);
  let last: Reader | undefined;
  let more = false, count = 0, revision = 0, clusterId = "0";
  while (reader.next()) {
    if (reader.isBytes(1)) {
      const header = reader.inside();
      while (header.next()) {
        if (header.isNumber(1)) clusterId = header.longText();
        else if (header.isNumber(3)) revision = header.number();
        else header.skip();
      }
    } else if (reader.isBytes(2)) rows.push(readRow(last = reader.inside(), prefixBytes));
    else if (reader.isNumber(3)) more = reader.number() !== 0;
    else if (reader.isNumber(4)) count = reader.number();
    else reader.skip();
  }
  return { rows, lastKey: keyOf(last), more, count, revision, clusterId };
}

/** The key of a row that was read, byte by byte: it need not be text. */
function keyOf(row: Reader | undefined): Uint8Array {
  row?.rewind();
  while (row?.next()) {
    if (row.isBytes(1)) return row.bytes();
    row.skip();
  }
  return new Uint8Array();
}

function readRow(reader: Reader, prefixBytes: number): RangeRow {
  let key = "", value = "", etcdLease = "0", createRevision = 0, modRevision = 0;
  while (reader.next()) {
    if (reader.isBytes(1)) key = reader.text(prefixBytes);
    else if (reader.isBytes(5)) value = reader.text(0);
    else if (reader.isNumber(2)) createRevision = reader.number();
    else if (reader.isNumber(3)) modRevision = reader.number();
    else if (reader.isNumber(6)) etcdLease = reader.longText();
    else reader.skip();
  }
  return { key, value, createRevision, modRevision, etcdLease };
}

const decoder = new TextDecoder();

/** Walks through a message's fields. */
class Reader {
  readonly #bytes: Uint8Array;
  readonly #start: number;
  readonly #end: number;
  #at: number;
  #tag = 0;

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    this.#bytes = bytes;
    this.#start = this.#at = start;
    this.#end = end;
  }

  /** Goes back to the message's first field. */
  rewind(): void {
    this.#at = this.#start;
  }

  /** Moves on to the next field, of which each has to be read or skipped; false behind the last one. */
  next(): boolean {
    if (this.#at >= this.#end) return false;
    this.#tag = this.number();
    return true;
  }

  /** Whether the field has this number, and is text, bytes or a message. */
  isBytes(field: number): boolean {
    return this.#tag === (field << 3 | BYTES);
  }

  /** Whether the field has this number, and is a number. */
  isNumber(field: number): boolean {
    return this.#tag === (field << 3 | VARINT);
  }

  /** The field's number; exact below 2⁵³. */
  number(): number {
    let value = 0;
    for (let scale = 1, left = MAX_VARINT_BYTES; left > 0; scale *= 128, left--) {
      const byte = this.#byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw broken();
  }

  /** The field's unsigned number, of 64 bits, as text. */
  longText(): string {
    const start = this.#at;
    const value = this.number();
    if (value <= Number.MAX_SAFE_INTEGER) return `${value}`;
    let exact = 0n;
    for (let at = this.#at - 1; at >= start; at--) {
      exact = exact << 7n | BigInt(this.#bytes[at]! & 0x7f);
    }
    return `${exact}`;
  }

  /** The field's bytes, but for some of the first: a view of the message. */
  bytes(skippedBytes = 0): Uint8Array {
    const end = this.#endOfBytes();
    const bytes = this.#bytes.subarray(this.#at + skippedBytes, end);
    this.#at = end;
    return bytes;
  }

  /** The field's text behind its first bytes. */
  text(skippedBytes: number): string {
    return decoder.decode(this.bytes(skippedBytes));
  }

  /** A reader of the field's message. */
  inside(): Reader {
    const end = this.#endOfBytes();
    const reader = new Reader(this.#bytes, this.#at, end);
    this.#at = end;
    return reader;
  }

  /** Leaves the field out. */
  skip(): void {
    const wireType = this.#tag & 7;
    if (wireType === VARINT) this.number();
    else if (wireType === BYTES) this.#at = this.#endOfBytes();
    else if (wireType === FIXED64) this.#at += 8;
    else if (wireType === FIXED32) this.#at += 4;
    else throw broken();
  }

  #endOfBytes(): number {
    const length = this.number();
    const end = this.#at + length;
    if (end > this.#end) throw broken();
    return end;
  }

  #byte(): number {
    if (this.#at >= this.#end) throw broken();
    return this.#bytes[this.#at++]!;
  }
}

function broken(): RangeError {
  return new RangeError("it is not etcd's, or was cut short");
}
