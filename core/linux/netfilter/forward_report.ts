/**
 * What drops pods' packets now, for who asks once: no agent, and no program, is needed.
 *
 * @module
 */

import type { Cidr } from "../../ip.ts";
import { dropsPods, type ForwardDrop, forwardDrop } from "./forward_drops.ts";
import { NftConnection, openIfThere } from "./nft_connection.ts";

/**
 * What in nftables, iptables-nft's chains among it, drops the packets of pods' networks where they are forwarded, in this
 * thread's network namespace. Throws a LinuxError: EPERM for who is not root.
 */
export function forwardDrops(networks: readonly Cidr[]): readonly ForwardDrop[] {
  using nft = openIfThere(() => new NftConnection());
  if (nft === undefined) return [];
  return nft.forwardChains()
    .filter((chain) => dropsPods({ ...chain, rules: nft.rules(chain) }, networks, false))
    .flatMap((chain) => forwardDrop(chain, networks) ?? []);
}
