/**
 * IPv4 and IPv6 addresses and networks as values. One pair of types serves both families, so that code that uses them
 * has one path for both.
 *
 * @module
 */

/** An IP version: 4 (RFC 791) or 6 (RFC 8200). */
export type Family = 4 | 6;

/** Both families, in the order in which flannel names them. */
export const FAMILIES: readonly Family[] = [4, 6];

/** The number of bits in an address of a family: 32 or 128. */
export function addressBits(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/** The smallest MTU over which a family works, in bytes (RFC 791; RFC 8200 section 5). */
export const MIN_MTU_BYTES: Readonly<Record<Family, number>> = { 4: 68, 6: 1280 };

/** The longest IP packet, in bytes: what IPv4's length field holds (RFC 791). No device for pods has a larger MTU. */
export const MAX_PACKET_BYTES = 65_535;

/** One IP address. Immutable; compare with {@link IpAddress.equals} or by its text. */
export class IpAddress {
  /** The address's family. */
  readonly family: Family;
  /**
   * The address as a number, most significant octet first; of IPv4 its 32 bits as a signed one, which takes no memory of
   * its own: an agent handles hundreds of thousands of them. See {@link IpAddress.value}.
   */
  readonly bits: number | bigint;

  /**
   * Makes an address from its number.
   *
   * @param family the address's family
   * @param value the address as a number, as `value` has it, or of IPv4 also as `bits` has it; throws a RangeError if it
   * does not fit the family
   */
  constructor(family: Family, value: number | bigint) {
    this.family = family;
    if (typeof value === "number") {
      if (family !== 4 || value >>> 0 !== value && (value | 0) !== value) {
        throw misfit(family, value);
      }
      this.bits = value | 0;
    } else {
      if (value < 0n || value >> BigInt(addressBits(family)) !== 0n) throw misfit(family, value);
      this.bits = family === 4 ? Number(value) | 0 : value;
    }
  }

  /** The address as a number, most significant octet first: 10.0.0.1 is 0x0a000001n. */
  get value(): bigint {
    return typeof this.bits === "bigint" ? this.bits : BigInt(this.bits >>> 0);
  }

  /**
   * Reads an address as RFC 4291 section 2.2 (IPv6) or dotted decimal (IPv4) has it. Octets with
   * leading zeros and zones (`%eth0`) are refused. Throws a TypeError that names the text.
   *
   * ```ts
   * import { IpAddress } from "@denim/core/ip";
   * console.log(`${IpAddress.parse("FD99:0::1")}`); // fd99::1
   * ```
   */
  static parse(text: string): IpAddress {
    const address = IpAddress.tryParse(text);
    if (address === undefined) throw new TypeError(`${JSON.stringify(text)} is not an IP address`);
    return address;
  }

  /** As {@link IpAddress.parse}, with `undefined` if the text is not an address. */
  static tryParse(text: string): IpAddress | undefined {
    const family = text.includes(":") ? 6 : 4;
    const value = family === 4 ? parseIpv4(text) : parseIpv6(text);
    return value === undefined ? undefined : new IpAddress(family, value);
  }

  /** Reads 4 or 16 octets in network order. Throws a RangeError for another length. */
  static fromBytes(bytes: Uint8Array): IpAddress {
    if (bytes.length !== 4 && bytes.length !== 16) {
      throw new RangeError(`an IP address has 4 or 16 octets, not ${bytes.length}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return bytes.length === 4
      ? new IpAddress(4, view.getInt32(0))
      : new IpAddress(6, (view.getBigUint64(0) << 64n) | view.getBigUint64(8));
  }

  /** The address in network order: 4 or 16 octets, a new array at each call. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(addressBits(this.family) / 8);
    this.writeTo(bytes, 0);
    return bytes;
  }

  /** Writes the address in network order from a place of an array on. Returns how many octets it has: 4 or 16. */
  writeTo(bytes: Uint8Array, at: number): number {
    // By octets: a view of the buffer would cost more for each address.
    if (typeof this.bits === "number") {
      writeWord(bytes, at, this.bits);
      return 4;
    }
    for (let end = at + 12, rest = this.bits; end >= at; end -= 4, rest >>= 32n) {
      writeWord(bytes, end, Number(BigInt.asIntN(32, rest)));
    }
    return 16;
  }

  /** Whether the address is good on its link alone: 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291 section 2.5.6). */
  get isLinkLocal(): boolean {
    return typeof this.bits === "number"
      ? this.bits >>> 16 === 0xa9fe
      : this.bits >> 118n === 0x3fan;
  }

  /** Whether networks that are nobody's else may have the address too (RFC 1918), or fc00::/7 (RFC 4193). */
  get isPrivate(): boolean {
    if (typeof this.bits === "bigint") return this.bits >> 121n === 0x7en;
    return this.bits >>> 24 === 10 || this.bits >>> 20 === 0xac1 || this.bits >>> 16 === 0xc0a8;
  }

  /**
   * Whether other hosts can reach one host by the address: it is neither unspecified nor loopback's nor multicast's nor
   * IPv4's broadcast address (RFC 6890, RFC 4291 section 2).
   */
  get isReachable(): boolean {
    if (typeof this.bits === "bigint") return this.bits > 1n && this.bits >> 120n !== 0xffn;
    const first = this.bits >>> 24;
    return this.bits !== 0 && first !== 127 && first >>> 4 !== 0xe && this.bits !== -1;
  }

  /** Whether both are the same address. */
  equals(other: IpAddress): boolean {
    return this.bits === other.bits;
  }

  /** Dotted decimal, or the form that RFC 5952 recommends for IPv6. */
  toString(): string {
    return typeof this.bits === "number" ? formatIpv4(this.bits) : formatIpv6(this.bits);
  }

  /** The text form, so that an address in a logged or stored object stays readable. */
  toJSON(): string {
    return this.toString();
  }
}

function misfit(family: Family, value: number | bigint): RangeError {
  return new RangeError(`${value} is not an IPv${family} address: out of range`);
}

function writeWord(bytes: Uint8Array, at: number, word: number): void {
  bytes[at] = word >>> 24;
  bytes[at + 1] = word >>> 16;
  bytes[at + 2] = word >>> 8;
  bytes[at + 3] = word;
}

/** An IP network: an address whose host bits are zero, and a prefix length. Immutable. */
export class Cidr {
  /** The first address of the network. */
  readonly address: IpAddress;
  /** The number of leading bits that every address of the network shares. */
  readonly prefixLength: number;

  /**
   * Makes a network from an address in it.
   *
   * @param address any address of the network; its host bits are cleared
   * @param prefixLength 0 to 32 or 128; a RangeError otherwise
   */
  constructor(address: IpAddress, prefixLength: number) {
    const bits = addressBits(address.family);
    if (!Number.isInteger(prefixLength) || prefixLength < 0 || prefixLength > bits) {
      throw new RangeError(
        `a prefix length of IPv${address.family} is 0 to ${bits}, not ${prefixLength}`,
      );
    }
    const network = firstOf(address, bits - prefixLength);
    this.address = network === address.bits ? address : new IpAddress(address.family, network);
    this.prefixLength = prefixLength;
  }

  /**
   * Reads `10.5.0.0/16` (RFC 4632) or `fc00::/48`. Host bits are cleared, as Go's `ParseCIDR` does
   * for flannel. Throws a TypeError that names the text.
   */
  static parse(text: string): Cidr {
    const cidr = Cidr.tryParse(text);
    if (cidr === undefined) {
      throw new TypeError(`${JSON.stringify(text)} is not a network in CIDR notation`);
    }
    return cidr;
  }

  /** As {@link Cidr.parse}, with `undefined` if the text is not a network. */
  static tryParse(text: string): Cidr | undefined {
    const slash = text.indexOf("/");
    if (slash < 0) return undefined;
    const address = IpAddress.tryParse(text.slice(0, slash));
    const length = text.slice(slash + 1);
    if (address === undefined || !/^\d{1,3}$/.test(length)) return undefined;
    return Number(length) > addressBits(address.family)
      ? undefined
      : new Cidr(address, Number(length));
  }

  /** The network's family. */
  get family(): Family {
    return this.address.family;
  }

  /** The number of addresses in the network. */
  get size(): bigint {
    return 1n << BigInt(addressBits(this.family) - this.prefixLength);
  }

  /** The last address of the network. */
  get last(): IpAddress {
    return new IpAddress(this.family, this.address.value + this.size - 1n);
  }

  /** The address at a distance from the first: `at(1n)` of 10.5.3.0/24 is 10.5.3.1. */
  at(offset: bigint): IpAddress {
    return new IpAddress(this.family, this.address.value + offset);
  }

  /** Whether an address, or every address of another network, lies in this one. */
  contains(other: IpAddress | Cidr): boolean {
    const address = other instanceof Cidr ? other.address : other;
    const longEnough = !(other instanceof Cidr) || other.prefixLength >= this.prefixLength;
    const hostBits = addressBits(this.family) - this.prefixLength;
    return longEnough && address.family === this.family &&
      firstOf(address, hostBits) === this.address.bits;
  }

  /** Whether the two share an address. */
  overlaps(other: Cidr): boolean {
    return this.contains(other) || other.contains(this);
  }

  /** Whether both are the same network. */
  equals(other: Cidr): boolean {
    return this.prefixLength === other.prefixLength && this.address.equals(other.address);
  }

  /** `10.5.3.0/24` */
  toString(): string {
    return `${this.address}/${this.prefixLength}`;
  }

  /** The text form, so that a network in a logged or stored object stays readable. */
  toJSON(): string {
    return this.toString();
  }
}

/** {@link IpAddress.bits} of the first address of the network that an address is in. */
function firstOf({ bits }: IpAddress, hostBits: number): number | bigint {
  if (typeof bits === "bigint") return bits >> BigInt(hostBits) << BigInt(hostBits);
  // A shift by 32 is one by 0.
  return hostBits === 32 ? 0 : bits >> hostBits << hostBits;
}

/** By characters: an agent that starts reads tens of thousands of addresses. */
function parseIpv4(text: string): number | undefined {
  let value = 0, octet = 0, digits = 0, dots = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === DOT && digits > 0 && dots < 3) {
      value = value * 256 + octet;
      dots++;
      octet = digits = 0;
      continue;
    }
    // "010" is 8 to some parsers and 10 to others: no address may mean two things.
    if (code < DIGIT_0 || code > DIGIT_0 + 9 || digits > 0 && octet === 0) return undefined;
    octet = octet * 10 + code - DIGIT_0;
    digits++;
    if (octet > 255) return undefined;
  }
  return dots === 3 && digits > 0 ? value * 256 + octet : undefined;
}

const DOT = 0x2e, DIGIT_0 = 0x30;

function parseIpv6(text: string): bigint | undefined {
  let body = text;
  // RFC 4291 section 2.2, form 3: the last 32 bits may be dotted decimal.
  const dot = body.indexOf(".");
  if (dot >= 0) {
    const colon = body.lastIndexOf(":");
    const tail = parseIpv4(body.slice(colon + 1));
    if (tail === undefined) return undefined;
    body = body.slice(0, colon + 1) +
      (tail >>> 16).toString(16) + ":" + (tail & 0xffff).toString(16);
  }
  const halves = body.split("::");
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half) => half === "" ? [] : half.split(":"));
  const groups = tail === undefined
    ? head!
    : [...head!, ...Array(Math.max(8 - head!.length - tail.length, 0)).fill("0"), ...tail];
  // "::" stands for at least one group of zeros (RFC 5952 section 4.2.2 allows one to be read).
  if (groups.length !== 8 || tail !== undefined && head!.length + tail.length > 7) return undefined;
  let value = 0n;
  for (const group of groups) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
    value = (value << 16n) | BigInt(parseInt(group, 16));
  }
  return value;
}

function formatIpv4(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

function formatIpv6(value: bigint): string {
  // RFC 5952 section 5: an IPv4-mapped address shows its IPv4 part.
  if (value >> 32n === 0xffffn) return `::ffff:${formatIpv4(Number(value & 0xffff_ffffn))}`;
  const groups = Array.from(
    { length: 8 },
    (_, index) => Number((value >> BigInt(112 - index * 16)) & 0xffffn),
  );
  const run = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (run.length < 2) return hex.join(":");
  return `${hex.slice(0, run.start).join(":")}::${hex.slice(run.start + run.length).join(":")}`;
}

/** The first of the longest runs of zeros, which RFC 5952 section 4.2.3 says is the one to shorten. */
function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let end = start;
    while (groups[end] === 0) end++;
    if (end - start > best.length) best = { start, length: end - start };
    start = Math.max(start, end - 1);
  }
  return best;
}
