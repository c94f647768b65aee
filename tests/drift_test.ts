/** What others do to a node behind its agent's back, seen from its pods. */

import assert from "node:assert/strict";
import type { LabNode, Pod } from "@denim/agent/lab";
import { ip, ipJson } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { eventually, NEVER } from "./support/wait.ts";

/** No fault may last longer. */
const HEAL_MS = 1_000;

/** Gives settings of a node a value. */
function sysctl(node: LabNode, value: string, ...names: readonly string[]): void {
  using namespace = node.open();
  namespace.run(() => {
    for (const name of names) Deno.writeTextFileSync(`/proc/sys/net/${name}`, value);
  });
}

labTest("a node whose bridge or forwarding others change is as it was within a second", {
  nodes: 2,
  netConf: {
    Network: "10.5.0.0/16",
    EnableIPv6: true,
    IPv6Network: "fc00:5::/48",
    Backend: { Type: "vxlan" },
  },
}, async (lab, t) => {
  await lab.startAgents(NEVER);
  const [a, b] = await Promise.all(lab.nodes.map((node, index) => node.addPod(`pod${index}`))) as [
    Pod,
    Pod,
  ];
  const [node] = lab.nodes as [LabNode, LabNode];
  const answer = async () => {
    for (const address of b.addresses) {
      if ((await a.ping(address, { timeoutMs: 100 })).timeMs === undefined) return false;
    }
    return true;
  };
  await eventually("they talk", answer);
  const said = () => Deno.readTextFileSync(node.logFile);
  assert.doesNotMatch(said(), /event=drift-/, "what the plugin does is no drift");
  const subnet = node.subnet();
  const hasGateway = () => ip(node, "-4 addr show dev cni0").includes(`${subnet.at(1n)}/24`);
  const faults: readonly (readonly [string, () => void])[] = [
    ["IPv4 forwarding off", () => sysctl(node, "0", "ipv4/ip_forward")],
    ["IPv6 forwarding off", () => sysctl(node, "0", "ipv6/conf/all/forwarding")],
    [
      "forwarding of each device off",
      () =>
        sysctl(
          node,
          "0",
          ...["cni0", "flannel.1", "eth0"].map((name) => `ipv4/conf/${name}/forwarding`),
        ),
    ],
    ["cni0 loses its addresses", () => void ip(node, "addr flush dev cni0 scope global")],
    ["cni0 is set down", () => void ip(node, "link set cni0 down")],
    ["cni0 gets another address", () => {
      ip(node, `addr del ${subnet.at(1n)}/24 dev cni0`);
      ip(node, "addr add 10.5.255.1/24 dev cni0");
    }],
  ];
  for (const [fault, make] of faults) {
    await t.step(fault, async () => {
      make();
      await eventually("they talk again", answer, HEAL_MS);
    });
  }
  await t.step("an operator's address before denim's does not hinder the next pod", async () => {
    ip(node, "addr flush dev cni0 scope global");
    ip(node, "addr add 192.168.77.1/24 dev cni0");
    await eventually("its own address", hasGateway, HEAL_MS);
    await node.addPod("late");
    assert.match(ip(node, "addr show dev cni0"), /192\.168\.77\.1\/24/);
  });
  await t.step("a pod on a node whose bridge was deleted meanwhile", async () => {
    ip(node, "link del cni0");
    const pod = await node.addPod("later");
    ip(node, "addr flush dev cni0 scope global");
    await eventually("the gateway's address", hasGateway, HEAL_MS);
    // The pod may have asked for its gateway in vain meanwhile: it asks again after a second.
    await eventually(
      "it talks",
      async () => (await pod.ping(b.address, { timeoutMs: 100 })).timeMs !== undefined,
    );
  });
  assert.doesNotMatch(said(), / ERROR /);
});

labTest("what the last run left in another Network is removed, a stranger's is not", {
  nodes: 1,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "host-gw" } },
}, async (lab) => {
  const [node] = lab.nodes as [LabNode];
  const left = (network: number) => {
    const id = ((10 << 24) | (network << 16) | (3 << 8)) >>> 0;
    ip(node, `nexthop add id ${id} via 10.99.0.77 dev eth0 onlink protocol 155`);
    ip(node, `route add 10.${network}.3.0/24 nhid ${id} protocol 155`);
  };
  left(7);
  left(8);
  Deno.writeTextFileSync(
    node.subnetFile,
    "FLANNEL_NETWORK=10.7.0.0/16\nFLANNEL_SUBNET=10.7.1.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n",
  );
  await node.startAgent(NEVER);
  const routes = ipJson(node, "route show").map(({ dst }) => dst);
  assert.ok(!routes.includes("10.7.3.0/24") && routes.includes("10.8.3.0/24"), routes.join(" "));
  assert.equal(ipJson(node, "nexthop show").length, 1);
});
