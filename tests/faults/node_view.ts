/**
 * What a node looks like from outside: all that denim answers for, a line an object, told by iproute2, nft and wg, which
 * share no code with denim.
 *
 * @module
 */

import type { LabNode } from "@denim/agent/lab";
import { sh } from "../support/sh.ts";
import { wg } from "../support/wg.ts";

/** What is asked of `ip` for each family; of the rest IPv4 and IPv6 are told together. */
const BOTH = ["link", "nexthop", "addr"] as const;
const EACH = ["neigh", "route", "netconf"] as const;

/** An object of iproute2's or nft's JSON. */
// deno-lint-ignore no-explicit-any -- it has a shape for each kind of object
type Shown = any;

/**
 * The lines of one node, sorted: devices, addresses beyond the link and forwarding of all but pods' devices;
 * permanent neighbours; nexthops; routes of the main table; networks' lowest addresses that are taken for broadcast
 * addresses; FDB entries of VXLAN devices; WireGuard's port and peers; nftables' tables, chains and rules; subnet.env;
 * whether the agent runs.
 */
export function viewNode(node: LabNode): string[] {
  const { namespaceName: name } = node;
  const batch = (options: string, what: readonly string[]) =>
    `printf '%s show\\n' ${what.join(" ")} | ip -n ${name} ${options} -j -force -batch -; `;
  const output = sh(
    batch("-d", BOTH) + batch("-4", EACH) + batch("-6", EACH) +
      `ip -n ${name} -4 -j route show table local type broadcast; bridge -n ${name} -j fdb show; ` +
      `nsenter --net=/run/netns/${name} nft -j list ruleset`,
  );
  const answers = output.trim().split("\n").map((line) => JSON.parse(line) as Shown[]);
  const next = () => answers.shift()!;
  const ours = (device: string) => !device.startsWith("veth") && device !== "lo";
  const lines = [
    ...next().filter(({ ifname }) => ours(ifname)).map((link) =>
      words(
        ...["link", link.ifname, link.flags.includes("UP") ? "up" : "down", "mtu", link.mtu],
        ...tunnelWords(link),
      )
    ),
    ...next().map(({ id, gateway, dev, protocol }) =>
      words("nexthop", id, "via", gateway, "dev", dev, "proto", protocol)
    ),
    ...next().filter(({ ifname }) => ours(ifname)).flatMap(({ ifname, addr_info }) =>
      addr_info.filter(({ scope }: Shown) => scope !== "link").map(({ local, prefixlen }: Shown) =>
        words("address", `${local}/${prefixlen}`, "dev", ifname)
      )
    ),
  ];
  for (const family of [4, 6]) {
    lines.push(
      ...next().filter(({ state }) => state.includes("PERMANENT")).map(({ dst, lladdr, dev }) =>
        words("neighbour", dst, "lladdr", lladdr, "dev", dev)
      ),
      ...next().filter(({ dst }) => !dst.startsWith("fe80:")).map((route) =>
        words("route", route.dst, ...routeWords(route))
      ),
      ...next().filter((conf) => ours(conf.interface)).map((conf) =>
        words("forwarding", conf.forwarding ? "on" : "off", `IPv${family}`, "dev", conf.interface)
      ),
    );
  }
  return [
    ...lines,
    ...next().filter(({ dst }) => dst.endsWith(".0")).map(({ dst, dev }) =>
      words("broadcast", dst, "dev", dev)
    ),
    ...next().filter(({ dst }) => dst !== undefined).map(({ mac, dst, ifname }) =>
      words("fdb", mac, "to", dst, "dev", ifname)
    ),
    ...(next() as Shown).nftables.filter(({ metainfo }: Shown) => metainfo === undefined).map((
      entry: Shown,
    ) =>
      words("nftables", JSON.stringify(entry, (key, value) => key === "handle" ? undefined : value))
    ),
    ...lines.some((line) => line.startsWith("link flannel-wg ")) ? wireguardLines(node) : [],
    words("subnet.env", readSubnetEnv(node)),
    ...(node.agentPid === undefined ? [] : ["agent runs"]),
  ].sort();
}

/** The device's port, and each peer with its place and its networks. */
function wireguardLines(node: LabNode): string[] {
  const [own, ...peers] = wg(node, "show flannel-wg dump").trim().split("\n");
  return [
    words("wireguard", "port", own!.split("\t")[2]),
    ...peers.map((peer) => words("wireguard", "peer", ...peer.split("\t").slice(0, 4))),
  ];
}

function routeWords({ nhid, gateway, dev, protocol, prefsrc, metric }: Shown): unknown[] {
  return [
    ...[nhid && `nhid ${nhid}`, gateway && `via ${gateway}`, "dev", dev],
    ...[protocol && `proto ${protocol}`, prefsrc && `src ${prefsrc}`, metric && `metric ${metric}`],
  ];
}

function tunnelWords({ address, linkinfo }: Shown): unknown[] {
  if (linkinfo?.info_kind === "ipip") return ["ipip", "local", linkinfo.info_data.local];
  if (linkinfo?.info_kind !== "vxlan") return [];
  const { id, port, local, local6, link } = linkinfo.info_data;
  return ["address", address, "vxlan", id, "port", port, "local", local ?? local6, "link", link];
}

function words(...parts: readonly unknown[]): string {
  return parts.filter((part) => part !== undefined).join(" ");
}

function readSubnetEnv(node: LabNode): string {
  try {
    return Deno.readTextFileSync(node.subnetFile).trim().replaceAll("\n", " ");
  } catch {
    return "missing";
  }
}

/** What of `before` is not in `after`, each line behind `- `, and the other way round behind `+ `. */
export function compare(before: readonly string[], after: readonly string[]): string[] {
  const without = (lines: readonly string[], others: readonly string[]) => {
    const left = [...others];
    return lines.filter((line) => {
      const at = left.indexOf(line);
      if (at >= 0) left.splice(at, 1);
      return at < 0;
    });
  };
  return [
    ...without(before, after).map((line) => `- ${line}`),
    ...without(after, before).map((line) => `+ ${line}`),
  ];
}
