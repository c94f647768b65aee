/**
 * What a node finds around it when its agent starts, and when `denim config check --node` asks what the agent would.
 *
 * @module
 */

import {
  explainOverlap,
  type Family,
  type LeaseStore,
  type Logger,
  type NetworkConfig,
  networksOf,
} from "@denim/core";
import type { NetlinkSocket } from "@denim/core/linux";
import { HostNetworkFollower } from "./host_network.ts";
import { type InterfaceChoice, OuterInterfaceFollower } from "./outer_interface.ts";
import type { LastRun } from "./subnet_file.ts";

/** What {@link findSurroundings} works with. */
export interface SurroundingsOptions {
  /** Asks the kernel. */
  readonly socket: NetlinkSocket;
  /** The cluster's net-conf. */
  readonly config: NetworkConfig;
  /** How to choose the outer interface. */
  readonly choice: InterfaceChoice;
  /** What subnet.env says of the last run. */
  readonly lastRun: LastRun;
  /** The store, whose servers are hosts. */
  readonly store: Pick<LeaseStore, "servers">;
  /** Takes what was found, and what is wrong with it. */
  readonly log: Logger;
}

/** The network around a node. */
export interface FoundSurroundings {
  /** The node's way to the other nodes. */
  readonly outer: OuterInterfaceFollower;
  /** The network between the hosts. */
  readonly hostNetwork: HostNetworkFollower;
}

/**
 * Finds a node's way to the others and the network that it is in, and warns if the pods' networks overlap that. Rejects
 * with a ConfigError if there is no outer interface.
 */
export async function findSurroundings(
  { socket, config, choice, lastRun, store, log }: SurroundingsOptions,
): Promise<FoundSurroundings> {
  const families: readonly Family[] = config.families.map(({ family }) => family);
  const outer = new OuterInterfaceFollower({
    socket,
    choice,
    families,
    ...lastRun.previousPublicIps && { lastIps: lastRun.previousPublicIps },
    log,
  });
  const { name, publicIps, mtuBytes } = outer.current;
  log.info("outer-interface", `the outer interface is ${name}`, {
    publicIp: [...publicIps.values()].join(" "),
    mtuBytes,
  });
  const hostNetwork = await HostNetworkFollower.open({ socket, outer, store, families });
  const networks = networksOf(config);
  const overlap = explainOverlap(networks, hostNetwork.current);
  if (overlap !== undefined) log.warn("network-overlaps-hosts", overlap);
  return { outer, hostNetwork };
}
