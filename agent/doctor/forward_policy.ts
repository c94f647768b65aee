/**
 * iptables' policy for forwarded packets.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** `forward-policy-drop`: iptables drops forwarded packets, and no rule lets pods' pass, as where Docker runs. */
export function forwardPolicy(host: Host): readonly Finding[] {
  return (host.subnetEnv?.halves ?? []).flatMap(({ subnet: { family }, networks }) => {
    const table = family === 4 ? "ip" : "ip6";
    const rules = host.run("nft", "list", "chain", table, "filter", "FORWARD");
    if (rules === undefined || !/policy drop;/.test(rules)) return [];
    const passes = /FLANNEL-FWD|KUBE-FORWARD/.test(rules) ||
      networks.some((network) => rules.includes(`${network}`));
    return passes ? [] : [{
      name: "forward-policy-drop",
      evidence: `iptables' FORWARD policy is DROP, and no rule there lets packets of ${
        networks.join(" ")
      } pass`,
      remedy: `let them pass: iptables -I FORWARD -s ${
        networks[0]
      } -j ACCEPT, and the same with -d`,
    }];
  });
}
