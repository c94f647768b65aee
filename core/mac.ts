/**
 * Ethernet addresses as values.
 *
 * @module
 */

/** One 48-bit Ethernet (MAC) address, as RFC 7042 has it. Immutable. */
export class MacAddress {
  /** The first three octets, most significant first: numbers of this size take no memory of their own. */
  readonly high: number;
  /** The last three octets. */
  readonly low: number;

  /** Makes an address from its halves, each of 24 bits. */
  constructor(high: number, low: number) {
    this.high = high;
    this.low = low;
  }

  /** Reads six pairs joined by `:` or `-`. Throws a TypeError that names the text. */
  static parse(text: string): MacAddress {
    const address = MacAddress.tryParse(text);
    if (address === undefined) {
      throw new TypeError(`${JSON.stringify(text)} is not an Ethernet address`);
    }
    return address;
  }

  /** As {@link MacAddress.parse}, with `undefined` if the text is not an address. */
  static tryParse(text: string): MacAddress | undefined {
    return /^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)
      ? new MacAddress(threeOctets(text, 0), threeOctets(text, 9))
      : undefined;
  }

  /** Reads six octets. Throws a RangeError for another length. */
  static fromBytes(bytes: Uint8Array): MacAddress {
    if (bytes.length !== 6) {
      throw new RangeError(`an Ethernet address has 6 octets, not ${bytes.length}`);
    }
    return new MacAddress(
      bytes[0]! << 16 | bytes[1]! << 8 | bytes[2]!,
      bytes[3]! << 16 | bytes[4]! << 8 | bytes[5]!,
    );
  }

  /** A random address of the kind that anyone may use: unicast, locally administered (RFC 7042). */
  static random(): MacAddress {
    const bytes = crypto.getRandomValues(new Uint8Array(6));
    bytes[0] = (bytes[0]! & 0xfe) | 0x02;
    return MacAddress.fromBytes(bytes);
  }

  /** The six octets, a new array at each call. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(6);
    this.writeTo(bytes, 0);
    return bytes;
  }

  /** Writes the six octets from a place of an array on. Returns how many they are. */
  writeTo(bytes: Uint8Array, at: number): number {
    bytes[at] = this.high >>> 16;
    bytes[at + 1] = this.high >>> 8;
    bytes[at + 2] = this.high;
    bytes[at + 3] = this.low >>> 16;
    bytes[at + 4] = this.low >>> 8;
    bytes[at + 5] = this.low;
    return 6;
  }

  /** Whether one device can have the address: it is no group's, and not zero. */
  get isUnicast(): boolean {
    return !(this.high >>> 16 & 1) && (this.high | this.low) !== 0;
  }

  /** Whether both are the same address. */
  equals(other: MacAddress): boolean {
    return this.low === other.low && this.high === other.high;
  }

  /** Six lower-case pairs of hexadecimal digits: `02:0a:05:26:00:01`. */
  toString(): string {
    return `${threePairs(this.high)}:${threePairs(this.low)}`;
  }

  /** The text form, which is also flannel's in a lease. */
  toJSON(): string {
    return this.toString();
  }
}

const HEX = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, "0"));

function threePairs(octets: number): string {
  return `${HEX[octets >>> 16]}:${HEX[octets >>> 8 & 255]}:${HEX[octets & 255]}`;
}

/** The three pairs of hexadecimal digits at a place of a text, each with one character behind it. */
function threeOctets(text: string, at: number): number {
  let octets = 0;
  for (let index = at; index < at + 8; index += 3) {
    octets = octets << 8 | digitOf(text.charCodeAt(index)) << 4 |
      digitOf(text.charCodeAt(index + 1));
  }
  return octets;
}

/** The value of a hexadecimal digit by its code. */
function digitOf(code: number): number {
  return code <= 57 ? code - 48 : (code | 32) - 87;
}
