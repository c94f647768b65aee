/**
 * The source that receivers see, for every kind of packet that a node's pods and the node itself send, with real
 * agents; and beside kube-proxy's rules.
 */

import { FAMILIES, type Family, IpAddress } from "@denim/core";
import { findLink, NetlinkSocket, NetworkNamespace, PacketSocket } from "@denim/core/linux";
import type { Lab, LabNode, Pod } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { sendDatagram, sourcesOf } from "./support/datagram.ts";
import { kubeProxyRules, noKubeProxyRules, type ProxyMode } from "./support/kube_proxy.ts";
import { addOutside, OUTSIDE } from "./support/outside.ts";
import { reached } from "./support/reached.ts";
import { labTest } from "./support/lab_test.ts";
import { sh, shIn } from "./support/sh.ts";
import { eventually, NEVER } from "./support/wait.ts";

/** What masquerades, as net-conf chooses it. */
const ENGINES = [
  { engine: "nftables", EnableNFTables: true },
  { engine: "iptables", EnableNFTables: false },
] as const;

const NETWORKS: Readonly<Record<Family, string>> = { 4: "10.5.0.0/16", 6: "fc00:5::/48" };
/** The node that masquerades, another one, and a host outside, on one wire. */
const HOSTS: Readonly<Record<Family, Readonly<Record<"node" | "peer" | "outside", string>>>> = {
  4: { node: "10.99.0.1", peer: "10.99.0.2", outside: OUTSIDE[4] },
  6: { node: "fd99::1", peer: "fd99::2", outside: OUTSIDE[6] },
};
const GROUPS: Readonly<Record<Family, string>> = { 4: "239.1.1.1", 6: "ff05::1" };

/** Who sends and receives. */
type Place = "node" | "pod" | "neighbour" | "peer" | "peerPod" | "outside";

/** How a datagram is sent. */
interface Sending {
  /** The port that it is sent to. */
  readonly sentTo?: number;
  /** The port that it arrives at; that one unless given. */
  readonly port?: number;
  /** The device that it is sent by; the kernel's choice unless given. */
  readonly device?: string | undefined;
  /** The device by which it arrives; eth0 unless given. */
  readonly by?: string;
}

/** A cluster of two nodes with pods, and a host outside. */
class Town implements Disposable {
  readonly node: LabNode;
  readonly peer: LabNode;
  readonly pods: Readonly<Record<"pod" | "neighbour" | "peerPod", Pod>>;
  readonly #namespaces: Readonly<Record<Place, NetworkNamespace>>;

  private constructor(lab: Lab, outside: NetworkNamespace, pods: Town["pods"]) {
    [this.node, this.peer] = lab.nodes as [LabNode, LabNode];
    this.pods = pods;
    this.#namespaces = {
      node: this.node.open(),
      peer: this.peer.open(),
      outside,
      pod: pods.pod.open(),
      neighbour: pods.neighbour.open(),
      peerPod: pods.peerPod.open(),
    };
  }

  /** Starts the agents, of which the first masquerades, and makes the rest. */
  static async create(lab: Lab): Promise<Town> {
    const outside = addOutside(lab);
    for (const family of FAMILIES) {
      const at = HOSTS[family];
      outside.run(() => sh(`ip route add ${NETWORKS[family]} via ${at.node}`));
    }
    const [node, peer] = lab.nodes as [LabNode, LabNode];
    await Promise.all(lab.nodes.map((each) => each.startAgent(NEVER, ["--ip-masq"])));
    // A host that routes for others: the kernel would tell the outside of the shorter way.
    shIn(node, "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0");
    const pods = {
      pod: await node.addPod("pod"),
      neighbour: await node.addPod("neighbour"),
      peerPod: await peer.addPod("peerPod"),
    };
    const town = new Town(lab, outside, pods);
    // What is sent is sent once.
    for (const address of pods.peerPod.addresses) await reached(pods.pod, address);
    return town;
  }

  /** A pod's address. */
  of(pod: keyof Town["pods"], family: Family): string {
    return `${this.pods[pod].addresses.find((address) => address.family === family)}`;
  }

  /** The address of a node on the overlay, and on its pods' bridge. */
  own(node: LabNode, family: Family): { readonly tunnel: string; readonly bridge: string } {
    const subnet = node.subnets().find((subnet) => subnet.family === family)!;
    return { tunnel: `${subnet.address}`, bridge: `${subnet.at(1n)}` };
  }

  run<T>(place: Place, fn: () => T extends Promise<unknown> ? never : T): T {
    return this.#namespaces[place].run(fn);
  }

  /** The sources that a place sees of a datagram. */
  async seen(
    [from, source]: readonly [Place, string],
    [to, destination]: readonly [Place, string],
    { sentTo = 7000, port, device, by = "eth0" }: Sending = {},
  ): Promise<string[]> {
    using capture = this.run(to, () => {
      using socket = new NetlinkSocket();
      return new PacketSocket(findLink(socket, by)!.index);
    });
    this.run(from, () => sendDatagram(source, destination, sentTo, device));
    let sources: string[] = [];
    await eventually(`${from} ${source} reaches ${to} ${destination}`, () => {
      sources = sources.concat(sourcesOf(capture.frames(), port ?? sentTo));
      return sources.length > 0;
    });
    return [...new Set(sources)];
  }

  [Symbol.dispose](): void {
    for (const namespace of Object.values(this.#namespaces)) namespace[Symbol.dispose]();
  }
}

/** Ports for which somebody else on the node sets these marks before the node's masquerade is asked. */
const MARKS: Readonly<Record<number, number>> = { 4001: 0x4000, 4002: 0xc001, 4003: 0x8000 };
const MARKING =
  `nft 'table inet marks { chain postrouting { type filter hook postrouting priority 0;
  ${
    Object.entries(MARKS).map(([port, mark]) => `udp dport ${port} meta mark set ${mark};`).join(
      " ",
    )
  }
}; }'`;

/** A row: what, from where under which source, to where, the source that is seen there, and the port. */
type Row = readonly [string, Place, string, Place, string, string, number?];

/** Every kind of packet. */
function rowsOf(town: Town, family: Family): readonly Row[] {
  const at = HOSTS[family], group = GROUPS[family];
  const pod = town.of("pod", family), neighbour = town.of("neighbour", family);
  const peerPod = town.of("peerPod", family);
  const own = town.own(town.node, family), peers = town.own(town.peer, family);
  return [
    ["pod → pod of this node", "pod", pod, "neighbour", neighbour, pod],
    ["pod → other node's pod", "pod", pod, "peerPod", peerPod, pod],
    ["pod → this node", "pod", pod, "node", at.node, pod],
    ["pod → the bridge", "pod", pod, "node", own.bridge, pod],
    ["pod → other node", "pod", pod, "peer", at.peer, at.node],
    ["pod → outside", "pod", pod, "outside", at.outside, at.node],
    ["pod → multicast", "pod", pod, "neighbour", group, pod],
    ["pod's network's address → multicast", "node", own.bridge, "outside", group, own.bridge],
    ["other node's pod → pod", "peerPod", peerPod, "pod", pod, peerPod],
    ["other node's pod → this node", "peerPod", peerPod, "node", at.node, at.peer],
    ["other node → pod", "peer", at.peer, "pod", pod, peers.tunnel],
    ["other node, its tunnel's address → pod", "peer", peers.tunnel, "pod", pod, peers.tunnel],
    ["host → pod", "node", at.node, "pod", pod, at.node],
    ["host, bridge's address → pod", "node", own.bridge, "pod", pod, own.bridge],
    ["host → other node's pod", "node", at.node, "peerPod", peerPod, own.tunnel],
    [
      "host, tunnel's address → other node's pod",
      "node",
      own.tunnel,
      "peerPod",
      peerPod,
      own.tunnel,
    ],
    [
      "host, bridge's address → other node's pod",
      "node",
      own.bridge,
      "peerPod",
      peerPod,
      own.bridge,
    ],
    ["host → outside", "node", at.node, "outside", at.outside, at.node],
    ["host → multicast", "node", at.node, "outside", group, at.node],
    ["outside → pod", "outside", at.outside, "pod", pod, at.outside],
    ["outside → other node's pod", "outside", at.outside, "peerPod", peerPod, own.tunnel],
    ["outside → host", "outside", at.outside, "node", at.node, at.outside],
    ["pod → outside, kube-proxy's mark", "pod", pod, "outside", at.outside, pod, 4001],
    ["pod → outside, that and other marks", "pod", pod, "outside", at.outside, pod, 4002],
    ["pod → outside, another's mark", "pod", pod, "outside", at.outside, at.node, 4003],
    [
      "host → other node's pod, kube-proxy's mark",
      "node",
      at.node,
      "peerPod",
      peerPod,
      at.node,
      4001,
    ],
    ["pod → other node's pod, kube-proxy's mark", "pod", pod, "peerPod", peerPod, pod, 4001],
  ];
}

for (const { engine, ...netConf } of ENGINES) {
  labTest(`the source that receivers see, by ${engine}`, {
    nodes: 2,
    netConf: {
      Network: NETWORKS[4],
      EnableIPv6: true,
      IPv6Network: NETWORKS[6],
      Backend: { Type: "vxlan" },
      ...netConf,
    },
  }, async (lab, t) => {
    using town = await Town.create(lab);
    await t.step("its rules are there, and not those of another engine", () => {
      const tables = shIn(town.node, "nft list tables");
      assert.equal(/^table ip6? denim$/m.test(tables), engine === "nftables");
      const chains = shIn(town.node, "iptables-save -t nat; ip6tables-save -t nat");
      assert.equal(/^:FLANNEL-POSTRTG /m.test(chains), engine === "iptables");
    });
    shIn(town.node, MARKING);
    for (const family of FAMILIES) {
      await t.step(`IPv${family}`, async (t) => {
        for (const [what, from, source, to, destination, seen, port] of rowsOf(town, family)) {
          const device = destination === GROUPS[family] && from === "node" ? "eth0" : undefined;
          await t.step(what, async () => {
            const by = to === "node" && from === "pod" ? "cni0" : "eth0";
            const options = { ...port && { sentTo: port }, device, by };
            assert.deepEqual(await town.seen([from, source], [to, destination], options), [seen]);
          });
        }
      });
    }
    shIn(town.node, "nft delete table inet marks");
    for (const mode of ["iptables", "nftables"] as const) {
      await t.step(`kube-proxy's rules by ${mode}, made after denim's`, async () => {
        await withKubeProxy(town, mode, () => Promise.resolve());
      });
      await t.step(`kube-proxy's rules by ${mode}, made before denim's`, async () => {
        await withKubeProxy(town, mode, async () => {
          for (const args of [[], ["--ip-masq"]]) {
            await town.node.stopAgent();
            await town.node.startAgent(NEVER, args);
          }
        });
      });
    }
  });
}

/** What a service's pod sees with kube-proxy's rules on the node, after `prepare` has been done. */
async function withKubeProxy(
  town: Town,
  mode: ProxyMode,
  prepare: () => Promise<void>,
): Promise<void> {
  const services = (family: Family) => {
    const address = family === 4 ? "10.96.0.1" : "fd96::1";
    return (["pod", "peerPod"] as const).map((name, index) => ({
      address: `${address}${index}`,
      port: 80,
      endpoint: town.of(name, family),
      targetPort: 8080,
    }));
  };
  for (const family of FAMILIES) {
    shIn(town.node, kubeProxyRules(mode, family, services(family), NETWORKS[family]));
  }
  try {
    await prepare();
    for (const family of FAMILIES) {
      const [itself, elsewhere] = services(family).map(({ address }) => address);
      const pod = town.of("pod", family), neighbour = town.of("neighbour", family);
      const own = town.own(town.node, family), at = HOSTS[family];
      const rows: readonly Row[] = [
        ["a pod to itself", "pod", pod, "pod", itself!, own.bridge],
        ["a pod to another", "neighbour", neighbour, "pod", itself!, neighbour],
        ["a pod to another node's", "pod", pod, "peerPod", elsewhere!, pod],
        ["the host to a pod", "node", at.node, "pod", itself!, own.bridge],
        ["the host to another node's pod", "node", at.node, "peerPod", elsewhere!, own.tunnel],
        ["outside to another node's pod", "outside", at.outside, "peerPod", elsewhere!, own.tunnel],
      ];
      if (family === 4) {
        town.run("outside", () => sh("ip route replace 10.96.0.0/24 via 10.99.0.1"));
      } else town.run("outside", () => sh("ip -6 route replace fd96::/64 via fd99::1"));
      for (const [what, from, source, to, destination, seen] of rows) {
        const options = { sentTo: 80, port: 8080 };
        const sources = await town.seen([from, source], [to, destination], options);
        assert.deepEqual(sources, [seen], `IPv${family}: ${what}`);
      }
    }
    // Both ways: a connection of a pod with itself.
    const { pod } = town.pods;
    const { port } = await pod.listen();
    const [service] = services(4);
    const rules = [{ ...service!, port: 81, address: "10.96.0.99", targetPort: port }];
    shIn(town.node, noKubeProxyRules(mode, 4));
    shIn(town.node, kubeProxyRules(mode, 4, rules, NETWORKS[4]));
    const sent = await pod.send(IpAddress.parse("10.96.0.99"), 81, 100_000);
    assert.deepEqual(await pod.received(), { sha256: sent.sha256, bytes: 100_000 });
  } finally {
    for (const family of FAMILIES) shIn(town.node, noKubeProxyRules(mode, family));
  }
}
