/**
 * A lease: one node's hold on one subnet a family, and what the node publishes with it; and flannel's form, in which
 * leases are stored.
 *
 * @module
 */

import * as z from "zod";
import { RuntimeError } from "./errors.ts";
import { addressBits, Cidr, FAMILIES, type Family, IpAddress } from "./ip.ts";

/** The part of a lease that belongs to one family. */
export interface LeaseHalf {
  /** The subnet that the node's pods take their addresses from. */
  readonly subnet: Cidr;
  /** The address at which the other nodes reach this one. */
  readonly publicIp: IpAddress;
  /** What the node's backend publishes for its peers, as JSON; `undefined` if nothing. */
  readonly backendData: unknown;
}

/**
 * When a lease ends: at a time (milliseconds since 1970); "never", which makes it a reservation; or "unknown".
 * Only what a watch reports may be unknown: etcd would have to be asked about each lease.
 */
export type Expiry = { readonly atMs: number } | "never" | "unknown";

/** One node's lease. */
export interface Lease {
  /** flannel's name for it, the last part of its etcd key; see {@link leaseKey}. */
  readonly key: string;
  /** The backend that the node runs, as `BackendType` has it; udp's and alloc's leases have "". */
  readonly backendType: string;
  /** One half for each family that the cluster uses, IPv4 first; at least one. */
  readonly halves: readonly LeaseHalf[];
  /** When it ends unless its node renews it. */
  readonly expiry: Expiry;
  /** The number that its store gave to the lease's last write: a later write has a higher one. */
  readonly revision?: number;
  /** Set on what {@link LeaseStore.acquire} resolves to if the node, or another with its address, held a lease already. */
  readonly wasHeld?: boolean;
}

/** An expiry's time in milliseconds since 1970; `undefined` if it is "never" or "unknown". */
export function expiryMs(expiry: Expiry): number | undefined {
  return typeof expiry === "object" ? expiry.atMs : undefined;
}

/** A lease's half for one family. */
export function leaseHalf(lease: Lease, family: Family): LeaseHalf | undefined {
  return lease.halves.find((half) => half.subnet.family === family);
}

/** The IPv4 part of the key of a lease without IPv4, as flannel writes an empty network. */
const NO_IPV4 = "0.0.0.0-0";

/** The addresses at which the other nodes reach a lease's node, by family. */
export function leasePublicIps({ halves }: Lease): ReadonlyMap<Family, IpAddress> {
  return new Map(halves.map(({ subnet, publicIp }) => [subnet.family, publicIp]));
}

/**
 * flannel's key for a lease of these subnets: `10.5.38.0-24`; with both families
 * `10.5.33.0-24&fc00:5:0:e::-64`; with IPv6 alone `0.0.0.0-0&fc00:5:0:3c::-64`.
 */
export function leaseKey(subnets: readonly Cidr[]): string {
  const part = (family: Family) => {
    const subnet = subnets.find((candidate) => candidate.family === family);
    return subnet && `${subnet.address}-${subnet.prefixLength}`;
  };
  const ipv6 = part(6);
  return (part(4) ?? NO_IPV4) + (ipv6 === undefined ? "" : `&${ipv6}`);
}

/** Reads what {@link leaseKey} writes. `undefined` if the key is not one of flannel's. */
export function parseLeaseKey(key: string): readonly Cidr[] | undefined {
  const join = key.indexOf("&");
  const ipv4 = join < 0 ? key : key.slice(0, join);
  const subnets: Cidr[] = [];
  if (ipv4 !== NO_IPV4) {
    const subnet = parseKeyPart(ipv4, 4);
    if (subnet === undefined) return undefined;
    subnets.push(subnet);
  }
  if (join >= 0) {
    const subnet = parseKeyPart(key.slice(join + 1), 6);
    if (subnet === undefined) return undefined;
    subnets.push(subnet);
  }
  return subnets.length > 0 ? subnets : undefined;
}

/** Reads one family's part. It has one spelling alone: two keys must not name one subnet. */
function parseKeyPart(text: string, family: Family): Cidr | undefined {
  const dash = text.indexOf("-");
  const address = IpAddress.tryParse(text.slice(0, dash));
  const length = text.slice(dash + 1);
  if (dash < 0 || address?.family !== family || !/^(0|[1-9]\d{0,2})$/.test(length)) {
    return undefined;
  }
  if (Number(length) > addressBits(family)) return undefined;
  const subnet = new Cidr(address, Number(length));
  // A key with host bits set would name a subnet that is not the one its holder uses.
  const isExact = subnet.address.equals(address);
  // Of an IPv4 address there is one spelling that can be read.
  return isExact && (family === 4 || text.startsWith(`${address}-`)) ? subnet : undefined;
}

const address = z.string().transform((text, context) => {
  const parsed = IpAddress.tryParse(text);
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: "custom", message: `${JSON.stringify(text)} is not an IP address` });
  return z.NEVER;
});

/** The value of a lease. */
interface LeaseValue {
  readonly PublicIP: IpAddress;
  readonly PublicIPv6?: IpAddress | null | undefined;
  readonly BackendType: string;
  readonly BackendData?: unknown;
  readonly BackendV6Data?: unknown;
}

/** Reads a lease's value if it is as it should be. */
function readUsual(json: unknown): LeaseValue | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const { PublicIP, PublicIPv6, BackendType = "", BackendData, BackendV6Data } = json as {
    readonly [Key in keyof LeaseValue]: unknown;
  };
  if (typeof PublicIP !== "string" || typeof BackendType !== "string") return undefined;
  const ipv4 = IpAddress.tryParse(PublicIP);
  const ipv6 = typeof PublicIPv6 === "string" ? IpAddress.tryParse(PublicIPv6) : PublicIPv6 ?? null;
  return ipv4 !== undefined && (ipv6 === null || ipv6 instanceof IpAddress)
    ? { PublicIP: ipv4, PublicIPv6: ipv6, BackendType, BackendData, BackendV6Data }
    : undefined;
}

const leaseValue: z.ZodType<LeaseValue> = z.object({
  PublicIP: address,
  PublicIPv6: address.nullish(),
  BackendType: z.string().default(""),
  BackendData: z.unknown().optional(),
  BackendV6Data: z.unknown().optional(),
});

function readUnusual(key: string, json: unknown): LeaseValue {
  const parsed = leaseValue.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new RuntimeError(`lease ${key}: ${issue!.path.join(".") || "value"}: ${issue!.message}`);
}

/** flannel's backend whose nodes write and read `BackendData` even without IPv4. */
const EXTENSION = "extension";

/**
 * A lease's value as flannel writes it: JSON with `PublicIP`, `PublicIPv6`, and, if the backend has them,
 * `BackendType`, `BackendData` and `BackendV6Data`.
 */
export function formatLeaseValue(lease: Lease): string {
  const [ipv4, ipv6] = FAMILIES.map((family) => leaseHalf(lease, family));
  const asIpv4 = ipv4 === undefined && lease.backendType === EXTENSION;
  return JSON.stringify({
    PublicIP: ipv4?.publicIp ?? "0.0.0.0",
    PublicIPv6: ipv6?.publicIp ?? null,
    BackendType: lease.backendType || undefined,
    BackendData: (asIpv4 ? ipv6 : ipv4)?.backendData,
    BackendV6Data: asIpv4 ? undefined : ipv6?.backendData,
  });
}

/**
 * Reads a lease from flannel's key and value. Throws a `RuntimeError` that names the key and what is
 * wrong with it.
 *
 * @param expiry when it ends, of which neither key nor value says anything; "unknown" unless given
 */
export function parseLease(key: string, value: string, expiry: Expiry = "unknown"): Lease {
  const subnets = parseLeaseKey(key);
  if (subnets === undefined) throw new RuntimeError(`lease ${key}: the key does not name a subnet`);
  let json: unknown;
  try {
    json = JSON.parse(value);
  } catch (error) {
    throw new RuntimeError(`lease ${key}: the value is not JSON`, { cause: error });
  }
  const data = readUsual(json) ?? readUnusual(key, json);
  const halves = subnets.map((subnet): LeaseHalf => {
    const publicIp = subnet.family === 4 ? data.PublicIP : data.PublicIPv6;
    if (publicIp?.family !== subnet.family) {
      throw new RuntimeError(`lease ${key}: no public IPv${subnet.family} address`);
    }
    const asIpv4 = subnets.length === 1 && data.BackendType === EXTENSION;
    const backendData = subnet.family === 4 || asIpv4 ? data.BackendData : data.BackendV6Data;
    return { subnet, publicIp, backendData: backendData ?? undefined };
  });
  return { key, backendType: data.BackendType, halves, expiry };
}
