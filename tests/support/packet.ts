/**
 * IP packets built and read octet by octet, straight from the RFCs, and sharing no code with denim's own.
 *
 * @module
 */

import { IpAddress } from "@denim/core";

/** What a TCP segment or UDP datagram in an IP packet is made of. What is not given has a plain default. */
export interface PacketSpec {
  /** "tcp", "udp" or an IP protocol's number, whose payload then stands alone. */
  readonly protocol: "tcp" | "udp" | number;
  /** The source address; of either family. */
  readonly from: string;
  /** The destination address. */
  readonly to: string;
  readonly fromPort?: number;
  readonly toPort?: number;
  readonly payload?: Uint8Array;
  readonly ttl?: number;
  /** IPv4's identification. */
  readonly id?: number;
  /** IPv4's word of flags and fragment offset; don't-fragment alone unless given. */
  readonly fragment?: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  /** TCP's flags; ACK alone unless given. */
  readonly flags?: number;
  readonly window?: number;
  /** TCP's options, a multiple of four octets. */
  readonly options?: readonly number[];
  /** "right", or left to the last one to do, with the pseudo header's sum in its place, or 16 bits wrong. */
  readonly checksum?: "right" | "partial" | "wrong" | "none";
}

const NUMBERS = { tcp: 6, udp: 17 } as const;

/** The checksum of octets (RFC 1071), as plainly as can be. */
export function checksumOf(octets: readonly number[]): number {
  let sum = 0;
  for (let index = 0; index < octets.length; index += 2) {
    sum += octets[index]! * 256 + (octets[index + 1] ?? 0);
    if (sum > 0xffff) sum = sum - 0xffff;
  }
  return 0xffff - sum;
}

const u16 = (value: number) => [Math.floor(value / 256) % 256, value % 256];
const u32 = (value: number) => [...u16(Math.floor(value / 65536)), ...u16(value % 65536)];
const octetsOf = (address: string) => [...IpAddress.parse(address).toBytes()];

function pseudoHeader(spec: PacketSpec, protocol: number, length: number): number[] {
  const addresses = [...octetsOf(spec.from), ...octetsOf(spec.to)];
  return addresses.length === 8
    ? [...addresses, 0, protocol, ...u16(length)]
    : [...addresses, ...u32(length), 0, 0, 0, protocol];
}

/** Builds a packet. */
export function buildPacket(spec: PacketSpec): Uint8Array {
  const protocol = typeof spec.protocol === "number" ? spec.protocol : NUMBERS[spec.protocol];
  const body = typeof spec.protocol === "number"
    ? [...spec.payload ?? []]
    : withChecksum(spec, protocol, transport(spec));
  return new Uint8Array([...ipHeader(spec, protocol, body.length), ...body]);
}

function transport(spec: PacketSpec): number[] {
  const payload = [...spec.payload ?? []];
  const ports = [...u16(spec.fromPort ?? 40000), ...u16(spec.toPort ?? 5201)];
  if (spec.protocol === "udp") return [...ports, ...u16(8 + payload.length), 0, 0, ...payload];
  const options = spec.options ?? [];
  return [
    ...ports,
    ...u32(spec.sequence ?? 1000),
    ...u32(spec.acknowledgement ?? 2000),
    (5 + options.length / 4) * 16,
    spec.flags ?? 0x10,
    ...u16(spec.window ?? 500),
    0,
    0,
    0,
    0,
    ...options,
    ...payload,
  ];
}

function withChecksum(spec: PacketSpec, protocol: number, segment: number[]): number[] {
  const place = spec.protocol === "tcp" ? 16 : 6;
  const pseudo = pseudoHeader(spec, protocol, segment.length);
  let checksum = checksumOf([...pseudo, ...segment]);
  if (spec.protocol === "udp" && checksum === 0) checksum = 0xffff;
  if (spec.checksum === "wrong") checksum ^= 0x5555;
  if (spec.checksum === "none") checksum = 0;
  if (spec.checksum === "partial") checksum = 0xffff - checksumOf(pseudo);
  return [...segment.slice(0, place), ...u16(checksum), ...segment.slice(place + 2)];
}

function ipHeader(spec: PacketSpec, protocol: number, bodyLength: number): number[] {
  const addresses = [...octetsOf(spec.from), ...octetsOf(spec.to)];
  const ttl = spec.ttl ?? 64;
  if (addresses.length !== 8) {
    return [0x60, 0, 0, 0, ...u16(bodyLength), protocol, ttl, ...addresses];
  }
  const start = [
    0x45,
    0,
    ...u16(20 + bodyLength),
    ...u16(spec.id ?? 7),
    ...u16(spec.fragment ?? 0x4000),
    ttl,
    protocol,
  ];
  return [...start, ...u16(checksumOf([...start, 0, 0, ...addresses])), ...addresses];
}

/** What a packet says, as far as tests ask. */
export interface PacketReading {
  readonly ttl: number;
  readonly id: number | undefined;
  readonly protocol: number;
  readonly sequence: number | undefined;
  readonly flags: number | undefined;
  readonly payload: Uint8Array;
  /** Whether IPv4's header checksum is right; true for IPv6. */
  readonly headerRight: boolean;
  /** What the transport's checksum is. */
  readonly checksum: "right" | "partial" | "wrong";
}

/** Reads a TCP or UDP packet. Throws if its lengths don't agree with its octets. */
export function readPacket(packet: Uint8Array): PacketReading {
  const octets = [...packet];
  const at16 = (at: number) => octets[at]! * 256 + octets[at + 1]!;
  const ipv4 = octets[0]! >> 4 === 4;
  const header = ipv4 ? octets[0]! % 16 * 4 : 40;
  const length = ipv4 ? at16(2) : 40 + at16(4);
  if (length !== octets.length) throw new Error(`says ${length} octets, has ${octets.length}`);
  const protocol = octets[ipv4 ? 9 : 6]!;
  const segment = octets.slice(header);
  const addresses = ipv4 ? octets.slice(12, 20) : octets.slice(8, 40);
  const pseudo = ipv4
    ? [...addresses, 0, protocol, ...u16(segment.length)]
    : [...addresses, ...u32(segment.length), 0, 0, 0, protocol];
  const tcp = protocol === 6;
  if (!tcp && segment[4]! * 256 + segment[5]! !== segment.length) throw new Error("UDP's length");
  const place = tcp ? 16 : 6;
  const found = segment[place]! * 256 + segment[place + 1]!;
  const partial = found === 0xffff - checksumOf(pseudo);
  const right = checksumOf([...pseudo, ...segment]) === 0;
  return {
    ttl: octets[ipv4 ? 8 : 7]!,
    id: ipv4 ? at16(4) : undefined,
    protocol,
    sequence: tcp ? at16(header + 4) * 65536 + at16(header + 6) : undefined,
    flags: tcp ? segment[13] : undefined,
    payload: packet.slice(header + (tcp ? (segment[12]! >> 4) * 4 : 8)),
    headerRight: !ipv4 || checksumOf(octets.slice(0, header)) === 0,
    checksum: partial ? "partial" : right ? "right" : "wrong",
  };
}
