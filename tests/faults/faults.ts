/**
 * The faults that a node has to get over: what is done, and how one sees that it was.
 *
 * @module
 */

import { nexthopId } from "@denim/core";
import { shIn } from "../support/sh.ts";
import { wg } from "../support/wg.ts";
import type { BackendName, Cluster, Member } from "./cluster.ts";
import { OUTAGES, type StoreName } from "./store_at_fault.ts";
import { INTERVAL_MS } from "./steady_ping.ts";

/** What is struck: the kernel's state, files and leases, the agent. */
export const FAULT_KINDS = ["kernel", "state", "agent"] as const;
/** One of them. */
export type FaultKind = typeof FAULT_KINDS[number];

/** Where a fault strikes. */
export interface Site {
  /** The cluster. */
  readonly cluster: Cluster;
  /** The node that is struck. */
  readonly at: Member;
  /** Another node, to which its packets go. */
  readonly peer: Member;
}

/** One fault. */
export interface Fault {
  /** What happens. */
  readonly name: string;
  /** The backends where there is something to strike; all unless given. */
  readonly backends?: readonly BackendName[];
  /** Does it. */
  readonly strike: (site: Site) => void | Promise<void>;
  /**
   * How it shows in the node's view: a difference, `- route …` for what is gone, `+ route …` for what is there
   * instead. The agent is held still until it was seen. Without it, `strike` throws if nothing came of it.
   */
  readonly shows?: RegExp | undefined;
  /** What whoever did it does in the end: then it is denim's turn. */
  readonly end?: (site: Site) => void | Promise<void>;
  /** How long it lasts until then, in milliseconds. */
  readonly lastsMs?: number;
  /** What is to be otherwise in the end: a line of the view of before, as it should be then … */
  readonly leaves?: (site: Site) => (line: string) => string;
  /** … and what is otherwise then, until it strikes again and all is as before. */
  readonly toggles?: "outer" | "publicIp";
  /** Whether it is for the store of the leases as well to get over it. */
  readonly ofLeases?: boolean;
  /** Whether it is the agent itself that is struck, and another runs in the end. */
  readonly restarts?: boolean;
  /** How many packets it may cost at the most, if that is not for the time alone to say. */
  readonly maxLost?: Readonly<Record<BackendName, number>>;
}

const ROUTER = "10.99.0.254";
const ROUTER_V6 = "fd99::254";
/** Where no node is. */
const NOWHERE = "10.99.0.77";
/** In the first subnet of the network, which no node is ever given. */
const NO_GATEWAY = "10.5.0.1/24";
const NO_MAC = "02:00:00:00:00:77";
/** What is no packet's affair. */
export const NONE_LOST: Readonly<Record<BackendName, number>> = {
  vxlan: 0,
  "host-gw": 0,
  udp: 0,
  wireguard: 0,
  ipip: 0,
};
/** How long UDP, whose packets the agent itself carries, may be silent while it starts again. */
const UDP_RESTART_MS = 300;
const VXLAN: readonly BackendName[] = ["vxlan"];
const IPIP: readonly BackendName[] = ["ipip"];
const WITH_DEVICE: readonly BackendName[] = ["vxlan", "udp", "wireguard", "ipip"];
const WIREGUARD: readonly BackendName[] = ["wireguard"];
const WITH_NEXTHOPS: readonly BackendName[] = ["vxlan", "host-gw", "ipip"];

/** Words that scripts are made of. */
interface Words {
  /** The destination of a route of denim's. */
  readonly route: string;
  /** The device that it leads to. */
  readonly device: string;
  /** The device's own address. */
  readonly address: string;
  /** The peer's subnet's address, its VTEP's MAC, its outer address, and its nexthop's number. */
  readonly peer: {
    readonly via: string;
    readonly mac: string;
    readonly ip: string;
    readonly id: number;
  };
  /** The outer interface. */
  readonly outer: string;
  /** The bridge's address, with its prefix length. */
  readonly gateway: string;
}

/** The words for a site. */
export function wordsOf({ cluster, at, peer }: Site): Words {
  const { backend, expected } = cluster;
  const vtep = new RegExp(`^${peer.name}: link flannel\\.1 .* address (\\S+)`);
  const mac = expected.map((line) => vtep.exec(line)?.[1]).find((found) => found !== undefined);
  return {
    route: backend === "udp" || backend === "wireguard" ? "10.5.0.0/16" : `${peer.subnet}`,
    device: {
      vxlan: "flannel.1",
      udp: "flannel0",
      wireguard: "flannel-wg",
      ipip: "flannel.ipip",
      "host-gw": at.outer,
    }[backend],
    address: `${at.subnet.address}/32`,
    peer: {
      via: `${peer.subnet.address}`,
      mac: mac ?? NO_MAC,
      ip: peer.publicIp,
      id: nexthopId(peer.subnet),
    },
    outer: at.outer,
    gateway: `${at.subnet.at(1n)}/24`,
  };
}

/** A script in the struck node. */
function script(text: (words: Words, site: Site) => string): (site: Site) => void {
  return (site) => void shIn(site.at.node, text(wordsOf(site), site));
}

/** Changes the struck node's device by wg(8), which is told the key of the peer. */
function wireguardChange(change: (key: string) => string): (site: Site) => void {
  return ({ at, peer }) => {
    const key = wg(peer.node, "show flannel-wg public-key").trim();
    wg(at.node, `set flannel-wg ${change(key)}`);
  };
}

/** Whatever manages a host's network puts its default routes back. */
function defaultRoutes(outer: string): string {
  return `ip route replace default via ${ROUTER} && ` +
    `ip -6 route replace default via ${ROUTER_V6} dev ${outer}`;
}

/** iproute2's own flush, of version 6.1, fails at routes by nexthop objects. */
function flush(which: string): string {
  return `ip route flush ${which} 2>/dev/null || ` +
    `ip route show ${which} | while read -r to _; do ip route del $to; done`;
}

/** A name or address in place of another, wherever the view has it. */
function inPlaceOf(before: string, after: string): (line: string) => string {
  const word = new RegExp(`(?<![\\w.])${before.replaceAll(".", "\\.")}(?![\\w.])`, "g");
  return (line) => line.replace(word, after);
}

const forwardingOff = (name: string, device: (words: Words) => string): Fault => ({
  name: `forwarding of ${name} switched off`,
  strike: script((words) => `echo 0 >/proc/sys/net/ipv4/conf/${device(words)}/forwarding`),
  shows: /^- forwarding on/,
});

const agentStopped = (how: "SIGTERM" | "SIGKILL"): Fault => ({
  name: `agent ended by ${how} and started again`,
  strike: async ({ at }) => void await at.node.stopAgent(how),
  shows: /^- agent runs/,
  end: ({ cluster, at }) => cluster.startAgent(at),
  ofLeases: true,
  restarts: true,
  maxLost: { ...NONE_LOST, udp: UDP_RESTART_MS / INTERVAL_MS },
});

/** Those that strike routes, nexthops, neighbours, FDB entries and masquerade rules. */
const ENTRIES: readonly Fault[] = [
  {
    name: "route deleted",
    strike: script(({ route }) => `ip route del ${route}`),
    shows: /^- route/,
  },
  {
    name: "route changed",
    strike: script(({ route, outer }) => `ip route replace ${route} via ${ROUTER} dev ${outer}`),
    shows: /^- route/,
  },
  {
    name: "routes of the device flushed",
    backends: WITH_DEVICE,
    strike: script(({ device }) => flush(`dev ${device}`)),
    shows: /^- route/,
  },
  {
    name: "routes of the outer interface flushed, its own put back",
    strike: script(({ outer }) => flush(`dev ${outer}`)),
    shows: /^- route 10\.99/,
    end: script(({ outer }, { at }) =>
      `ip route add 10.99.0.0/24 dev ${outer} proto kernel scope link src ${at.publicIp}; ` +
      defaultRoutes(outer)
    ),
  },
  {
    name: "routes of the protocol flushed",
    strike: script(() => flush("proto 155")),
    shows: /^- route/,
  },
  {
    name: "nexthop deleted",
    backends: WITH_NEXTHOPS,
    strike: script(({ peer }) => `ip nexthop del id ${peer.id}`),
    shows: /^- nexthop/,
  },
  {
    name: "nexthop changed",
    backends: WITH_NEXTHOPS,
    strike: script(({ peer, outer }) =>
      `ip nexthop replace id ${peer.id} via ${ROUTER} dev ${outer}`
    ),
    shows: /^- nexthop/,
  },
  {
    name: "nexthops flushed",
    backends: WITH_NEXTHOPS,
    strike: script(() => "ip nexthop flush"),
    shows: /^- nexthop/,
  },
  {
    name: "neighbour deleted",
    backends: VXLAN,
    strike: script(({ peer, device }) => `ip neigh del ${peer.via} dev ${device}`),
    shows: /^- neighbour/,
  },
  {
    name: "neighbour changed",
    backends: VXLAN,
    strike: script(({ peer, device }) =>
      `ip neigh replace ${peer.via} lladdr ${NO_MAC} dev ${device} nud permanent`
    ),
    shows: /^- neighbour/,
  },
  {
    name: "neighbours flushed",
    backends: VXLAN,
    strike: script(({ device }) => `ip neigh flush dev ${device} nud permanent`),
    shows: /^- neighbour/,
  },
  {
    name: "FDB entry deleted",
    backends: VXLAN,
    strike: script(({ peer, device }) => `bridge fdb del ${peer.mac} dev ${device} dst ${peer.ip}`),
    shows: /^- fdb/,
  },
  {
    name: "FDB entry changed",
    backends: VXLAN,
    strike: script(({ peer, device }) =>
      `bridge fdb replace ${peer.mac} dev ${device} dst ${NOWHERE} self permanent`
    ),
    shows: /^- fdb/,
  },
  {
    name: "WireGuard peer deleted",
    backends: WIREGUARD,
    strike: wireguardChange((key) => `peer ${key} remove`),
    shows: /^- wireguard/,
  },
  {
    name: "WireGuard peer's networks changed",
    backends: WIREGUARD,
    strike: wireguardChange((key) => `peer ${key} allowed-ips 10.77.0.0/24`),
    shows: /^- wireguard/,
  },
  {
    name: "WireGuard port changed",
    backends: WIREGUARD,
    strike: wireguardChange(() => "listen-port 7777"),
    shows: /^- wireguard/,
  },
  {
    name: "nftables flushed",
    strike: script(() => "nft flush ruleset"),
    shows: /^- nftables/,
    maxLost: NONE_LOST,
  },
  {
    name: "denim's table of nftables deleted",
    strike: script(() => "nft delete table ip denim"),
    shows: /^- nftables/,
    maxLost: NONE_LOST,
  },
];

/** Those that strike denim's device and the pods' bridge. */
const DEVICES: readonly Fault[] = [
  {
    name: "device's address deleted",
    backends: WITH_DEVICE,
    strike: script(({ address, device }) => `ip addr del ${address} dev ${device}`),
    shows: /^- address/,
  },
  {
    name: "device's address replaced",
    backends: WITH_DEVICE,
    strike: script(({ address, device }) =>
      `ip addr del ${address} dev ${device}; ip addr add 10.77.0.1/32 dev ${device}`
    ),
    shows: /^\+ address 10\.77/,
  },
  {
    name: "device's address taken for a broadcast address",
    backends: WITH_DEVICE,
    strike: script(({ address }) =>
      `ip route prepend broadcast ${address} dev cni0 table local proto kernel scope link`
    ),
    shows: /^\+ broadcast/,
  },
  {
    name: "device deleted",
    backends: WITH_DEVICE,
    strike: script(({ device }) => `ip link del ${device}`),
    shows: /^- link/,
  },
  {
    name: "device set down",
    backends: WITH_DEVICE,
    strike: script(({ device }) => `ip link set ${device} down`),
    shows: /^\+ link \S+ down/,
  },
  {
    name: "device's MTU changed",
    backends: WITH_DEVICE,
    strike: script(({ device }) => `ip link set ${device} mtu 1300`),
    shows: /^\+ link .* mtu 1300/,
  },
  {
    name: "device's MAC changed",
    backends: VXLAN,
    strike: script(({ device }) => `ip link set ${device} address ${NO_MAC}`),
    shows: /^- link/,
  },
  {
    name: "device's own end changed",
    backends: IPIP,
    strike: script(({ device }) => `ip link set ${device} type ipip local ${NOWHERE}`),
    shows: /^- link/,
  },
  {
    name: "cni0's address deleted",
    strike: script(({ gateway }) => `ip addr del ${gateway} dev cni0`),
    shows: /^- address .* dev cni0/,
  },
  {
    name: "cni0's address replaced by that of another subnet",
    strike: script(({ gateway }) =>
      `ip addr del ${gateway} dev cni0; ip addr add ${NO_GATEWAY} dev cni0`
    ),
    shows: /^\+ address .* dev cni0/,
  },
  {
    name: "cni0 set down",
    strike: script(() => "ip link set cni0 down"),
    shows: /^\+ link cni0 down/,
  },
];

/** Those that strike what is not denim's own, and what it can't do without. */
const SURROUNDINGS: readonly Fault[] = [
  {
    name: "net.ipv4.ip_forward switched off",
    strike: script(() => "echo 0 >/proc/sys/net/ipv4/ip_forward"),
    shows: /^- forwarding on IPv4 dev all/,
  },
  forwardingOff("cni0", () => "cni0"),
  forwardingOff("the outer interface", ({ outer }) => outer),
  { ...forwardingOff("the device", ({ device }) => device), backends: WITH_DEVICE },
  {
    name: "outer interface down and up again",
    strike: script(({ outer }) =>
      `echo 1 >/proc/sys/net/ipv6/conf/${outer}/keep_addr_on_down; ip link set ${outer} down`
    ),
    shows: /^\+ link \S+ down/,
    lastsMs: 300,
    end: script(({ outer }) => `ip link set ${outer} up; ${defaultRoutes(outer)}`),
  },
  {
    name: "outer interface renamed, and the way to peers deleted",
    // Kernels before 6.2 rename only what is down, and look at the name first if told both at once.
    strike: script(({ outer }, { at }) => {
      const name = otherName(at);
      const rename = `ip link set ${outer} name ${name}`;
      return `{ ${rename} || { ip link set ${outer} down && ${rename}; }; } && ` +
        `ip link set ${name} up && ${defaultRoutes(name)}`;
    }),
    shows: /^- link/,
    leaves: ({ at }) => {
      const rename = inPlaceOf(at.outer, otherName(at));
      return (line) => line.startsWith(`${at.name}: `) ? rename(line) : line;
    },
    toggles: "outer",
    end: (site) => {
      site.at.outer = otherName(site.at);
      const { device, route, outer } = wordsOf(site);
      // It may be on its way already.
      const deletion = device === outer ? `ip route del ${route}` : `ip link del ${device}`;
      shIn(site.at.node, `${deletion} 2>/dev/null || :`);
    },
  },
  {
    name: "outer address changed",
    strike: script(({ outer }, { at }) => `ip addr del ${at.publicIp}/24 dev ${outer}`),
    shows: /^- address/,
    leaves: ({ at }) => inPlaceOf(at.publicIp, otherIp(at)),
    toggles: "publicIp",
    ofLeases: true,
    end: (site) => {
      const { at } = site;
      at.publicIp = otherIp(at);
      shIn(
        at.node,
        `ip addr add ${at.publicIp}/24 brd + dev ${at.outer}; ${defaultRoutes(at.outer)}`,
      );
    },
  },
];

function otherName({ outer }: Member): string {
  return outer === "eth0" ? "uplink0" : "eth0";
}

/** 100 hosts further, and back. */
function otherIp({ publicIp, node }: Member): string {
  const first = `${node.publicIp}`;
  return publicIp === first ? first.replace(/\d+$/, (host) => `${Number(host) + 100}`) : first;
}

/** Those that strike files and leases. */
const STATE: readonly Fault[] = [
  {
    name: "subnet.env deleted",
    strike: ({ at }) => Deno.removeSync(at.node.subnetFile),
    shows: /^\+ subnet\.env missing/,
    maxLost: NONE_LOST,
  },
  {
    name: "subnet.env cut short",
    strike: ({ at }) => Deno.truncateSync(at.node.subnetFile, 30),
    shows: /^- subnet\.env/,
    maxLost: NONE_LOST,
  },
  {
    name: "lease's key deleted",
    strike: ({ cluster, at }) => cluster.store.remove(at.key),
    ofLeases: true,
  },
];

/** Those that strike the agent itself. */
const AGENT: readonly Fault[] = [
  agentStopped("SIGTERM"),
  agentStopped("SIGKILL"),
  {
    name: "agent ended by SIGKILL, its routes deleted, and started again",
    strike: async (site) => {
      await site.at.node.stopAgent("SIGKILL");
      script(({ route }) => `ip route del ${route}`)(site);
    },
    shows: /^- route/,
    end: ({ cluster, at }) => cluster.startAgent(at),
    restarts: true,
  },
];

/** The store is of no use for a while; then a lease has to be claimed again, to show that it is. */
const outage = ([name, lastsMs]: readonly [string, number]): Fault => ({
  name: `store ${name}, then the lease's key deleted`,
  strike: ({ cluster }) => cluster.store.outages[name]!.begin(),
  ofLeases: true,
  lastsMs,
  end: async ({ cluster, at }) => {
    await cluster.store.outages[name]!.end();
    await cluster.store.remove(at.key);
  },
});

/** All that can strike a cluster with this backend and this store, by what it is that is struck. */
export function faultsFor(
  backend: BackendName,
  store: StoreName,
): Readonly<Record<FaultKind, readonly Fault[]>> {
  const fitting = (faults: readonly Fault[]) =>
    faults.filter(({ backends }) => backends?.includes(backend) ?? true);
  return {
    kernel: fitting([...ENTRIES, ...DEVICES, ...SURROUNDINGS]),
    state: [...STATE, ...Object.entries(OUTAGES[store]).map(outage)],
    agent: AGENT,
  };
}
