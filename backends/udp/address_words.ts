/**
 * IP addresses on the hot path.
 *
 * @module
 */

import { addressBits, type Family, IpAddress } from "@denim/core/ip";

/**
 * An IP address as four numbers of 32 bits, by which the peers' table is searched. The hot path makes no such object
 * for a packet: it fills one again.
 */
export class AddressWords {
  /** The family. */
  family: Family = 4;
  /** The most significant word; IPv4's only one. The others are 0 then. */
  a = 0;
  /** The second word of an IPv6 address. */
  b = 0;
  /** Its third word. */
  c = 0;
  /** Its last word. */
  d = 0;

  /** The words of an address. */
  static of(address: IpAddress): AddressWords {
    const words = new AddressWords();
    const bytes = address.toBytes();
    words.read(address.family, new DataView(bytes.buffer), 0);
    return words;
  }

  /** Reads the address that stands at an offset, in network order. */
  read(family: Family, view: DataView, offset: number): void {
    this.family = family;
    this.a = view.getInt32(offset);
    if (family === 4) {
      this.b = this.c = this.d = 0;
    } else {
      this.b = view.getInt32(offset + 4);
      this.c = view.getInt32(offset + 8);
      this.d = view.getInt32(offset + 12);
    }
  }

  /** Writes the address at an offset, in network order. */
  write(view: DataView, offset: number): void {
    view.setInt32(offset, this.a);
    if (this.family === 4) return;
    view.setInt32(offset + 4, this.b);
    view.setInt32(offset + 8, this.c);
    view.setInt32(offset + 12, this.d);
  }

  /** Becomes another address. */
  copy(other: AddressWords): void {
    this.family = other.family;
    this.a = other.a;
    this.b = other.b;
    this.c = other.c;
    this.d = other.d;
  }

  /** Whether it is the address that stands at an offset, in network order. */
  isAt(family: Family, view: DataView, offset: number): boolean {
    return family === this.family && view.getInt32(offset) === this.a &&
      (family === 4 ||
        view.getInt32(offset + 12) === this.d && view.getInt32(offset + 8) === this.c &&
          view.getInt32(offset + 4) === this.b);
  }

  /** The address as a value. */
  toAddress(): IpAddress {
    const bytes = new Uint8Array(addressBits(this.family) / 8);
    this.write(new DataView(bytes.buffer), 0);
    return IpAddress.fromBytes(bytes);
  }
}
