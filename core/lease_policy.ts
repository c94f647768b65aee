/**
 * What every store decides alike: which lease a node holds, which subnets it gets, what a reservation may
 * take. Stores differ in how they read and write; none of them repeats any of this.
 *
 * @module
 */

import { ConfigError, RuntimeError } from "./errors.ts";
import {
  holdsHost,
  type HostAddress,
  type HostNetwork,
  hostsOf,
  hostWithin,
  UNKNOWN_HOST_NETWORK,
} from "./host_network.ts";
import { type Cidr, FAMILIES, type IpAddress } from "./ip.ts";
import {
  type Expiry,
  type Lease,
  type LeaseHalf,
  leaseHalf,
  leaseKey,
  parseLeaseKey,
} from "./lease.ts";
import {
  LeaseLostError,
  type LeaseRequest,
  type NodeIdentity,
  type ReservationRequest,
} from "./lease_store.ts";
import type { Logger } from "./log.ts";
import { fitsConfig, type NetworkConfig } from "./net_conf.ts";
import { chooseSubnets, SubnetAllocator } from "./subnet_allocator.ts";

/** A stored lease; stores add what they need to know of it. */
export interface StoredLease {
  /** See {@link Lease.key}. */
  readonly key: string;
  /** What is stored under the key; `undefined` if it can't be read. */
  readonly lease: Lease | undefined;
}

/** How a store finds leases that have not ended. */
export interface LeaseIndex<Found extends StoredLease> {
  /** The lease under a key. */
  byKey(key: string): Found | undefined;
  /** A lease whose node is reached at this address. */
  byPublicIp(publicIp: IpAddress): Found | undefined;
}

/** A row of a store, and the lease in it. */
export interface ReadRow<Row> extends StoredLease {
  /** The row. */
  readonly row: Row;
  /** See {@link StoredLease.lease}. */
  readonly lease: Lease;
}

/**
 * The index of a store that has all leases at hand, but for those that can't be read.
 *
 * @param leaseOf reads a row; `undefined` if it can't be read
 */
export function indexOf<Row extends { readonly key: string }>(
  rows: readonly Row[],
  leaseOf: (row: Row) => Lease | undefined,
): LeaseIndex<ReadRow<Row>> {
  const found = (row: Row | undefined) => {
    const lease = row && leaseOf(row);
    return lease && { key: lease.key, row: row!, lease };
  };
  return {
    byKey: (key) => found(rows.find((row) => row.key === key)),
    byPublicIp: (publicIp) =>
      found(rows.find((row) => {
        const lease = leaseOf(row);
        return lease && leaseHalf(lease, publicIp.family)?.publicIp.equals(publicIp);
      })),
  };
}

/**
 * The lease that a node holds: the one of its last run, if it still is that node's, else the one under the first
 * of its public IPs that has one.
 */
export function findHeld<Found extends StoredLease>(
  node: NodeIdentity,
  index: LeaseIndex<Found>,
): Found | undefined {
  const before = index.byKey(leaseKey(node.previousSubnets));
  if (before?.lease !== undefined && heldBefore(node, before.lease)) return before;
  for (const family of FAMILIES) {
    const publicIp = node.publicIps.get(family);
    const found = publicIp && index.byPublicIp(publicIp);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * Whether a lease is the one that a node held in its last run: of the same subnets, under the addresses that
 * the node had then.
 */
export function heldBefore(node: NodeIdentity, lease: Lease): boolean {
  const publicIps = node.previousPublicIps ?? node.publicIps;
  return lease.key === leaseKey(node.previousSubnets) &&
    lease.halves.every(({ subnet, publicIp }) => publicIps.get(subnet.family)?.equals(publicIp));
}

/**
 * Whether the lease that is stored under a node's key still is that node's: it names the same public IP in each
 * family.
 */
function stillHolds(lease: Lease, stored: Lease): boolean {
  return lease.halves.every(({ subnet, publicIp }) =>
    leaseHalf(stored, subnet.family)?.publicIp.equals(publicIp)
  );
}

/**
 * Checks before a renewal that the node still holds its lease. Returns what is stored under the lease's key, or
 * throws a LeaseLostError.
 *
 * @param row what is under the key
 * @param read reads a row; `undefined` if it can't be read
 */
export function requireHeld<Row extends { readonly value: string | null }>(
  lease: Lease,
  row: Row | undefined,
  read: (row: Row) => Lease | undefined,
): Row {
  if (row === undefined) {
    throw new LeaseLostError(`the lease ${lease.key} has ended or was deleted`);
  }
  const stored = read(row);
  if (stored === undefined || !stillHolds(lease, stored)) {
    throw new LeaseLostError(`the lease ${lease.key} belongs to another node: ${row.value}`);
  }
  return row;
}

/** Which subnets a node is to have. */
export interface LeaseChoice {
  /** One a family, IPv4 first. */
  readonly subnets: readonly Cidr[];
  /** Whether they are those of the lease that it has. */
  readonly keeps: boolean;
  /** The host whose address is in the subnets of the lease that it has: why it can't keep them, if that is why. */
  readonly host?: HostAddress | undefined;
}

/**
 * Chooses a node's subnets: those of the lease that it has, if net-conf still allows them and they hold no host's
 * address; else those of its last run, if free; else free ones. Throws a RuntimeError if a network is full, and a
 * LeaseLostError if no others than those of its last run will do and it can't have them.
 *
 * @param held the lease that the node has
 * @param others all other leases, readable or not; called only if they count
 */
export function chooseLease(
  config: NetworkConfig,
  request: LeaseRequest,
  held: Lease | undefined,
  others: () => Iterable<StoredLease>,
): LeaseChoice {
  const had = held?.halves.map(({ subnet }) => subnet) ?? [];
  const wanted = leaseKey(request.previousSubnets);
  // Pods live in the subnets, so the lease is kept even if net-conf has changed since.
  if (request.only && held?.key === wanted) return { subnets: had, keeps: true };
  const rivals = [...others()];
  const networks = [...had, ...config.families.map(({ network }) => network)];
  const hostNetwork = withNodes(request, rivals, networks);
  const host = hostWithin(had, hostNetwork.hosts);
  if (!request.only && fitsConfig(config, had) && host === undefined) {
    return { subnets: had, keeps: true };
  }
  if (request.only) {
    const rival = rivals.find(({ key }) => overlaps(key, request.previousSubnets));
    if (rival !== undefined) {
      throw new LeaseLostError(`the lease ${wanted} is another node's now (${rival.key})`);
    }
    if (!fitsConfig(config, request.previousSubnets)) {
      throw new LeaseLostError(`net-conf does not allow ${wanted} any more`);
    }
    return { subnets: request.previousSubnets, keeps: false };
  }
  const taken = rivals.flatMap(({ key, lease }) =>
    lease?.halves.map(({ subnet }) => subnet) ?? parseLeaseKey(key) ?? []
  );
  const allocators = config.families.map((family) =>
    new SubnetAllocator(family, taken, hostNetwork)
  );
  const preferred = [...had, ...request.previousSubnets];
  return { subnets: chooseSubnets(allocators, preferred), keeps: false, host };
}

/**
 * The network between the hosts as a node knows it, with the addresses in some networks at which the others' leases name
 * nodes.
 */
function withNodes(
  { hostNetwork = UNKNOWN_HOST_NETWORK }: LeaseRequest,
  others: readonly StoredLease[],
  networks: readonly Cidr[],
): HostNetwork {
  const isInside = ({ publicIp }: LeaseHalf) => networks.some((one) => one.contains(publicIp));
  const nodes = others.flatMap(({ lease }) => lease?.halves.some(isInside) ? hostsOf(lease) : []);
  return { ...hostNetwork, hosts: [...hostNetwork.hosts, ...nodes] };
}

/** Logs that a node gives up the lease that it held for the subnets that were chosen, and why. */
export function logLeaseReplaced(
  log: Logger,
  config: NetworkConfig,
  request: LeaseRequest,
  { key, lease }: StoredLease,
  { subnets, host }: LeaseChoice,
): void {
  const why = lease === undefined
    ? "it can't be read"
    : request.only
    ? "this node's pods live in the other subnet"
    : host !== undefined
    ? holdsHost(lease.halves.map(({ subnet }) => subnet), host)
    : fitsConfig(config, lease.halves.map(({ subnet }) => subnet))
    ? "it overlaps an older one"
    : "net-conf does not allow it any more";
  log.warn(
    "lease-replaced",
    `the lease ${key} gives way to ${leaseKey(subnets)}: ${why}`,
  );
}

/** A lease of these subnets, as a node asks for it. Throws a RuntimeError if the node lacks a public IP. */
export function requestedLease(
  request: Omit<LeaseRequest, "previousSubnets">,
  subnets: readonly Cidr[],
  expiry: Expiry,
): Lease {
  const halves = subnets.map((subnet) => {
    const publicIp = request.publicIps.get(subnet.family);
    if (publicIp !== undefined) {
      return { subnet, publicIp, backendData: request.backendData.get(subnet.family) };
    }
    throw new RuntimeError(
      `net-conf enables IPv${subnet.family}, for which the node has no public address; give it one, or ` +
        `name one with --public-ip${subnet.family === 6 ? "v6" : ""}`,
    );
  });
  return { key: leaseKey(subnets), backendType: request.backendType, halves, expiry };
}

/**
 * The reservation to write: the lease of these subnets if the node holds it already, else a new one that says
 * nothing of a backend. Throws a ConfigError if net-conf does not allow the subnets, and a RuntimeError if the
 * node or the subnets are taken.
 *
 * @param leases every lease that is held
 */
export function chooseReservation(
  config: NetworkConfig,
  { subnets, publicIps }: ReservationRequest,
  leases: readonly StoredLease[],
): Lease {
  const ordered = subnets.toSorted((a, b) => a.family - b.family);
  if (!fitsConfig(config, ordered)) {
    const allowed = config.families.map(({ subnetLength, subnetMin, subnetMax }) =>
      `a /${subnetLength} from ${subnetMin} to ${subnetMax}`
    );
    throw new ConfigError(
      `${ordered.join(" and ")} can't be reserved: net-conf leases ${allowed.join(" with ")}`,
    );
  }
  const asked = requestedLease(
    { publicIps, backendType: "", backendData: new Map() },
    ordered,
    "never",
  );
  const nodes = leases.flatMap(({ lease }) => lease === undefined ? [] : hostsOf(lease));
  const own = [...publicIps.values()].map((address) => ({ address, whose: "its own node" }));
  const host = hostWithin(ordered, [...own, ...nodes]);
  if (host !== undefined) {
    throw new RuntimeError(`${asked.key} can't be reserved: ${holdsHost(ordered, host)}`);
  }
  let reserved = asked;
  for (const { key, lease } of leases) {
    const same = lease !== undefined && holdsAlike(asked, lease);
    if (key === asked.key && same) reserved = { ...lease, expiry: "never" };
    else if (overlaps(key, ordered)) {
      const why = lease === undefined
        ? `the lease ${key} is in the way, and can't be read`
        : `${key} is leased to ${lease.halves.map(({ publicIp }) => publicIp).join(" ")}`;
      throw new RuntimeError(`${asked.key} can't be reserved: ${why}`);
    } else if (same) {
      throw new RuntimeError(
        `${asked.key} can't be reserved: its node holds ${key}, which must be released first`,
      );
    }
  }
  return reserved;
}

/** Whether two leases name the same node: the same public IP in a family that both have. */
export function holdsAlike(one: Lease, other: Lease): boolean {
  return one.halves.some(({ subnet, publicIp }) =>
    leaseHalf(other, subnet.family)?.publicIp.equals(publicIp)
  );
}

/** Whether a lease's key names a subnet that shares addresses with one of these. */
export function overlaps(key: string, subnets: readonly Cidr[]): boolean {
  return (parseLeaseKey(key) ?? []).some((held) => subnets.some((subnet) => held.overlaps(subnet)));
}
