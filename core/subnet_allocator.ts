/**
 * Picks free subnets out of a cluster's network.
 *
 * @module
 */

import { addressBits, Cidr, IpAddress } from "./ip.ts";
import type { FamilyConfig } from "./net_conf.ts";

/** Gives a whole number from 0 up to, but not including, `limit`, each as likely as any other. */
export type RandomBelow = (limit: bigint) => bigint;

/** {@link RandomBelow} from the system's random numbers; `limit` is at most 2¹²⁸. */
export function randomBelow(limit: bigint): bigint {
  // 64 bits more than needed: what the remainder favours is too little to matter.
  const words = crypto.getRandomValues(new BigUint64Array(3));
  return words.reduce((value, word) => (value << 64n) | word, 0n) % limit;
}

/** Whether a subnet is one that net-conf lets a node have: in range, of its length, not the first. */
export function isLeasable(config: FamilyConfig, subnet: Cidr): boolean {
  const { value } = subnet.address;
  return subnet.prefixLength === config.subnetLength && config.network.contains(subnet) &&
    value !== config.network.address.value &&
    value >= config.subnetMin.value && value <= config.subnetMax.value;
}

/** A run of neighbouring subnets that are not free, by number, first to last. */
interface Run {
  readonly first: bigint;
  readonly last: bigint;
  /** How many subnets are free before it. */
  readonly freeBefore: bigint;
}

/**
 * What is free in one family's network. Subnets are numbered from the first that may be leased. To build it
 * takes a sort of what is held; to pick then takes a binary search, however full or empty the network is.
 */
export class SubnetAllocator {
  readonly #config: FamilyConfig;
  /** The number of addresses in a subnet. */
  readonly #size: bigint;
  /** The first address that may be leased. */
  readonly #base: bigint;
  readonly #runs: readonly Run[];
  readonly #free: bigint;

  /** `held` may hold subnets of any length, and overlapping ones: each blocks all that it overlaps. */
  constructor(config: FamilyConfig, held: Iterable<Cidr>) {
    const { network, subnetMin, subnetMax, subnetLength, family } = config;
    this.#config = config;
    this.#size = 1n << BigInt(addressBits(family) - subnetLength);
    // The network's first subnet is never leased: its first address is the network's own.
    const least = network.address.value + this.#size;
    this.#base = subnetMin.value < least ? least : subnetMin.value;
    const count = (subnetMax.value - this.#base) / this.#size + 1n;
    const taken = [...held].filter((subnet) => subnet.family === family)
      .map((subnet) => ({ first: this.#number(subnet.address), last: this.#number(subnet.last) }))
      .filter(({ first, last }) => last >= 0n && first < count)
      .sort((a, b) => a.first < b.first ? -1 : a.first > b.first ? 1 : 0);
    const runs: Run[] = [];
    let free = 0n, next = 0n;
    for (const { first, last } of taken) {
      if (last < next) continue;
      if (first > next) free += first - next;
      runs.push({ first: first > next ? first : next, last, freeBefore: free });
      next = last + 1n;
    }
    this.#runs = runs;
    this.#free = next < count ? free + count - next : free;
  }

  /** The number of the subnet that an address lies in; rounds down also below zero. */
  #number(address: IpAddress): bigint {
    return address.value / this.#size - this.#base / this.#size;
  }

  /** How many subnets are free. */
  get free(): bigint {
    return this.#free;
  }

  /** A free subnet, each as likely as any other; `undefined` where the network is full. */
  pick(random: RandomBelow = randomBelow): Cidr | undefined {
    if (this.#free <= 0n) return undefined;
    const rank = random(this.#free);
    // The first run before which more than `rank` subnets are free: the wanted one stands before it.
    let low = 0, high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#runs[middle]!.freeBefore > rank) high = middle;
      else low = middle + 1;
    }
    const before = this.#runs[low - 1];
    const number = before === undefined ? rank : before.last + 1n + rank - before.freeBefore;
    const address = new IpAddress(this.#config.family, this.#base + number * this.#size);
    return new Cidr(address, this.#config.subnetLength);
  }
}
