/**
 * What drops pods' packets now, for who asks once: no agent, and no program, is needed.
 *
 * @module
 */

import type { Cidr } from "../../ip.ts";
import { type ForwardDrop, forwardDrop } from "./forward_drops.ts";
import { IptablesNft } from "./iptables_nft.ts";
import { openIfThere } from "./nft_connection.ts";
import { WatchedNft } from "./watched_nft.ts";

/**
 * What in nftables, iptables-nft's chains among it, drops the packets of pods' networks where they are forwarded, in this
 * thread's network namespace. Throws a LinuxError: EPERM for who is not root.
 */
export function forwardDrops(networks: readonly Cidr[]): readonly ForwardDrop[] {
  using nft = openIfThere(() => new WatchedNft());
  if (nft === undefined) return [];
  return new IptablesNft(nft).drops(networks)
    .flatMap((chain) => forwardDrop(chain, networks) ?? []);
}
