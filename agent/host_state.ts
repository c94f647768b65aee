/**
 * What a node needs for its pods, whichever backend carries their packets.
 *
 * @module
 */

import {
  ALL_DEVICES,
  type Cidr,
  FAMILIES,
  type Family,
  type FamilyConfig,
  type HostNetwork,
  hostWithin,
  type KernelState,
  LAST_METRIC,
  type NetworkConfig,
  UNKNOWN_HOST_NETWORK,
} from "@denim/core";

/** The reconciler's name for what {@link hostState} asks for. */
export const HOST_OWNER = "host";

/** The reconciler's name for the routes to hosts whose addresses lie in this node's subnet. */
export const HOSTS_OWNER = "hosts among this node's pods";

/** The reconciler's name for what {@link forwardState} asks for. */
export const FORWARD_OWNER = "pods' way through";

/** The reconciler's name for what {@link masqueradeState} asks for. */
export const MASQUERADE_OWNER = "pods' way out";

/** How pods' packets are masqueraded. */
export interface MasqueradeChoice {
  /** Whether source ports are drawn at random. */
  readonly fullyRandom: boolean;
}

/**
 * Has the node forward packets, and gives the pods' bridge its addresses. Without devices and subnets it is the part
 * that no node can do without.
 *
 * @param families those that net-conf enables
 * @param devices those by which packets to and from other nodes come in
 * @param subnets the node's own
 */
export function hostState(
  families: readonly Pick<FamilyConfig, "family">[],
  devices: readonly string[] = [],
  subnets: readonly Cidr[] = [],
): KernelState {
  const forwarding = families.flatMap(({ family }) =>
    // IPv6 obeys the node's switch alone; a device's says whether the device accepts router advertisements.
    [ALL_DEVICES, ...family === 4 ? devices : []]
      .map((device) => ({ kind: "forwarding", family, device }) as const)
  );
  const gateways = subnets.map((subnet) => (
    { kind: "podGateway", address: subnet.at(1n), prefixLength: subnet.prefixLength } as const
  ));
  return [...forwarding, ...gateways];
}

/**
 * Masquerades what pods send to the outside, in each family in which the node has a subnet.
 *
 * @param config net-conf, which may say by nftables or by iptables
 * @param subnets the node's own
 * @param choice how; nothing is masqueraded if it is `undefined`
 * @param hostNetwork the network between the hosts: what hosts inside of the pods' networks send stays as it is
 */
export function masqueradeState(
  { families, enableNFTables }: Pick<NetworkConfig, "enableNFTables"> & {
    readonly families: readonly PodFamily[];
  },
  subnets: readonly Cidr[],
  choice: MasqueradeChoice | undefined,
  { hosts }: HostNetwork = UNKNOWN_HOST_NETWORK,
): KernelState {
  if (choice === undefined) return [];
  const engine = enableNFTables === undefined
    ? undefined
    : enableNFTables
    ? "nftables"
    : "iptables";
  return FAMILIES.flatMap((family) => {
    const networks = networksOf(families, family);
    const own = subnets.filter((subnet) => subnet.family === family);
    if (networks.length === 0 || own.length === 0) return [];
    const inside = hosts.filter((host) => hostWithin(networks, [host]) !== undefined);
    return [
      {
        kind: "masquerade",
        family,
        networks,
        subnets: own,
        engine,
        ...inside.length > 0 && { hosts: inside.map(({ address }) => address) },
        ...choice,
      } as const,
    ];
  });
}

/**
 * Drops packets to addresses of the node's subnets that no pod has. The pods' bridge has a route to each subnet too,
 * and the routes to single pods of other plugins go before that: this one is for what they leave.
 *
 * @param subnets the node's own
 */
export function blackholeState(subnets: readonly Cidr[]): KernelState {
  return subnets.map((destination) => (
    { kind: "route", type: "blackhole", destination, metric: LAST_METRIC } as const
  ));
}

/**
 * Lets pods' packets pass where iptables' FORWARD drops them.
 *
 * @param families those that net-conf enables
 */
export function forwardState(families: readonly PodFamily[]): KernelState {
  return FAMILIES.flatMap((family) => {
    const networks = networksOf(families, family);
    return networks.length === 0 ? [] : [{ kind: "podForward", family, networks } as const];
  });
}

/** A family of net-conf's, as far as packet filters know it. */
type PodFamily = Pick<FamilyConfig, "family" | "network">;

function networksOf(families: readonly PodFamily[], family: Family): readonly Cidr[] {
  return families.filter((config) => config.family === family).map(({ network }) => network);
}
