/** What a receiver sees of each kind of packet that denim's nftables rules decide about. */

import assert from "node:assert/strict";
import { sendDatagram, sourcesOf } from "../../../tests/support/datagram.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { Cidr, FAMILIES, type Family } from "../../ip.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { findLink } from "../objects/link.ts";
import { PacketSocket } from "../sys/packet_socket.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { masqueradeTable } from "./masquerade.ts";
import type { NftTable } from "./nft_table.ts";
import { Nftables } from "./nftables.ts";

/** Addresses of one family. The node is 1 on the wire to its peer and 2 on the wire to the outside. */
interface Addresses {
  readonly network: string;
  readonly subnet: string;
  readonly bridge: string;
  readonly pod: string;
  readonly otherPod: string;
  readonly peerPod: string;
  readonly toPeer: string;
  readonly peer: string;
  readonly toOutside: string;
  readonly outside: string;
  readonly group: string;
}

const ADDRESSES: Readonly<Record<Family, Addresses>> = {
  4: {
    network: "10.5.0.0/16",
    subnet: "10.5.3.0/24",
    bridge: "10.5.3.1",
    pod: "10.5.3.7",
    otherPod: "10.5.3.8",
    peerPod: "10.5.9.7",
    toPeer: "10.99.0.1",
    peer: "10.99.0.2",
    toOutside: "192.0.2.2",
    outside: "192.0.2.1",
    group: "239.1.1.1",
  },
  6: {
    network: "fc00:5::/48",
    subnet: "fc00:5:0:3::/64",
    bridge: "fc00:5:0:3::1",
    pod: "fc00:5:0:3::7",
    otherPod: "fc00:5:0:3::8",
    peerPod: "fc00:5:0:9::7",
    toPeer: "fd99::1",
    peer: "fd99::2",
    toOutside: "2001:db8::2",
    outside: "2001:db8::1",
    group: "ff05::1",
  },
};

function masqueradeOf(family: Family): Masquerade {
  const { network, subnet } = ADDRESSES[family];
  return {
    kind: "masquerade",
    family,
    networks: [Cidr.parse(network)],
    subnets: [Cidr.parse(subnet)],
    fullyRandom: true,
  };
}

type Place = "node" | "pod" | "otherPod" | "peer" | "outside";

/** Two pods on a node, another node with a pod, and a host outside: all that packets can tell apart. */
class Town implements Disposable {
  readonly #stack = new DisposableStack();
  readonly #places: Readonly<Record<Place, ScratchNamespace>>;
  readonly nftables: Nftables;

  constructor() {
    using undo = new DisposableStack();
    const place = () => undo.use(new ScratchNamespace());
    this.#places = {
      node: place(),
      pod: place(),
      otherPod: place(),
      peer: place(),
      outside: place(),
    };
    const { node, pod, otherPod, peer, outside } = this.#places;
    node.ip("link add cni0 type bridge");
    node.ip("link set cni0 up");
    for (const [device, there] of Object.entries({ pod, otherPod, peer, outside })) {
      node.ip(`link add ${device} type veth peer name eth0 netns ${there.name}`);
      node.ip(`link set ${device} up`);
      there.ip("link set eth0 up");
    }
    node.ip("link set pod master cni0");
    node.ip("link set otherPod master cni0");
    peer.ip("link set lo up");
    node.run(() => {
      Deno.writeTextFileSync("/proc/sys/net/ipv4/ip_forward", "1");
      Deno.writeTextFileSync("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    });
    for (const family of FAMILIES) {
      const at = ADDRESSES[family];
      const length = family === 4 ? 24 : 64;
      const add = (place: ScratchNamespace, address: string, device: string) =>
        place.ip(`addr add ${address}/${length} dev ${device}${family === 6 ? " nodad" : ""}`);
      add(node, at.bridge, "cni0");
      add(node, at.toPeer, "peer");
      add(node, at.toOutside, "outside");
      add(pod, at.pod, "eth0");
      add(otherPod, at.otherPod, "eth0");
      add(peer, at.peer, "eth0");
      add(peer, at.peerPod, "lo");
      add(outside, at.outside, "eth0");
      pod.ip(`route add default via ${at.bridge}`);
      otherPod.ip(`route add default via ${at.bridge}`);
      peer.ip(`route add default via ${at.toPeer}`);
      outside.ip(`route add default via ${at.toOutside}`);
      node.ip(
        `route add ${Cidr.parse(`${at.peerPod.replace(/7$/, "0")}/${length}`)} via ${at.peer}`,
      );
    }
    this.nftables = undo.use(node.run(() => new Nftables()));
    this.#stack = undo.move();
  }

  run<T>(place: Place, fn: () => T extends Promise<unknown> ? never : T): T {
    return this.#places[place].run(fn);
  }

  put(object: NftTable): void {
    const key = this.nftables.key(object);
    const step = { action: "put", object, key, mayReplace: true } as const;
    assert.deepEqual(this.nftables.apply([step]), []);
  }

  /** Hears what the place gets. */
  listen(place: Place): PacketSocket {
    return this.run(place, () => {
      using netlink = new NetlinkSocket();
      return new PacketSocket(findLink(netlink, "eth0")!.index);
    });
  }

  [Symbol.dispose](): void {
    this.#stack[Symbol.dispose]();
  }
}

/** Ports for which another table on the node sets these marks, before the node's masquerade is asked. */
const MARKS: Readonly<Record<number, number>> = { 4001: 0x4000, 4002: 0xc001, 4003: 0x8000 };
const MARKING = `table inet kube-proxy {
  chain postrouting {
    type filter hook postrouting priority 0;
    ${
  Object.entries(MARKS).map(([port, mark]) => `udp dport ${port} meta mark set ${mark};`).join(" ")
}
  }
}`;

for (const family of FAMILIES) {
  rootTest(`the source that the receiver sees, IPv${family}`, async (t) => {
    using town = new Town();
    const at = ADDRESSES[family];
    town.run("node", () => sh('printf %s "$1" | nft -f -', [MARKING]));
    const object = masqueradeTable(masqueradeOf(family));

    /** From where, with which source, to where, at which address: and what that one sees. */
    type Case = readonly [
      what: string,
      from: Place,
      source: string,
      to: Place,
      destination: string,
      seen: string,
      port?: number,
    ];
    const cases: readonly Case[] = [
      ["pod → pod, same node", "pod", at.pod, "otherPod", at.otherPod, at.pod],
      ["pod → pod, other node", "pod", at.pod, "peer", at.peerPod, at.pod],
      ["other node's pod → pod", "peer", at.peerPod, "pod", at.pod, at.peerPod],
      ["other node → pod", "peer", at.peer, "pod", at.pod, at.peer],
      ["pod → other node", "pod", at.pod, "peer", at.peer, at.toPeer],
      ["pod → outside", "pod", at.pod, "outside", at.outside, at.toOutside],
      ["a pod's address → multicast", "node", at.bridge, "outside", at.group, at.bridge],
      ["host's address → multicast", "node", at.toOutside, "outside", at.group, at.toOutside],
      ["host, outside address → pod", "node", at.toOutside, "pod", at.pod, at.toOutside],
      [
        "host, outside address → other node's pod",
        "node",
        at.toOutside,
        "peer",
        at.peerPod,
        at.toPeer,
      ],
      [
        "host, bridge's address → other node's pod",
        "node",
        at.bridge,
        "peer",
        at.peerPod,
        at.bridge,
      ],
      ["host → outside", "node", at.toOutside, "outside", at.outside, at.toOutside],
      ["outside → pod", "outside", at.outside, "pod", at.pod, at.outside],
      ["outside → other node's pod", "outside", at.outside, "peer", at.peerPod, at.toPeer],
      ["other node's pod → outside", "peer", at.peerPod, "outside", at.outside, at.toOutside],
      ["pod → outside, kube-proxy's mark", "pod", at.pod, "outside", at.outside, at.pod, 4001],
      ["pod → outside, more marks", "pod", at.pod, "outside", at.outside, at.pod, 4002],
      ["pod → outside, another's mark", "pod", at.pod, "outside", at.outside, at.toOutside, 4003],
      [
        "host → other node's pod, kube-proxy's mark",
        "node",
        at.toOutside,
        "peer",
        at.peerPod,
        at.toOutside,
        4001,
      ],
    ];
    const see = async (entry: Case, port: number) => {
      const [, from, source, to, destination] = entry;
      using capture = town.listen(to);
      const device = destination === at.group ? "outside" : undefined;
      town.run(from, () => sendDatagram(source, destination, port, device));
      let sources: string[] = [];
      await eventually("the datagram arrives", () => {
        sources = sources.concat(sourcesOf(capture.frames(), port));
        return sources.length > 0;
      });
      return sources;
    };
    await t.step("without denim's table nothing is masqueraded", async () => {
      for (const entry of cases) assert.deepEqual(await see(entry, 5000), [entry[2]], entry[0]);
    });
    town.put(object);
    for (const entry of cases) {
      await t.step(
        entry[0],
        async () => assert.deepEqual(await see(entry, entry[6] ?? 6000), [entry[5]]),
      );
    }
  });
}

rootTest("no connection that begins while the rules are replaced goes out bare", async () => {
  using town = new Town();
  const at = ADDRESSES[4];
  const put = (...subnets: string[]) => {
    const object = masqueradeTable({ ...masqueradeOf(4), subnets: subnets.map(Cidr.parse) });
    town.put(object);
  };
  put(at.subnet);
  using capture = town.listen("outside");
  const seen: string[] = [];
  for (let replaced = 0; replaced < 500;) {
    // A connection for each datagram: bash opens a socket for each. A sender without end might be faster than
    // the test, which then never comes to replace the rules.
    const sender = town.run("pod", () =>
      new Deno.Command("bash", {
        args: ["-c", `for n in {1..1000}; do echo > /dev/udp/${at.outside}/7000; done`],
      }).spawn());
    for (const enough = seen.length + 1000; seen.length < enough; replaced++) {
      assert.ok(replaced < 100_000, "datagrams are lost");
      put(at.subnet, ...replaced % 2 === 0 ? ["10.5.4.0/24"] : []);
      seen.push(...sourcesOf(capture.frames(), 7000));
    }
    await sender.status;
  }
  assert.deepEqual([...new Set(seen)], [at.toOutside]);
});
