/** Pods whose packets the plugin masquerades, on a node whose agent does not: what receivers see, and what is left. */

import { FAMILIES, type Family, IpAddress } from "@denim/core/ip";
import { findLink, NetlinkSocket, PacketSocket } from "@denim/core/linux";
import assert from "node:assert/strict";
import { sendDatagram, sourcesOf } from "../support/datagram.ts";
import { rootTest } from "../support/root_test.ts";
import { ScratchNamespace } from "../support/scratch_namespace.ts";
import { sh } from "../support/sh.ts";
import { all, eventually } from "../support/wait.ts";
import { debianPlugin } from "../support/debian_plugins.ts";
import { attachment, DONE, PluginNode, programOf, SUBNET, SUBNET6 } from "./plugin_node.ts";

/** Where the node's packets go: another node with its pods, and the world. */
const ADDRESSES: Readonly<Record<Family, Readonly<Record<string, string>>>> = {
  4: {
    node: "192.0.2.1",
    outside: "192.0.2.2",
    otherPod: "10.231.9.7",
    group: "239.1.1.1",
  },
  6: {
    node: "2001:db8::1",
    outside: "2001:db8::2",
    otherPod: "fc00:231:0:9::7",
    group: "ff05::1",
  },
};

/** A node without a masquerading agent, and what is outside. */
class Place implements Disposable {
  readonly node = new PluginNode({ dualStack: true, ipMasq: false });
  readonly outside = new ScratchNamespace();

  constructor() {
    const { namespace } = this.node;
    namespace.ip(`link add wan type veth peer name eth0 netns ${this.outside.name}`);
    namespace.ip("link set wan up");
    this.outside.ip("link set eth0 up");
    this.outside.ip("link set lo up");
    for (const family of FAMILIES) {
      const { node, outside, otherPod } = ADDRESSES[family];
      const [length, more] = family === 4 ? [24, ""] : [64, " nodad"];
      namespace.ip(`addr add ${node}/${length} dev wan${more}`);
      this.outside.ip(`addr add ${outside}/${length} dev eth0${more}`);
      this.outside.ip(`addr add ${otherPod}/${length} dev lo${more}`);
      namespace.ip(`route add default via ${outside}`);
      this.outside.ip(`route add default via ${node}`);
    }
  }

  /** The pod's network configuration, with a default route. */
  conf(delegate: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    return this.node.conf({ delegate: { isDefaultGateway: true, ...delegate } });
  }

  /** What the outside sees as the source of a pod's datagram. */
  async seen(pod: ScratchNamespace, from: string, to: string, port = 6000): Promise<string[]> {
    using capture = this.outside.run(() => {
      using socket = new NetlinkSocket();
      return new PacketSocket(findLink(socket, "eth0")!.index);
    });
    pod.run(() => sendDatagram(from, to, port));
    let sources: string[] = [];
    await eventually("the datagram arrives", () => {
      sources = sources.concat(sourcesOf(capture.frames(), port));
      return sources.length > 0;
    });
    return sources;
  }

  /** What is left of pods on the node. */
  leftovers(): string[] {
    return this.node.leftovers().filter((name) => name !== "wan");
  }

  /** All of the node's nftables, in words. */
  rules(): string {
    return this.node.namespace.run(() => sh("nft list ruleset"));
  }

  [Symbol.dispose](): void {
    this.outside[Symbol.dispose]();
    this.node[Symbol.dispose]();
  }
}

const podAddress = (result: { ips: { address: string }[] }, family: Family) =>
  result.ips.map(({ address }) => address.split("/")[0]!)
    .find((address) => IpAddress.parse(address).family === family)!;

rootTest("what receivers see of pods that the plugin masquerades", async (t) => {
  using place = new Place();
  const { node } = place;
  const [pod, other, bare] = [node.pod(), node.pod(), node.pod()];
  const added = await node.succeedAsProcess("ADD", pod, { conf: place.conf() });
  await node.succeedAsProcess("ADD", other, { conf: place.conf({ ipMasq: true }) });
  const plain = await node.succeedAsProcess("ADD", bare, { conf: place.conf({ ipMasq: false }) });
  for (const family of FAMILIES) {
    const { node: own, outside, otherPod } = ADDRESSES[family] as Record<string, string>;
    const from = podAddress(added, family);
    await t.step(`IPv${family}`, async () => {
      assert.deepEqual(await place.seen(pod, from, outside!), [own]);
      assert.deepEqual(await place.seen(pod, from, otherPod!), [from], "another node's pod");
      const without = podAddress(plain, family);
      assert.deepEqual(await place.seen(bare, without, outside!), [without], "ipMasq is false");
    });
  }
  await t.step("kube-proxy's mark is left to kube-proxy", async () => {
    node.namespace.run(() =>
      sh(`nft 'table inet kube-proxy { chain postrouting {
        type filter hook postrouting priority 0; udp dport 4001 meta mark set 0xc000; }; }'`)
    );
    for (const family of FAMILIES) {
      const from = podAddress(added, family);
      const to = ADDRESSES[family].outside!;
      assert.deepEqual(await place.seen(pod, from, to, 4001), [from]);
    }
    node.namespace.run(() => sh("nft delete table inet kube-proxy"));
  });
  await t.step("the agent's table beside it does no harm", async () => {
    node.namespace.run(() =>
      sh(`nft 'table ip denim { chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr ${SUBNET} ip daddr 10.231.0.0/16 return
        ip saddr 10.231.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random; }; }'`)
    );
    const from = podAddress(added, 4);
    assert.deepEqual(await place.seen(pod, from, ADDRESSES[4].outside!), [ADDRESSES[4].node]);
    assert.deepEqual(await place.seen(pod, from, ADDRESSES[4].otherPod!), [from]);
    node.namespace.run(() => sh("nft delete table ip denim"));
  });
  await t.step("CHECK misses a rule that is gone", async () => {
    const check = () => node.run("CHECK", pod, { conf: { ...place.conf(), prevResult: added } });
    assert.deepEqual(await check(), DONE);
    node.namespace.run(() => sh("nft flush table ip6 denim-cni"));
    const { json } = await check();
    const missing = podAddress(added, 6);
    assert.equal(
      json.msg,
      `${missing} is no longer masqueraded: the node's nftables lack its rule`,
    );
    assert.equal(json.code, 103);
  });
  await t.step("each pod's rules go with it, and the tables with the last", async () => {
    assert.match(place.rules(), new RegExp(`ip saddr ${podAddress(added, 4)} `));
    await node.succeedAsProcess("DEL", pod, { conf: place.conf() });
    assert.doesNotMatch(place.rules(), new RegExp(`ip saddr ${podAddress(added, 4)} `));
    assert.match(place.rules(), /table ip denim-cni/);
    // Without its record, and with a path that leads nowhere by now.
    Deno.removeSync(`${node.dataDir}/${other.name}`);
    await node.succeedAsProcess("DEL", other, { conf: place.conf(), netns: "" });
    await node.succeedAsProcess("DEL", bare, { conf: place.conf({ ipMasq: false }) });
    assert.equal(place.rules(), "");
    assert.deepEqual(place.leftovers(), []);
  });
});

rootTest("GC and the next ADD remove what lost DELs left", async () => {
  using place = new Place();
  const { node } = place;
  const [pod, gone] = [node.pod(), node.pod()];
  const conf = place.conf();
  for (const each of [pod, gone]) await node.succeedAsProcess("ADD", each, { conf });
  const rulesOf = (address: string) => place.rules().split(`saddr ${address} `).length - 1;
  gone.ip("link del eth0");
  node.age();
  const before = place.rules();
  const gc = { ...conf, "cni.dev/valid-attachments": [attachment(pod)] };
  assert.deepEqual(await node.run("GC", pod, { conf: gc }), DONE);
  assert.notEqual(place.rules(), before);
  assert.deepEqual([rulesOf(`${SUBNET.at(2n)}`), rulesOf(`${SUBNET.at(3n)}`)], [1, 0]);
  assert.equal(rulesOf(`${SUBNET6.at(2n)}`), 1);
  // A rule of nobody's for an address that is given again; it would masquerade what it should not.
  node.namespace.run(() =>
    sh(`nft 'add rule ip denim-cni postrouting ip saddr ${SUBNET.at(4n)} masquerade \\
      comment "veth00000000000 ${SUBNET.at(4n)}"'`)
  );
  await node.succeedAsProcess("ADD", node.pod(), { conf });
  assert.equal(rulesOf(`${SUBNET.at(4n)}`), 1);
});

rootTest("pods that come and go at the same time are in nobody's way", async () => {
  using place = new Place();
  const { node } = place;
  const conf = place.conf();
  const pods = Array.from({ length: 8 }, () => node.pod());
  await all(pods.map((pod) => node.succeedAsProcess("ADD", pod, { conf })));
  assert.equal(place.rules().split(" masquerade ").length - 1, 16);
  const [first, ...others] = pods;
  await all([
    ...others.map((pod) => node.succeedAsProcess("DEL", pod, { conf })),
    node.succeedAsProcess("ADD", node.pod(), { conf }),
  ]);
  assert.equal(place.rules().split(" masquerade ").length - 1, 4);
  await node.succeedAsProcess("DEL", first!, { conf });
});

for (const command of ["ADD", "DEL"] as const) {
  for (const step of ["change nftables", "go on after nftables"]) {
    rootTest(
      `${command} killed when it was about to ${step}: DEL and GC leave no rule`,
      async () => {
        using place = new Place();
        const { node } = place;
        const conf = place.conf();
        const program = programOf("killed_plugin.ts", step, `${node.directory}/step`);
        for (const next of ["DEL", "GC"]) {
          const pod = node.pod();
          if (command === "DEL") await node.succeedAsProcess("ADD", pod, { conf });
          assert.equal((await node.run(command, pod, { conf }, program)).code, 128 + 9);
          node.age();
          const none = next === "GC" ? { "cni.dev/valid-attachments": [] } : {};
          assert.deepEqual(await node.run(next, pod, { conf: { ...conf, ...none } }), DONE);
          assert.equal(place.rules(), "", next);
          assert.deepEqual(place.leftovers(), []);
        }
      },
    );
  }
}

rootTest("an ADD that fails later leaves no rule", async () => {
  using place = new Place();
  const { node } = place;
  const pod = node.pod();
  // The record can't be written: a folder has its name.
  Deno.mkdirSync(`${node.dataDir}/${pod.name}`, { recursive: true });
  assert.equal((await node.run("ADD", pod, { conf: place.conf() })).code, 1);
  assert.equal(place.rules(), "");
  assert.deepEqual(place.leftovers(), [pod.name]);
});

rootTest("by iptables it is the bridge plugin that masquerades, or nobody", async () => {
  using place = new Place();
  const { node } = place;
  const pod = node.pod();
  const conf = { ...place.conf({ ipMasqBackend: "iptables" }), cniVersion: "1.0.0" };
  const refused = await node.run("ADD", pod, { conf, cniPath: "/nowhere" });
  assert.match(
    refused.json.msg,
    /^delegate\.ipMasqBackend is "iptables", which denim does not do itself; the "bridge" plugin does, and is not in CNI_PATH=\/nowhere/,
  );
  assert.equal(refused.json.code, 2);
  debianPlugin("bridge");
  const added = await node.succeedAsProcess("ADD", pod, { conf });
  const from = podAddress(added, 4);
  assert.deepEqual(await place.seen(pod, from, ADDRESSES[4].outside!), [ADDRESSES[4].node]);
  assert.doesNotMatch(place.rules(), /denim-cni/);
  await node.succeedAsProcess("DEL", pod, { conf });
  assert.doesNotMatch(node.namespace.run(() => sh("iptables-save -t nat")), /MASQUERADE/);
  assert.deepEqual(place.leftovers(), []);
});
