/**
 * Picks free subnets out of a cluster's network.
 *
 * @module
 */

import { RuntimeError } from "./errors.ts";
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

/**
 * 2^`order` neighbouring subnets, aligned to their number: one that is held, or the smallest with two
 * such in it. Subnets are numbered from the start of the network.
 */
interface Block {
  readonly order: bigint;
  /** The numbers of its first subnet, of the first in its upper half, and of the first behind it. */
  readonly first: bigint;
  readonly middle: bigint;
  readonly end: bigint;
  /** How often the block as a whole is held; Infinity where net-conf bars it, which no release undoes. */
  holders: number;
  /** How many of its subnets are not free. */
  taken: bigint;
  /** The blocks in its lower and its upper half; what is in neither is free. */
  readonly halves: [Block | undefined, Block | undefined];
}

/**
 * What is free in one family's network: a radix tree over the held subnets that counts what is taken
 * beneath each branch. To hold, to release and to pick each cost one walk down the tree, some
 * microseconds, however full the network is and however long its addresses are.
 */
export class SubnetAllocator {
  readonly #config: FamilyConfig;
  /** The number of host bits in an address of a subnet. */
  readonly #hostBits: bigint;
  readonly #root: Block;

  /** All is free but what net-conf bars, the network's first subnet, and what is held from the start. */
  constructor(config: FamilyConfig, held: Iterable<Cidr> = []) {
    const { family, network, subnetLength, subnetMin, subnetMax } = config;
    this.#config = config;
    this.#hostBits = BigInt(addressBits(family) - subnetLength);
    this.#root = newBlock(0n, BigInt(subnetLength - network.prefixLength));
    // The first subnet's address is the network's own: no device may have it, says flannel.
    const min = this.#number(subnetMin);
    this.#bar(0n, min > 1n ? min : 1n);
    this.#bar(this.#number(subnetMax) + 1n, this.#root.end);
    for (const subnet of held) this.hold(subnet);
  }

  /** How many subnets are free. */
  get free(): bigint {
    return this.#root.end - this.#root.taken;
  }

  /**
   * Takes note that a subnet is held. Whatever its length, it blocks each subnet that it overlaps, until
   * it has been released as often as it was held. One outside the network, or of the other family,
   * blocks nothing.
   */
  hold(subnet: Cidr): void {
    const block = this.#blockOf(subnet);
    if (block !== undefined) this.#hold(block.first, block.order, 1);
  }

  /** Takes back one {@link SubnetAllocator.hold} of the same subnet. */
  release(subnet: Cidr): void {
    const block = this.#blockOf(subnet);
    if (block !== undefined) this.#release(block.first, block.order);
  }

  /** Whether `pick` might give this subnet. */
  isFree(subnet: Cidr): boolean {
    const { family, network, subnetLength } = this.#config;
    if (
      subnet.family !== family || subnet.prefixLength !== subnetLength || !network.contains(subnet)
    ) return false;
    const number = this.#number(subnet.address);
    let block: Block | undefined = this.#root;
    while (block !== undefined && contains(block, number)) {
      if (block.holders > 0) return false;
      block = block.halves[half(block, number)];
    }
    return true;
  }

  /** A free subnet, each as likely as any other; `undefined` where the network is full. Does not hold it. */
  pick(random: RandomBelow = randomBelow): Cidr | undefined {
    if (this.free === 0n) return undefined;
    // The wanted subnet's number is its place among the free ones, and one more for each one taken before.
    let number = random(this.free);
    let block: Block | undefined = this.#root;
    while (block !== undefined) {
      let into: Block | undefined;
      for (const child of block.halves) {
        if (child === undefined || number < child.first) continue;
        if (number + child.taken < child.end) {
          into = child;
          break;
        }
        number += child.taken;
      }
      block = into;
    }
    const { family, network, subnetLength } = this.#config;
    const address = new IpAddress(family, network.address.value + (number << this.#hostBits));
    return new Cidr(address, subnetLength);
  }

  /** The RuntimeError for when `pick` finds nothing. */
  full(): RuntimeError {
    const { network, subnetLength, subnetMin, subnetMax } = this.#config;
    return new RuntimeError(
      `the network ${network} is full: every /${subnetLength} from ${subnetMin} to ${subnetMax} is ` +
        "leased; give up leases that nobody uses, or enlarge the network in net-conf",
    );
  }

  #number(address: IpAddress): bigint {
    return (address.value - this.#config.network.address.value) >> this.#hostBits;
  }

  /** The subnets that a network of any length overlaps. */
  #blockOf(subnet: Cidr): Pick<Block, "first" | "order"> | undefined {
    const { network, subnetLength } = this.#config;
    if (subnet.contains(network)) return this.#root;
    if (!network.contains(subnet)) return undefined;
    const order = BigInt(Math.max(subnetLength - subnet.prefixLength, 0));
    return { first: this.#number(subnet.address), order };
  }

  /** Bars all numbers from `first` up to, but not including, `end`, in blocks as large as they come. */
  #bar(first: bigint, end: bigint): void {
    while (first < end) {
      let order = 0n;
      while ((first >> order) % 2n === 0n && first + (2n << order) <= end) order++;
      this.#hold(first, order, Infinity);
      first += 1n << order;
    }
  }

  #hold(first: bigint, order: bigint, times: number): void {
    const path: Block[] = [];
    let block = this.#root;
    while (block.order > order) {
      path.push(block);
      const side = half(block, first);
      const child = block.halves[side];
      if (child === undefined) {
        block = block.halves[side] = newBlock(first, order);
      } else if (child.order >= order && contains(child, first)) {
        block = child;
      } else {
        // The child is inside the block to hold, or beside it: then both go under the smallest around them.
        const around = max(bitLength(first ^ child.first), order);
        const parent = newBlock(first, around);
        parent.halves[half(parent, child.first)] = child;
        block = block.halves[side] = parent;
      }
    }
    block.holders += times;
    for (let at: Block | undefined = block; at !== undefined; at = path.pop()) count(at);
  }

  #release(first: bigint, order: bigint): void {
    const path: Block[] = [];
    let block: Block | undefined = this.#root;
    while (block !== undefined && block.order > order) {
      path.push(block);
      block = block.halves[half(block, first)];
    }
    if (block === undefined || block.holders === 0 || !contains(block, first)) return;
    block.holders--;
    for (let at: Block | undefined = block; at !== undefined;) {
      const parent = path.pop();
      const [lower, upper] = at.halves;
      if (
        parent !== undefined && at.holders === 0 && (lower === undefined || upper === undefined)
      ) {
        // It is neither held nor a branch any more.
        parent.halves[half(parent, at.first)] = lower ?? upper;
      } else {
        count(at);
      }
      at = parent;
    }
  }
}

/**
 * A subnet from each allocator, one a family: the first of the preferred ones that is free, else any.
 * Throws a RuntimeError where a network is full.
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

/** The block around a number. */
function newBlock(number: bigint, order: bigint): Block {
  const size = 1n << order;
  const first = number - number % size;
  return {
    order,
    first,
    middle: first + (size + 1n) / 2n,
    end: first + size,
    holders: 0,
    taken: 0n,
    halves: [undefined, undefined],
  };
}

function contains({ first, end }: Block, number: bigint): boolean {
  return first <= number && number < end;
}

/** Which half of a block a number in it belongs to. */
function half({ middle }: Block, number: bigint): 0 | 1 {
  return number < middle ? 0 : 1;
}

function count(block: Block): void {
  // By index: this runs once a level of the tree, where an iterator's cost shows.
  block.taken = block.holders > 0
    ? block.end - block.first
    : (block.halves[0]?.taken ?? 0n) + (block.halves[1]?.taken ?? 0n);
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** How many bits it takes to write a number: 0 for 0. */
function bitLength(value: bigint): bigint {
  return value === 0n ? 0n : BigInt(value.toString(2).length);
}
