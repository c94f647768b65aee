/**
 * Two kinds of iptables.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** `iptables-legacy`: the old iptables filters packets beside nftables, and each sees its own rules alone. */
export function iptablesLegacy(host: Host): readonly Finding[] {
  const families = { ip_tables_names: "iptables", ip6_tables_names: "ip6tables" };
  const used = Object.entries(families).flatMap(([file, program]) => {
    const tables = (host.read(`/proc/net/${file}`) ?? "").split("\n").filter((name) => name !== "");
    return tables.length === 0 ? [] : [`${program} (${tables.join(" ")})`];
  });
  const tables = host.run("nft", "list", "tables") ?? "";
  return used.length === 0 || tables.trim() === "" ? [] : [{
    name: "iptables-legacy",
    evidence: `the kernel has tables of the old ${used.join(" and ")} beside those of nftables`,
    remedy:
      "let all programs use one: update-alternatives --set iptables /usr/sbin/iptables-nft, and restart " +
      "what made the old rules",
  }];
}
