/**
 * Picks free subnets out of a cluster's network.
 *
 * @module
 */

import { RuntimeError } from "./errors.ts";
import { type HostAddress, type HostNetwork, UNKNOWN_HOST_NETWORK } from "./host_network.ts";
import { addressBits, Cidr, IpAddress } from "./ip.ts";
import type { FamilyConfig } from "./net_conf.ts";

/** How many hosts a message names. */
const MAX_HOSTS_NAMED = 5;

/** Gives a whole number from 0 up to, but not including, `limit`, each as likely as any other. */
export type RandomBelow = (limit: bigint) => bigint;

/** {@link RandomBelow} from the system's random numbers; `limit` is at most 2¹²⁸. */
export function randomBelow(limit: bigint): bigint {
  // 64 bits more than needed, so that the remainder's bias is too small to matter.
  const words = crypto.getRandomValues(new BigUint64Array(3));
  return words.reduce((value, word) => (value << 64n) | word, 0n) % limit;
}

/** Neighbouring subnets, by their numbers from the start of the network: from the first up to, but not, the end. */
interface Interval {
  readonly first: bigint;
  readonly end: bigint;
}

/** What is free in one family's network, as a sorted list of what is not. */
export class SubnetAllocator {
  /** How many subnets are free. */
  readonly free: bigint;
  readonly #config: FamilyConfig;
  /** The number of host bits in an address of a subnet. */
  readonly #hostBits: bigint;
  /** Disjoint, in order. */
  readonly #taken: readonly Interval[];
  /** The hosts whose addresses are in subnets that net-conf allows. */
  readonly #hosts: readonly HostAddress[];
  /** The same with less that is free: what `pick` prefers; `undefined` if that is no different. */
  readonly #preferred: SubnetAllocator | undefined;

  /**
   * All is free but what net-conf bars, the network's first subnet, what is held, and what holds a host's address. A
   * held subnet of any length blocks each subnet that it overlaps; one outside the network, or of the other family,
   * blocks none.
   *
   * @param hostNetwork the network between the hosts; `pick` avoids its links if it can
   */
  constructor(
    config: FamilyConfig,
    held: Iterable<Cidr> = [],
    { hosts, links }: HostNetwork = UNKNOWN_HOST_NETWORK,
  ) {
    const { family, network, subnetLength, subnetMin, subnetMax } = config;
    this.#config = config;
    this.#hostBits = BigInt(addressBits(family) - subnetLength);
    const end = 1n << BigInt(subnetLength - network.prefixLength);
    const min = this.#number(subnetMin);
    const taken: Interval[] = [
      // flannel never leases the first subnet: its address is the network's own.
      { first: 0n, end: min > 1n ? min : 1n },
      { first: this.#number(subnetMax) + 1n, end },
    ];
    const lastAddress = new Cidr(subnetMax, subnetLength).last;
    this.#hosts = hosts.filter(({ address }) =>
      network.contains(address) && subnetMin.value <= address.value &&
      address.value <= lastAddress.value
    );
    const blocked = [
      ...held,
      ...this.#hosts.map(({ address }) => new Cidr(address, addressBits(family))),
    ];
    for (const subnet of blocked) {
      if (subnet.contains(network)) taken.push({ first: 0n, end });
      else if (network.contains(subnet)) {
        const first = this.#number(subnet.address);
        // A longer prefix is a part of one subnet, a shorter one several.
        const bits = BigInt(Math.max(0, subnetLength - subnet.prefixLength));
        taken.push({ first, end: first + (1n << bits) });
      }
    }
    this.#taken = merge(taken);
    this.free = this.#taken.reduce((free, { first, end }) => free - (end - first), end);
    const crossing = links.filter((link) => link.overlaps(network));
    this.#preferred = crossing.length === 0
      ? undefined
      : new SubnetAllocator(config, [...blocked, ...crossing]);
  }

  /** Whether `pick` might give this subnet. */
  isFree(subnet: Cidr): boolean {
    const { family, network, subnetLength } = this.#config;
    if (
      subnet.family !== family || subnet.prefixLength !== subnetLength || !network.contains(subnet)
    ) return false;
    const number = this.#number(subnet.address);
    return !this.#taken.some(({ first, end }) => first <= number && number < end);
  }

  /**
   * A free subnet, each as likely as any other, and outside of the hosts' links if there is one; `undefined` if the
   * network is full. Does not hold it.
   */
  pick(random: RandomBelow = randomBelow): Cidr | undefined {
    const preferred = this.#preferred?.pick(random);
    if (preferred !== undefined) return preferred;
    if (this.free === 0n) return undefined;
    // Its place among the free subnets, and one more for each taken subnet before it.
    let number = random(this.free);
    for (const { first, end } of this.#taken) {
      if (number < first) break;
      number += end - first;
    }
    const { family, network, subnetLength } = this.#config;
    const address = new IpAddress(family, network.address.value + (number << this.#hostBits));
    return new Cidr(address, subnetLength);
  }

  /** The RuntimeError for when `pick` finds nothing. */
  full(): RuntimeError {
    const { network, subnetLength, subnetMin, subnetMax } = this.#config;
    const hosts = this.#hosts.map(({ address, whose }) => `${address} of ${whose}`);
    const why = hosts.length === 0
      ? "leased"
      : `leased, or holds a host's address (${hosts.slice(0, MAX_HOSTS_NAMED).join(", ")}${
        hosts.length > MAX_HOSTS_NAMED ? " …" : ""
      })`;
    return new RuntimeError(
      `the network ${network} is full: every /${subnetLength} from ${subnetMin} to ${subnetMax} is ` +
        `${why}; give up leases that nobody uses, or enlarge the network in net-conf`,
    );
  }

  #number(address: IpAddress): bigint {
    return (address.value - this.#config.network.address.value) >> this.#hostBits;
  }
}

/**
 * A subnet from each allocator, one a family: the first of the preferred ones that is free, else any.
 * Throws a RuntimeError if a network is full.
 */
export function chooseSubnets(
  allocators: readonly SubnetAllocator[],
  preferred: readonly Cidr[],
  random: RandomBelow = randomBelow,
): readonly Cidr[] {
  return allocators.map((allocator) => {
    const subnet = preferred.find((subnet) => allocator.isFree(subnet)) ?? allocator.pick(random);
    if (subnet === undefined) throw allocator.full();
    return subnet;
  });
}

/** The same numbers in disjoint intervals, in order. */
function merge(intervals: readonly Interval[]): Interval[] {
  const merged: Interval[] = [];
  const sorted = intervals.toSorted((a, b) => a.first < b.first ? -1 : a.first > b.first ? 1 : 0);
  for (const { first, end } of sorted) {
    const last = merged.at(-1);
    if (last === undefined || first > last.end) merged.push({ first, end });
    else if (end > last.end) merged[merged.length - 1] = { first: last.first, end };
  }
  return merged;
}
