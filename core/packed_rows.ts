/**
 * Many values that are alike, kept as bytes rather than as objects: with tens of thousands of peers most of an agent's
 * memory is values that are looked at once a minute.
 *
 * @module
 */

import { Cidr, IpAddress } from "./ip.ts";
import { MacAddress } from "./mac.ts";
import { NO_ROW, RowIndex, withRoom } from "./row_index.ts";

/** A value, and where it is kept. */
export interface PackedRow<Value> {
  /** The number of its row; a row that was removed gives its number to a later one. */
  readonly row: number;
  /** The value: equal to what was put, and made anew at each reading. */
  readonly value: Value;
}

/**
 * Values by key. A value of plain objects, arrays, texts, numbers, booleans, addresses and networks takes some 30 bytes:
 * its numbers and addresses. What it has in common with others (names of fields, texts, how many elements an array has)
 * is kept once, as their {@link Shape}; so texts are few, such as names of devices, but in fields that are said to differ,
 * each of whose texts is kept.
 * Values of other classes are kept as they are. Keys are not kept: they are made from values again.
 */
export class PackedRows<Value extends object> {
  readonly #keyOf: (value: Value) => string;
  readonly #differing: ReadonlySet<string>;
  readonly #index = new RowIndex();
  /** For each row the number of its shape, and its place there. */
  #shapes = new Uint8Array(8);
  #places = new Int32Array(8);
  readonly #unused: number[] = [];
  #length = 0;
  readonly #shapeList: Shape[] = [];
  /** The shape of the value that was written last: the next one is likely to have it, too. */
  #lastShape = 0;
  /** The key that was hashed last, and its hash. */
  #hashedKey = "";
  #hash = hashOf("");
  /** Values that can't be packed, by row. */
  readonly #whole = new Map<number, Value>();

  /**
   * No rows yet.
   *
   * @param keyOf says what tells values apart
   * @param differing names of fields whose texts differ from value to value; none unless given
   */
  constructor(keyOf: (value: Value) => string, differing: readonly string[] = []) {
    this.#keyOf = keyOf;
    this.#differing = new Set(differing);
  }

  /** The number of values. */
  get size(): number {
    return this.#length - this.#unused.length;
  }

  /** The value under a key, and its row. */
  find(key: string): PackedRow<Value> | undefined {
    let value: Value | undefined;
    const row = this.#index.find(
      this.#hashOf(key),
      (row) => this.#keyOf(value = this.at(row)) === key,
    );
    return row === NO_ROW ? undefined : { row, value: value! };
  }

  /** The value in a row that there is. */
  at(row: number): Value {
    const shape = this.#shapes[row]!;
    if (shape === WHOLE) return this.#whole.get(row)!;
    return this.#shapeList[shape]!.read(this.#places[row]!) as Value;
  }

  /** Adds a value under its key, which no other value should have: of several any is found. Returns its row. */
  add(value: Value, key: string = this.#keyOf(value)): number {
    const row = this.#unused.pop() ?? this.#length++;
    this.#shapes = withRoom(this.#shapes, row);
    this.#places = withRoom(this.#places, row);
    this.#index.add(this.#hashOf(key), row);
    this.#write(row, value);
    return row;
  }

  /** Puts a value in the place of a row's, under the same key. */
  replace(row: number, value: Value): void {
    this.#erase(row);
    this.#write(row, value);
  }

  /** Removes a row. */
  remove(row: number): void {
    this.#index.remove(row);
    this.#erase(row);
    this.#shapes[row] = UNUSED;
    this.#unused.push(row);
  }

  /** The numbers of all rows, in no certain order. Rows may be removed meanwhile. */
  *rows(): Generator<number, void, void> {
    for (let row = this.next(-1); row >= 0; row = this.next(row)) yield row;
  }

  /** The number of the first row behind one; -1 if there is none. Begin with -1. */
  next(row: number): number {
    while (++row < this.#length) if (this.#shapes[row] !== UNUSED) return row;
    return -1;
  }

  /** What is added was looked for before. */
  #hashOf(key: string): number {
    if (key !== this.#hashedKey) {
      this.#hashedKey = key;
      this.#hash = hashOf(key);
    }
    return this.#hash;
  }

  #write(row: number, value: Value): void {
    let place = this.#shapeList[this.#lastShape]?.write(value);
    if (place === undefined) {
      this.#lastShape = this.#shapeList.findIndex((shape) =>
        (place = shape.write(value)) !== undefined
      );
    }
    if (place === undefined) {
      const part = this.#shapeList.length < MAX_SHAPES
        ? partOf(value, this.#differing, false)
        : undefined;
      if (part === undefined) {
        this.#shapes[row] = WHOLE;
        this.#whole.set(row, value);
        return;
      }
      this.#lastShape = this.#shapeList.push(new Shape(part)) - 1;
      place = this.#shapeList[this.#lastShape]!.write(value)!;
    }
    this.#shapes[row] = this.#lastShape;
    this.#places[row] = place;
  }

  #erase(row: number): void {
    const shape = this.#shapes[row]!;
    if (shape === WHOLE) this.#whole.delete(row);
    else this.#shapeList[shape]!.erase(this.#places[row]!);
  }
}

/** In place of a shape's number: the value is not packed. */
const WHOLE = 254;
/** In place of a shape's number: there is no row. */
const UNUSED = 255;
/** Values of more shapes than this are no more alike; the rest is kept as it is. */
const MAX_SHAPES = 64;

/** FNV-1a, 32 bits, over a text's code units. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193);
  }
  // The index goes by the lowest bits, which the last characters decide on.
  return hash ^ hash >>> 15;
}

/** Where writing or reading has come to. */
interface Cursor {
  view: DataView<ArrayBuffer>;
  at: number;
  /** Texts that differ from value to value, and the place of the next one. */
  readonly texts: string[];
  text: number;
}

/** One part of values of one shape: how it is written, and read. Both move the cursor on behind it. */
interface Part {
  /** How many bytes it takes. */
  readonly bytes: number;
  /** How many texts that differ. */
  readonly texts: number;
  /** Writes a value; returns false, after any number of bytes, if the value is of another shape. */
  write(value: unknown, cursor: Cursor): boolean;
  /** Reads what was written. */
  read(cursor: Cursor): unknown;
}

/** What values have in common, and the bytes of those that there are, all of one length. */
class Shape {
  readonly #part: Part;
  #used = 0;
  readonly #erased: number[] = [];
  readonly #cursor: Cursor = { view: new DataView(new ArrayBuffer(0)), at: 0, texts: [], text: 0 };

  /** A shape without values. */
  constructor(part: Part) {
    this.#part = part;
  }

  /** Keeps a value. Returns its place; `undefined` if it is of another shape. */
  write(value: unknown): number | undefined {
    const place = this.#erased.at(-1) ?? this.#used;
    this.#makeRoom((place + 1) * this.#part.bytes);
    this.#moveTo(place);
    if (!this.#part.write(value, this.#cursor)) return undefined;
    if (this.#erased.length > 0) this.#erased.pop();
    else this.#used++;
    return place;
  }

  #moveTo(place: number): void {
    this.#cursor.at = place * this.#part.bytes;
    this.#cursor.text = place * this.#part.texts;
  }

  #makeRoom(bytes: number): void {
    const { byteLength, buffer } = this.#cursor.view;
    if (bytes <= byteLength) return;
    this.#cursor.view = new DataView(buffer.transfer(Math.max(64, Math.ceil(bytes * 1.5))));
  }

  /** The value in a place. */
  read(place: number): unknown {
    this.#moveTo(place);
    return this.#part.read(this.#cursor);
  }

  /** Gives a place to another value. */
  erase(place: number): void {
    this.#erased.push(place);
  }
}

/**
 * The part that values like a sample are; `undefined` if there is something in it that can't be packed.
 *
 * @param differs whether texts in it differ from value to value
 */
function partOf(
  sample: unknown,
  differing: ReadonlySet<string>,
  differs: boolean,
): Part | undefined {
  if (typeof sample === "number") return isUint32(sample) ? UINT32 : FLOAT64;
  if (typeof sample === "string" && differs) return TEXT;
  if (sample instanceof IpAddress) return sample.family === 4 ? IPV4 : IPV6;
  if (sample instanceof Cidr) return cidrPart(sample.family === 4 ? IPV4 : IPV6);
  if (sample instanceof MacAddress) return MAC;
  if (Array.isArray(sample)) {
    const parts = sample.map((element) => partOf(element, differing, false));
    return parts.every((part) => part !== undefined) ? arrayPart(parts) : undefined;
  }
  if (typeof sample === "object" && sample !== null) {
    if (Object.getPrototypeOf(sample) !== Object.prototype) return undefined;
    const fields = Object.entries(sample).map(([name, field]) =>
      [name, partOf(field, differing, differing.has(name))] as const
    );
    return fields.every((field) => field[1] !== undefined)
      ? objectPart(sample, fields as [string, Part][])
      : undefined;
  }
  if (!["string", "boolean", "undefined", "object"].includes(typeof sample)) return undefined;
  return { bytes: 0, texts: 0, write: (value) => value === sample, read: () => sample };
}

function objectPart(
  sample: object,
  fields: readonly (readonly [name: string, part: Part])[],
): Part {
  const names = fields.map(([name]) => name), parts = fields.map(([, part]) => part);
  const differing = fields.filter(([, { bytes, texts }]) => bytes + texts > 0);
  return {
    ...sizeOf(parts),
    write(value, cursor) {
      if (typeof value !== "object" || value === null) return false;
      if (Object.getPrototypeOf(value) !== Object.prototype) return false;
      let index = 0;
      for (const name in value) {
        if (name !== names[index]) return false;
        if (!parts[index]!.write((value as Record<string, unknown>)[name], cursor)) return false;
        index++;
      }
      return index === names.length;
    },
    read(cursor) {
      // A copy has all fields at once: that is several times faster than to add one after the other.
      const object: Record<string, unknown> = { ...sample };
      for (const [name, part] of differing) object[name] = part.read(cursor);
      return object;
    },
  };
}

function arrayPart(parts: readonly Part[]): Part {
  return {
    ...sizeOf(parts),
    write: (value, cursor) =>
      Array.isArray(value) && value.length === parts.length &&
      parts.every((part, index) => part.write(value[index], cursor)),
    read: (cursor) => parts.map((part) => part.read(cursor)),
  };
}

function sizeOf(parts: readonly Part[]): Pick<Part, "bytes" | "texts"> {
  const sum = (field: "bytes" | "texts") => parts.reduce((sum, part) => sum + part[field], 0);
  return { bytes: sum("bytes"), texts: sum("texts") };
}

/** To make a text of bytes again takes longer than all else that is read. */
const TEXT: Part = {
  bytes: 0,
  texts: 1,
  write(value, cursor) {
    if (typeof value !== "string") return false;
    cursor.texts[cursor.text++] = value;
    return true;
  },
  read: (cursor) => cursor.texts[cursor.text++],
};

function cidrPart(address: Part): Part {
  return {
    bytes: address.bytes + 1,
    texts: 0,
    write(value, cursor) {
      if (!(value instanceof Cidr)) return false;
      return UINT8.write(value.prefixLength, cursor) && address.write(value.address, cursor);
    },
    read(cursor) {
      const prefixLength = UINT8.read(cursor) as number;
      return new Cidr(address.read(cursor) as IpAddress, prefixLength);
    },
  };
}

/** A part that moves the cursor by itself. */
function moving(part: Omit<Part, "texts">): Part {
  const { bytes } = part;
  return {
    bytes,
    texts: 0,
    write(value, cursor) {
      const isWritten = part.write(value, cursor);
      cursor.at += bytes;
      return isWritten;
    },
    read(cursor) {
      const value = part.read(cursor);
      cursor.at += bytes;
      return value;
    },
  };
}

function isUint32(value: unknown): value is number {
  return typeof value === "number" && value >>> 0 === value && !Object.is(value, -0);
}

const UINT8 = moving({
  bytes: 1,
  write: (value, { view, at }) => (view.setUint8(at, value as number), true),
  read: ({ view, at }) => view.getUint8(at),
});

const UINT32 = moving({
  bytes: 4,
  write: (value, { view, at }) => isUint32(value) && (view.setUint32(at, value), true),
  read: ({ view, at }) => view.getUint32(at),
});

const FLOAT64 = moving({
  bytes: 8,
  write: (value, { view, at }) => typeof value === "number" && (view.setFloat64(at, value), true),
  read: ({ view, at }) => view.getFloat64(at),
});

const IPV4 = moving({
  bytes: 4,
  write: (value, { view, at }) =>
    value instanceof IpAddress && typeof value.bits === "number" &&
    (view.setInt32(at, value.bits), true),
  read: ({ view, at }) => new IpAddress(4, view.getInt32(at)),
});

const IPV6 = moving({
  bytes: 16,
  write(value, { view, at }) {
    if (!(value instanceof IpAddress) || value.family !== 6) return false;
    view.setBigUint64(at, value.value >> 64n);
    view.setBigUint64(at + 8, BigInt.asUintN(64, value.value));
    return true;
  },
  read: ({ view, at }) =>
    new IpAddress(6, view.getBigUint64(at) << 64n | view.getBigUint64(at + 8)),
});

const MAC = moving({
  bytes: 8,
  write: (value, { view, at }) =>
    value instanceof MacAddress &&
    (view.setUint32(at, value.high), view.setUint32(at + 4, value.low), true),
  read: ({ view, at }) => new MacAddress(view.getUint32(at), view.getUint32(at + 4)),
});
