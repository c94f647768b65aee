/**
 * Ethernet addresses as values.
 *
 * @module
 */

/** One 48-bit Ethernet (MAC) address, as RFC 7042 has it. Immutable. */
export class MacAddress {
  /** The address as six lower-case pairs of hexadecimal digits: `02:0a:05:26:00:01`. */
  readonly text: string;

  private constructor(text: string) {
    this.text = text;
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
      ? new MacAddress(text.toLowerCase().replaceAll("-", ":"))
      : undefined;
  }

  /** Reads six octets. Throws a RangeError for another length. */
  static fromBytes(bytes: Uint8Array): MacAddress {
    if (bytes.length !== 6) {
      throw new RangeError(`an Ethernet address has 6 octets, not ${bytes.length}`);
    }
    let text = "";
    for (let index = 0; index < 6; index++) {
      text += (index === 0 ? "" : ":") + HEX[bytes[index]!];
    }
    return new MacAddress(text);
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
    for (let index = 0; index < 6; index++) {
      bytes[index] = parseInt(this.text.slice(index * 3, index * 3 + 2), 16);
    }
    return bytes;
  }

  /** Whether both are the same address. */
  equals(other: MacAddress): boolean {
    return this.text === other.text;
  }

  /** `02:0a:05:26:00:01` */
  toString(): string {
    return this.text;
  }

  /** The text form, which is also flannel's in a lease. */
  toJSON(): string {
    return this.text;
  }
}

const HEX = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, "0"));
