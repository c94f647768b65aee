/**
 * What every store decides alike: which subnets a node gets, what a reservation may take, and which of
 * the stored leases can be read.
 *
 * @module
 */

import { ConfigError, messageOf, RuntimeError } from "./errors.ts";
import type { Cidr } from "./ip.ts";
import {
  type Expiry,
  type Lease,
  leaseHalf,
  leaseKey,
  parseLease,
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

/** Which subnets a node is to have. */
export interface LeaseChoice {
  /** One a family, IPv4 first. */
  readonly subnets: readonly Cidr[];
  /** Whether they are those of the lease that it has. */
  readonly keeps: boolean;
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
 * Chooses a node's subnets: those of the lease that it has, where net-conf still allows them; else those of
 * its last run, where free; else free ones. Throws a RuntimeError where a network is full, and a
 * LeaseLostError where no others than those of its last run will do.
 *
 * @param held the lease that the node has
 * @param others the keys of all other leases, readable or not; asked for only where they count
 */
export function chooseLease(
  config: NetworkConfig,
  request: LeaseRequest,
  held: Lease | undefined,
  others: () => Iterable<string>,
): LeaseChoice {
  const had = held?.halves.map(({ subnet }) => subnet) ?? [];
  const wanted = leaseKey(request.previousSubnets);
  // Where pods live in it, a lease is kept also when net-conf has changed since.
  if (request.only ? held?.key === wanted : fitsConfig(config, had)) {
    return { subnets: had, keeps: true };
  }
  const keys = [...others()];
  if (request.only) {
    const rival = keys.find((key) => overlaps(key, request.previousSubnets));
    if (rival !== undefined) {
      throw new LeaseLostError(`the lease ${wanted} is another node's now (${rival})`);
    }
    if (!fitsConfig(config, request.previousSubnets)) {
      throw new LeaseLostError(`net-conf does not allow ${wanted} any more`);
    }
    return { subnets: request.previousSubnets, keeps: false };
  }
  const taken = keys.flatMap((key) => parseLeaseKey(key) ?? []);
  const allocators = config.families.map((family) => new SubnetAllocator(family, taken));
  const preferred = [...had, ...request.previousSubnets];
  return { subnets: chooseSubnets(allocators, preferred), keeps: false };
}

/** A lease of these subnets, as a node asks for it. Throws a RuntimeError where it lacks a public IP. */
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
 * The reservation to write: the lease of these subnets, where the node holds it already, else a new one
 * that says nothing of a backend. Throws a ConfigError where net-conf does not allow the subnets, and a
 * RuntimeError where the node or the subnets are taken.
 *
 * @param leases every lease that is held; `lease` is undefined where it can't be read
 */
export function chooseReservation(
  config: NetworkConfig,
  { subnets, publicIps }: ReservationRequest,
  leases: Iterable<{ readonly key: string; readonly lease: Lease | undefined }>,
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
  let reserved = asked;
  for (const { key, lease } of leases) {
    const holder = lease?.halves.map(({ publicIp }) => publicIp).join(" ") ?? "nobody knows whom";
    const same = lease !== undefined && holdsAlike(asked, lease);
    if (key === asked.key && same) reserved = { ...lease, expiry: "never" };
    else if (overlaps(key, ordered)) {
      throw new RuntimeError(`${asked.key} can't be reserved: ${key} is leased to ${holder}`);
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
  return (parseLeaseKey(key) ?? []).some((held) =>
    subnets.some((subnet) => held.contains(subnet) || subnet.contains(held))
  );
}

/** Reads stored leases, and says of one that can't be read why, once for as long as its value stays. */
export class LeaseReader {
  readonly #where: string;
  readonly #log: Logger;
  readonly #unreadable = new Map<string, string>();

  /** A reader for one store, which `where` names in warnings. */
  constructor(where: string, log: Logger) {
    this.#where = where;
    this.#log = log;
  }

  /** A lease from flannel's key and value, of a store's revision; `undefined` where they can't be read. */
  read(
    key: string,
    value: string,
    expiry: Expiry,
    revision: number,
  ): Lease | undefined {
    try {
      const lease = parseLease(key, value, expiry);
      this.#unreadable.delete(key);
      return { ...lease, revision };
    } catch (error) {
      if (this.#unreadable.get(key) !== value) {
        this.#unreadable.set(key, value);
        this.#log.warn(
          "lease-unreadable",
          `${this.#where}: ${messageOf(error)}; it is taken for none`,
        );
      }
      return undefined;
    }
  }

  /** The lease is gone. */
  forget(key: string): void {
    this.#unreadable.delete(key);
  }
}
