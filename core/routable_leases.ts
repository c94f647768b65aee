/**
 * Which leases may be routed: those whose subnet holds no host's address.
 *
 * @module
 */

import { Complaints } from "./complaints.ts";
import { holdsHost, type HostAddress, hostsOf, hostWithin } from "./host_network.ts";
import { Cidr, type Family } from "./ip.ts";
import { type Lease, type LeaseHalf, parseLeaseKey } from "./lease.ts";
import type { LeaseEvent } from "./lease_store.ts";
import type { Logger } from "./log.ts";

/** What {@link RoutableLeases} works with. */
export interface RoutableLeasesOptions {
  /** The pods' networks as they are now: only hosts inside of them matter. */
  readonly networks: () => readonly Cidr[];
  /** The key of this node's own lease, which is never left out. */
  readonly ownKey: () => string;
  /** The keys of all leases that were handed on and not removed since. */
  readonly handedOn: () => Iterable<string>;
  /** Called when a lease that was left out may be routed after all: all leases must be read again. */
  readonly onFreed: () => void;
  /** Takes a line for each lease that is left out, once. */
  readonly log: Logger;
}

/**
 * Leaves out of a store's events the leases whose subnet holds an address that must be reached on the network between
 * the hosts: this node's, its router's, the store's, or that of any lease's node. Between the node that came last and
 * the subnet that was there before, the node wins: a route to the subnet would take the packets to it, and with them
 * every pod on it, while without the route the pods of one node are missed, which gets another subnet when its agent
 * starts again.
 *
 * As long as no host has an address in the pods' networks, a lease costs a few comparisons, and is not remembered.
 */
export class RoutableLeases {
  readonly #options: RoutableLeasesOptions;
  #hosts = new HostIndex();
  /** The keys of all leases, by each of their subnets, as text; `undefined` as long as nobody has asked for one. */
  #keys: Map<string, string> | undefined;
  /** The keys of the leases that are left out. */
  readonly #left = new Set<string>();
  readonly #complaints = new Complaints();

  /** No lease and no host is known yet. */
  constructor(options: RoutableLeasesOptions) {
    this.#options = options;
  }

  /** Whether any host has an address in the pods' networks. */
  get hasHosts(): boolean {
    return this.#hosts.size > 0;
  }

  /** The hosts whose addresses lie in a subnet. */
  hostsIn(subnet: Cidr): readonly HostAddress[] {
    return this.#hosts.within(subnet);
  }

  /** Applies an event of the store's watch, and returns it without the leases that may not be routed. */
  apply(event: LeaseEvent): LeaseEvent {
    const leases = event.kind === "snapshot" ? event.leases : event.put;
    if (event.kind === "snapshot") this.#forget(new Set(leases.map(({ key }) => key)));
    const touched = new Set<string>();
    const gone = event.kind === "snapshot" ? [] : event.removed;
    for (const key of gone) {
      for (const subnet of this.#hosts.set(key, [])) touched.add(subnet);
      this.#left.delete(key);
      this.#complaints.resolve(key);
    }
    for (const { halves } of leases) for (const { subnet } of halves) this.#hosts.learn(subnet);
    const networks = this.#options.networks();
    const isInside = ({ publicIp }: LeaseHalf) => networks.some((one) => one.contains(publicIp));
    for (const lease of leases) {
      const inside = lease.halves.some(isInside) ? this.#inside(hostsOf(lease)) : [];
      for (const subnet of this.#hosts.set(lease.key, inside)) touched.add(subnet);
    }
    const { put = [], left = [] } = Object.groupBy(
      leases,
      (lease) => this.#mayBeRouted(lease) ? "put" : "left",
    );
    if (event.kind === "snapshot") return { kind: "snapshot", leases: put };
    if (touched.size > 0) this.#keys ??= this.#keysBySubnet();
    this.#remember(gone, leases);
    const others = this.#review(touched, new Set(leases.map(({ key }) => key)));
    return { kind: "changes", put, removed: [...gone, ...left.map(({ key }) => key), ...others] };
  }

  /** Replaces the hosts that are known otherwise than by leases, and returns which leases may not be routed any more. */
  setHosts(hosts: readonly HostAddress[]): LeaseEvent {
    const touched = this.#hosts.set("", this.#inside(hosts));
    if (touched.length > 0) this.#keys ??= this.#keysBySubnet();
    return { kind: "changes", put: [], removed: this.#review(touched, new Set()) };
  }

  #inside(hosts: readonly HostAddress[]): readonly HostAddress[] {
    const networks = this.#options.networks();
    return hosts.filter((host) => hostWithin(networks, [host]) !== undefined);
  }

  /** Before a snapshot: the networks may be others, too. */
  #forget(present: ReadonlySet<string>): void {
    const known = this.#hosts.of("");
    this.#hosts = new HostIndex();
    this.#hosts.set("", this.#inside(known));
    for (const key of [...this.#left, this.#options.ownKey()]) {
      if (!present.has(key)) this.#complaints.resolve(key);
    }
    this.#keys = undefined;
    this.#left.clear();
  }

  /** The keys of all leases before the event that is being applied. */
  #keysBySubnet(): Map<string, string> {
    const { handedOn, ownKey } = this.#options;
    return new Map(
      [...handedOn(), ...this.#left, ownKey()].flatMap((key) =>
        halvesOf(key).map(({ subnet }) => [`${subnet}`, key] as const)
      ),
    );
  }

  #remember(gone: readonly string[], leases: readonly Lease[]): void {
    if (this.#keys === undefined) return;
    for (const { subnet } of gone.flatMap(halvesOf)) this.#keys.delete(`${subnet}`);
    for (const { key, halves } of leases) {
      for (const { subnet } of halves) this.#keys.set(`${subnet}`, key);
    }
  }

  /** Looks at subnets again in which hosts came or went. Returns the leases that may not be routed any more. */
  #review(subnets: Iterable<string>, known: ReadonlySet<string>): readonly string[] {
    const keys = new Set([...subnets].flatMap((subnet) => this.#keys?.get(subnet) ?? []));
    let freed = false;
    const left: string[] = [];
    for (const key of keys) {
      if (known.has(key)) continue;
      const was = this.#left.has(key);
      const may = this.#mayBeRouted({ key, halves: halvesOf(key) });
      if (!may && !was) left.push(key);
      freed ||= may && was;
    }
    if (freed) this.#options.onFreed();
    return left;
  }

  /** Judges a lease, and says why it is left out. */
  #mayBeRouted(
    { key, halves }: Pick<Lease, "key"> & { readonly halves: readonly Half[] },
  ): boolean {
    const { log, ownKey } = this.#options;
    const subnets = halves.map(({ subnet }) => subnet);
    const [host] = this.hasHosts ? subnets.flatMap((subnet) => this.#hosts.within(subnet)) : [];
    if (host === undefined) {
      this.#left.delete(key);
      this.#complaints.resolve(key);
      return true;
    }
    const why = holdsHost(subnets, host);
    const isOwn = key === ownKey();
    if (!isOwn) this.#left.add(key);
    if (!this.#complaints.isNew(why, key)) return isOwn;
    if (isOwn) {
      log.error(
        "own-subnet-holds-host",
        `this node's ${why}: other nodes do not reach this node's pods. Drain this node's pods and start the ` +
          "agent again: it gets another subnet; or choose a pod network in which no host has an address",
        { lease: key },
      );
    } else {
      log.warn(
        "subnet-holds-host",
        `lease ${key} is not followed: ${why}, which pods there would cut off. Start the agent of the lease's ` +
          "node again: it gets another subnet; or choose a pod network in which no host has an address",
        { lease: key },
      );
    }
    return isOwn;
  }
}

/** What of a lease's half is looked at. */
interface Half {
  readonly subnet: Cidr;
}

function halvesOf(key: string): readonly Half[] {
  return (parseLeaseKey(key) ?? []).map((subnet) => ({ subnet }));
}

/** Hosts by the subnets that they are in. Subnets have few lengths: one, unless nodes were given others by hand. */
class HostIndex {
  readonly #bySource = new Map<string, readonly HostAddress[]>();
  /** For each subnet that holds hosts, as text, who told of them. */
  readonly #bySubnet = new Map<string, Set<string>>();
  readonly #lengths: Readonly<Record<Family, Set<number>>> = { 4: new Set(), 6: new Set() };

  /** The number of those who told of hosts. */
  get size(): number {
    return this.#bySource.size;
  }

  /** The hosts that somebody told of. */
  of(source: string): readonly HostAddress[] {
    return this.#bySource.get(source) ?? [];
  }

  /** From now on hosts are found in subnets of this one's length. */
  learn({ family, prefixLength }: Cidr): void {
    if (this.#lengths[family].has(prefixLength)) return;
    this.#lengths[family].add(prefixLength);
    for (const [source, hosts] of this.#bySource) this.#add(source, hosts);
  }

  /** Replaces the hosts that somebody told of. Returns the subnets in which hosts came or went, as text. */
  set(source: string, hosts: readonly HostAddress[]): readonly string[] {
    const before = this.of(source);
    if (before.length === 0 && hosts.length === 0) return [];
    const touched = [...before, ...hosts].flatMap((host) => this.#subnetsOf(host));
    for (const subnet of touched) {
      const sources = this.#bySubnet.get(subnet);
      sources?.delete(source);
      if (sources?.size === 0) this.#bySubnet.delete(subnet);
    }
    if (hosts.length === 0) this.#bySource.delete(source);
    else this.#bySource.set(source, hosts);
    this.#add(source, hosts);
    return touched;
  }

  /** The hosts in a subnet. */
  within(subnet: Cidr): readonly HostAddress[] {
    this.learn(subnet);
    return [...this.#bySubnet.get(`${subnet}`) ?? []].flatMap((source) =>
      this.of(source).filter(({ address }) => subnet.contains(address))
    );
  }

  #add(source: string, hosts: readonly HostAddress[]): void {
    for (const subnet of hosts.flatMap((host) => this.#subnetsOf(host))) {
      const sources = this.#bySubnet.get(subnet) ?? new Set<string>();
      this.#bySubnet.set(subnet, sources.add(source));
    }
  }

  #subnetsOf({ address }: HostAddress): readonly string[] {
    return [...this.#lengths[address.family]].map((length) => `${new Cidr(address, length)}`);
  }
}
