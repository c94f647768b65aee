/**
 * The network of the hosts, beside that of the pods. Where the two overlap, an address may be a host's or a pod's: what
 * is a host's must never be routed as a pod's, or hosts lose each other, their router and their store.
 *
 * Only the addresses that are known to be hosts' are kept from pods, not the whole network of the outer device. In
 * clouds and company networks that is often a /16, or all of 10.0.0.0/8: without it a net-conf that works for years
 * would have no subnet left. A subnet outside of it is preferred (see `SubnetAllocator`), and a host that comes later,
 * at an address inside of a leased subnet, has that subnet's route withdrawn (see `RoutableLeases`).
 *
 * @module
 */

import type { Cidr, IpAddress } from "./ip.ts";
import type { Lease } from "./lease.ts";

/** An address that a host is known to have on the network between the hosts. */
export interface HostAddress {
  /** The address. */
  readonly address: IpAddress;
  /** Whose it is, to go on with after "the address of": "this node". */
  readonly whose: string;
}

/** What is known of the network between the hosts. */
export interface HostNetwork {
  /** Addresses that must be reached without the pods' network: this node's, its router's, the store's. */
  readonly hosts: readonly HostAddress[];
  /** The networks on the outer device's link: any of their addresses may be a host's. */
  readonly links: readonly Cidr[];
}

/** Nothing is known. */
export const UNKNOWN_HOST_NETWORK: HostNetwork = { hosts: [], links: [] };

/** The first of some hosts whose address lies in one of some networks. */
export function hostWithin(
  networks: readonly Cidr[],
  hosts: Iterable<HostAddress>,
): HostAddress | undefined {
  for (const host of hosts) {
    if (networks.some((network) => network.contains(host.address))) return host;
  }
  return undefined;
}

/** Whether pods' networks overlap that of the hosts, as far as it is known. */
export function overlapsHosts(networks: readonly Cidr[], { hosts, links }: HostNetwork): boolean {
  return hostWithin(networks, hosts) !== undefined ||
    links.some((link) => networks.some((network) => network.overlaps(link)));
}

/** The addresses at which a lease's node is reached. */
export function hostsOf({ key, halves }: Lease): readonly HostAddress[] {
  return halves.map(({ publicIp }) => ({ address: publicIp, whose: `the node of ${key}` }));
}

/** What is wrong with a subnet that holds a host's address: `10.5.1.0/24 holds 10.5.1.7, the address of this node`. */
export function holdsHost(
  subnets: readonly Cidr[],
  { address, whose }: HostAddress,
): string {
  const subnet = subnets.find((one) => one.contains(address));
  return `${subnet} holds ${address}, the address of ${whose}`;
}

/**
 * How pods' networks overlap that of the hosts, as a sentence for operators; `undefined` if they do not, as far as that
 * is known.
 */
export function explainOverlap(
  networks: readonly Cidr[],
  { hosts, links }: HostNetwork,
): string | undefined {
  const inside = hosts.filter((host) => hostWithin(networks, [host]) !== undefined);
  const crossing = links.filter((link) => networks.some((network) => network.overlaps(link)));
  if (inside.length === 0 && crossing.length === 0) return undefined;
  const overlapped = networks.filter((network) =>
    crossing.some((link) => network.overlaps(link)) || hostWithin([network], inside) !== undefined
  );
  const what = [
    ...crossing.map((link) => `${link} is on the link between the hosts`),
    ...inside.map(({ address, whose }) => `${address} is the address of ${whose}`),
  ];
  return `net-conf's pod network ${overlapped.join(" and ")} overlaps the hosts' network: ${
    what.join(", ")
  }. No subnet that holds a host's address is leased or routed; a host at another address inside ` +
    "a leased subnet can't be reached. Choose a pod network that no host has an address in";
}
