/**
 * What drops forwarded packets.
 *
 * @module
 */

import type { SubnetEnvHalf } from "@denim/core";
import { letPass } from "@denim/core/linux";
import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/**
 * `forward-policy-drop`: FORWARD of iptables, as where Docker runs, or another chain drops forwarded packets, and no rule
 * lets pods' pass.
 */
export function forwardPolicy(host: Host): readonly Finding[] {
  const halves = host.subnetEnv?.halves ?? [];
  const drops = [
    ...host.forwardDrops(halves.flatMap(({ networks }) => networks)),
    ...halves.flatMap((half) => legacyDrop(host, half) ?? []),
  ];
  return drops.map((drop) => ({ name: "forward-policy-drop", ...drop }));
}

/** What FORWARD of iptables-legacy drops. Its program is asked only where the table is: it would make one. */
function legacyDrop(
  host: Host,
  { subnet, networks }: SubnetEnvHalf,
): Omit<Finding, "name"> | undefined {
  const [names, program] = subnet.family === 4
    ? ["/proc/net/ip_tables_names", "iptables-legacy"]
    : ["/proc/net/ip6_tables_names", "ip6tables-legacy"];
  if (!/^filter$/m.test(host.read(names) ?? "")) return undefined;
  const rules = host.run(program, "-S") ?? "";
  const passes = ["-j FLANNEL-FWD", ...networks.map(String)].some((text) => rules.includes(text));
  if (passes || !rules.includes("-P FORWARD DROP")) return undefined;
  return {
    evidence: `${program}'s FORWARD policy is DROP, and no rule there lets packets of ${
      networks.join(" ")
    } pass`,
    remedy: networks.map((network) => letPass(network, program)).join("; "),
  };
}
