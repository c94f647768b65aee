/**
 * net-conf: the cluster's network configuration, one JSON document shared by all nodes.
 *
 * @module
 */

import type { Cidr, Family, IpAddress } from "./ip.ts";

/** One family's share of net-conf, with every default filled in. */
export interface FamilyConfig {
  /** Which family this is. */
  readonly family: Family;
  /** The address space of the whole cluster. */
  readonly network: Cidr;
  /** The prefix length of each node's subnet. */
  readonly subnetLength: number;
  /** The first subnet that may be leased. */
  readonly subnetMin: IpAddress;
  /** The last subnet that may be leased. */
  readonly subnetMax: IpAddress;
}

/** The cluster's network configuration, read and checked. */
export interface NetworkConfig {
  /** The enabled families, IPv4 first; at least one. */
  readonly families: readonly FamilyConfig[];
  /** Whether masquerade and forwarding rules are nftables' rather than iptables'. */
  readonly enableNFTables: boolean;
  /** Which backend, and its options as net-conf's `Backend` object has them. */
  readonly backend: { readonly type: string; readonly options: Readonly<Record<string, unknown>> };
}
