/**
 * Who is masqueraded: whose packets leave the node under the node's own address, as a pure function. The list
 * is flannel's (pkg/trafficmngr/iptables/iptables.go at cdf7605), one for both families.
 *
 * flannel's list for nftables (nftables.go) differs from that in two rules. denim follows iptables.go in both:
 *
 * - nftables.go leaves a packet with kube-proxy's mark alone only if its mark has no other bit.
 * - nftables.go leaves alone what comes from outside of this node's *subnet* to any pod of the *network*. By
 *   iptables.go it is what comes from outside of the network to this node's subnet. With the former the last rule
 *   never applies, and pods elsewhere see a host's outside address, to which their answers may find no way.
 *
 * @module
 */

import { addressBits, Cidr, type Family } from "../../ip.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { NF_ACCEPT, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC } from "../uapi/netfilter.ts";
import { NFT_TABLE_NAME, type NftTable } from "./nft_table.ts";
import { type Rule, ruleExpressions, type Verdict } from "./rule.ts";

/** The bit that kube-proxy sets on what it masquerades itself (its `--iptables-masquerade-bit`, 14). */
export const KUBE_PROXY_MARK = 0x4000;

/** Addresses of groups of hosts (RFC 5771, RFC 4291 section 2.7). */
export const MULTICAST: Readonly<Record<Family, Cidr>> = {
  4: Cidr.parse("224.0.0.0/4"),
  6: Cidr.parse("ff00::/8"),
};

/**
 * The rules for packets that are about to leave the node, in order: the first that fits decides. Their number grows
 * with the networks, subnets and hosts in them, and not with peers.
 */
export function masqueradeRules(
  { family, networks, subnets, hosts = [], fullyRandom }: Masquerade,
): readonly Rule[] {
  const leave: Verdict = { kind: "return" };
  const masquerade: Verdict = { kind: "masquerade", fullyRandom };
  const pairs = networks.flatMap((network) => subnets.map((subnet) => ({ network, subnet })));
  return [
    // Some kernels break a connection that two rules masquerade.
    {
      matches: [{ kind: "mark", value: KUBE_PROXY_MARK, mask: KUBE_PROXY_MARK }],
      verdict: leave,
      comment: "kube-proxy masquerades it itself",
    },
    ...hosts.map((host) => new Cidr(host, addressBits(family))).flatMap((host): Rule[] => [
      {
        matches: [{ kind: "saddr", network: host }],
        verdict: leave,
        comment: "from a host whose address is in the pods' network",
      },
      ...subnets.map((subnet): Rule => ({
        matches: [{ kind: "saddr", network: subnet }, { kind: "daddr", network: host }],
        verdict: masquerade,
        comment: "from this node's pods to a host whose address is in the pods' network",
      })),
      {
        matches: [{ kind: "daddr", network: host }],
        verdict: leave,
        comment: "to a host whose address is in the pods' network",
      },
    ]),
    ...pairs.flatMap(({ network, subnet }): Rule[] => [
      {
        matches: [{ kind: "saddr", network: subnet }, { kind: "daddr", network }],
        verdict: leave,
        comment: "from this node's pods to pods",
      },
      {
        matches: [{ kind: "saddr", network }, { kind: "daddr", network: subnet }],
        verdict: leave,
        comment: "from pods to this node's pods",
      },
    ]),
    // The rules above took packets from other networks, so "outside of one" means outside of all.
    ...pairs.map(({ network, subnet }): Rule => ({
      matches: [{ kind: "saddr", network, not: true }, { kind: "daddr", network: subnet }],
      verdict: leave,
      comment: "from hosts to this node's pods",
    })),
    ...networks.map((network): Rule => ({
      matches: [{ kind: "saddr", network }, {
        kind: "daddr",
        network: MULTICAST[family],
        not: true,
      }],
      verdict: masquerade,
      comment: "from pods to the outside",
    })),
    ...networks.map((network): Rule => ({
      matches: [{ kind: "saddr", network, not: true }, { kind: "daddr", network }],
      verdict: masquerade,
      comment: "from hosts to other nodes' pods",
    })),
  ];
}

/** denim's table with these rules, for the kernel to have. */
export function masqueradeTable(masquerade: Masquerade): NftTable {
  return {
    kind: "nftTable",
    family: masquerade.family,
    name: NFT_TABLE_NAME,
    chains: [{
      name: "postrouting",
      type: "nat",
      hook: NF_INET_POST_ROUTING,
      priority: NF_IP_PRI_NAT_SRC,
      policy: NF_ACCEPT,
      rules: masqueradeRules(masquerade).map((rule) => ({
        expressions: ruleExpressions(rule),
        comment: rule.comment,
      })),
    }],
  };
}
