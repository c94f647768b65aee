/**
 * What this node knows of the network between the hosts, and where pods' networks overlap it.
 *
 * @module
 */

import {
  addressBits,
  Cidr,
  type Family,
  type HostAddress,
  type HostNetwork,
  IpAddress,
  type KernelState,
  type LeaseStore,
  type NetworkConfig,
  networksOf,
  type OuterInterface,
  overlapsHosts,
  subnetRoute,
} from "@denim/core";
import {
  findLink,
  listAddresses,
  listDefaultRoutes,
  listOthersRoutes,
  type NetlinkSocket,
} from "@denim/core/linux";
import { lookup } from "node:dns/promises";

/** How long the name of one of the store's servers may take to be found: the others do not wait for it. */
const LOOKUP_MS = 2_000;

/** The addresses of the store's servers, as the system finds them. A name that leads nowhere has none. */
export async function serverAddresses(
  servers: readonly string[],
): Promise<readonly HostAddress[]> {
  const found = await Promise.all(servers.map(async (server) => {
    const host = server.replace(/^\[(.*)\]$/, "$1");
    const literal = IpAddress.tryParse(host);
    if (literal !== undefined) return [literal];
    return (await lookUp(host)).flatMap((address) => IpAddress.tryParse(address) ?? []);
  }));
  const texts = new Set(found.flat().map(String));
  return [...texts].map((text) => ({ address: IpAddress.parse(text), whose: "the store" }));
}

async function lookUp(host: string): Promise<readonly string[]> {
  const late = Promise.withResolvers<readonly string[]>();
  const timer = setTimeout(() => late.resolve([]), LOOKUP_MS);
  try {
    return await Promise.race([
      lookup(host, { all: true }).then(
        (all) => all.map(({ address }) => address),
        // The store says by itself what is wrong with its servers' names.
        () => [],
      ),
      late.promise,
    ]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What the kernel tells of the network between the hosts: this node's addresses on it, the routers that packets go by,
 * and what is on the outer device's link. A link-local address is good on any link, and is in no network of pods.
 */
export function readHostNetwork(
  socket: NetlinkSocket,
  { name, addresses, publicIps }: OuterInterface,
  families: readonly Family[],
): HostNetwork {
  const index = findLink(socket, name)?.index;
  const own = [...addresses.values(), ...publicIps.values()];
  const onDevice = families.flatMap((family) =>
    index === undefined
      ? []
      : listAddresses(socket, family).filter((state) => state.index === index)
  );
  const routers = families.flatMap((family) => [
    ...listDefaultRoutes(socket, family).flatMap(({ gateways }) => gateways),
    ...index === undefined
      ? []
      : listOthersRoutes(socket, family, index).flatMap(({ gateway }) => gateway ?? []),
  ]);
  return {
    hosts: [
      ...unique([...own, ...onDevice.map(({ address }) => address)], "this node"),
      ...unique(routers, "this node's router"),
    ],
    links: onDevice.filter(({ address }) => !address.isLinkLocal)
      .map(({ address, prefixLength }) => new Cidr(address, prefixLength)),
  };
}

function unique(addresses: readonly IpAddress[], whose: string): HostAddress[] {
  const texts = new Set(addresses.filter(({ isLinkLocal }) => !isLinkLocal).map(String));
  return [...texts].map((text) => ({ address: IpAddress.parse(text), whose }));
}

/** How packets reach a host by the outer device, whatever pods are routed by. */
export interface WayToHost {
  /** The router that they go by; `undefined` if the host is on the link. */
  readonly gateway: IpAddress | undefined;
}

/**
 * Routes to hosts whose addresses lie in this node's own subnet, for each a route of its own: the pod bridge's route
 * would take their packets. It is the plugin's, and goes with the last pod; nobody else routes the subnet here.
 *
 * @param wayTo how a host is reached by the outer device; a host without a way has no route
 */
export function routesToHosts(
  hosts: readonly HostAddress[],
  { name: device, addresses }: OuterInterface,
  wayTo: (address: IpAddress) => WayToHost | undefined,
): KernelState {
  const texts = new Set(hosts.map(({ address }) => `${address}`));
  return [...texts].map((text) => IpAddress.parse(text)).flatMap((address): KernelState => {
    const source = addresses.get(address.family);
    const way = wayTo(address);
    if (source === undefined || way === undefined || source.equals(address)) return [];
    const destination = new Cidr(address, addressBits(address.family));
    return way.gateway === undefined
      ? [{ kind: "route", destination, device, source }]
      : subnetRoute(destination, device, way.gateway);
  });
}

/** What a {@link HostNetworkFollower} works with. */
export interface HostNetworkOptions {
  /** Asks the kernel. */
  readonly socket: NetlinkSocket;
  /** The outer interface. */
  readonly outer: { readonly current: OuterInterface };
  /** The store, whose servers are hosts. */
  readonly store: Pick<LeaseStore, "servers">;
  /** The families that net-conf enables. */
  readonly families: readonly Family[];
}

/** Keeps what this node knows of the network between the hosts. */
export class HostNetworkFollower {
  readonly #options: HostNetworkOptions;
  #current: HostNetwork;
  #servers: readonly HostAddress[] = [];
  /** The pods' networks that ever overlapped the hosts': data paths must not change back and forth. */
  readonly #overlapped = new Set<string>();

  private constructor(options: HostNetworkOptions) {
    this.#options = options;
    this.#current = this.#read();
  }

  /** Asks the kernel, and for the addresses of the store's servers. */
  static async open(options: HostNetworkOptions): Promise<HostNetworkFollower> {
    const follower = new HostNetworkFollower(options);
    await follower.refresh();
    return follower;
  }

  /** What is known. */
  get current(): HostNetwork {
    return this.#current;
  }

  /** Asks again. */
  async refresh(): Promise<void> {
    this.#servers = await serverAddresses(this.#options.store.servers ?? []);
    this.#current = this.#read();
  }

  #read(): HostNetwork {
    const { socket, outer, families } = this.#options;
    const { hosts, links } = readHostNetwork(socket, outer.current, families);
    return { hosts: [...hosts, ...this.#servers], links };
  }

  /** How packets reach a host by the outer device: by the longest of its routes that denim did not make. */
  wayTo(address: IpAddress): WayToHost | undefined {
    const { socket, outer } = this.#options;
    const link = findLink(socket, outer.current.name);
    if (link === undefined) return undefined;
    const [way] = listOthersRoutes(socket, address.family, link.index)
      .filter(({ destination }) => destination.contains(address))
      .toSorted((a, b) =>
        b.destination.prefixLength - a.destination.prefixLength || a.metric - b.metric
      );
    return way;
  }

  /** Whether pods' networks overlap the hosts' as far as this node knows, or knew before. */
  overlaps(config: NetworkConfig): boolean {
    const networks = networksOf(config);
    if (overlapsHosts(networks, this.#current)) this.addOverlap(networks);
    return networks.some((network) => this.#overlapped.has(`${network}`));
  }

  /** Another node turned out to have an address in a pods' network. Returns whether that is news. */
  addOverlap(networks: readonly Cidr[]): boolean {
    const { size } = this.#overlapped;
    for (const network of networks) this.#overlapped.add(`${network}`);
    return this.#overlapped.size > size;
  }
}
