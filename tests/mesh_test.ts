/**
 * Each kind of trouble between nodes, made on purpose: the agent finds it, names it rightly, and says when it is over.
 */

import { NetworkNamespace } from "@denim/core/linux/namespace";
import type { Lab, LabNode } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { AGENT_ORIGIN } from "../agent/agent_client.ts";
import type { MeshReport } from "../agent/mesh/mesh_report.ts";
import type { PeersReport } from "../agent/status_report.ts";
import { carelessWire } from "./support/careless_wire.ts";
import { iproute } from "./support/iproute.ts";
import { labTest } from "./support/lab_test.ts";
import { report } from "./support/report.ts";
import { sh } from "./support/sh.ts";
import { eventually, NEVER } from "./support/wait.ts";

async function get(node: LabNode, route: string): Promise<string> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: node.apiSocket } });
  return await (await fetch(`${AGENT_ORIGIN}${route}`, { client })).text();
}

async function ask<Answer>(node: LabNode, route: string): Promise<Answer> {
  return JSON.parse(await get(node, route));
}

/** How many probes a node has sent. */
async function probes(node: LabNode): Promise<number> {
  return (await get(node, "/metrics")).split("\n")
    .filter((line) => line.startsWith("denim_probes_sent_total{"))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** What all nodes tell of the mesh, as a node hears it: for each trouble the subnet, the health, and what follows. */
async function mesh(node: LabNode): Promise<string[]> {
  const { troubles } = await ask<MeshReport>(node, "/mesh");
  return troubles.map(({ subnet, health, conclusion }) => `${subnet} ${health} ${conclusion}`);
}

/** How a node's agent finds the others, by their addresses on the underlay: `ok 1450`, the path MTU last. */
async function healths(node: LabNode): Promise<Record<string, string>> {
  const { peers } = await ask<PeersReport>(node, "/peers");
  return Object.fromEntries(
    peers.map(({ publicIp, health, pathMtuBytes }) => [publicIp, `${health} ${pathMtuBytes}`]),
  );
}

/** Waits until a node finds the others so, which are given by number. Resolves to the time until it knew their healths. */
async function finds(node: LabNode, wanted: Readonly<Record<number, string>>): Promise<number> {
  const want = Object.fromEntries(
    Object.entries(wanted).map(([number, text]) => [`10.99.0.${number}`, text]),
  );
  const named = (texts: Readonly<Record<string, string>>) =>
    Object.entries(texts).map(([ip, text]) => `${ip} ${text.split(" ")[0]}`).sort().join();
  let last: Record<string, string> = {};
  try {
    const ms = await eventually("the healths", async () => {
      last = await healths(node);
      return named(last) === named(want);
    }, 20_000);
    await eventually("the path MTUs", async () => {
      last = await healths(node);
      return isDeepStrictEqual(last, want);
    }, 20_000);
    return ms;
  } catch (error) {
    assert.deepEqual(last, want);
    throw error;
  }
}

/** Drops what comes in to a node and fits a rule of nftables, until it is disposed of. */
function dropping(node: LabNode, match: string): Disposable {
  const nft = (command: string) => sh(`ip netns exec ${node.namespaceName} nft '${command}'`);
  nft("add table inet trouble");
  nft("add chain inet trouble input { type filter hook input priority -300; }");
  nft(`add rule inet trouble input ${match} drop`);
  return { [Symbol.dispose]: () => void nft("delete table inet trouble") };
}

/** Takes a node off the bridge, and joins it by a wire that completes no checksums. */
function withoutOffload(lab: Lab, node: LabNode): AsyncDisposable {
  const net = `${lab.prefix}-net`;
  using namespace = NetworkNamespace.open(`/run/netns/${net}`);
  iproute("ip", net, "link add wire0 type veth peer name wire1");
  iproute("ip", net, "link set wire1 master br0 up");
  iproute("ip", net, "link set wire0 up");
  iproute("ip", net, `link set ${node.name} nomaster`);
  const wire = carelessWire(namespace, [node.name, "wire0"], 8472);
  return {
    async [Symbol.asyncDispose]() {
      await wire[Symbol.asyncDispose]();
      iproute("ip", net, "link del wire0");
      iproute("ip", net, `link set ${node.name} master br0`);
    },
  };
}

labTest("every trouble with a peer is found and named, and so is its end", {
  nodes: 6,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
}, async (lab) => {
  const [first, second, third, fourth, fifth, sixth] = lab.nodes as LabNode[] as [
    LabNode,
    LabNode,
    LabNode,
    LabNode,
    LabNode,
    LabNode,
  ];
  const net = `${lab.prefix}-net`;
  await lab.startAgents(NEVER);
  const well = "ok 1450";
  await finds(first, { 2: well, 3: well, 4: well, 5: well, 6: well });
  let seconds: number;
  {
    await second.stopAgent();
    // The second is gone, the third does not hear the first, the fourth has a firewall, the path to the fifth is narrow.
    iproute("ip", net, "link set node2 down");
    using _deaf = dropping(third, `ip saddr ${first.publicIp}`);
    using _firewall = dropping(fourth, "udp dport 8472");
    iproute("ip", net, "link set node5 mtu 1400");
    await using _offload = withoutOffload(lab, sixth);
    seconds = await finds(first, {
      2: "no-answer null",
      3: "one-way null",
      4: "blocked null",
      // A bridge has room for a VLAN tag beyond its MTU.
      5: "mtu 1354",
      6: "checksum 1450",
    }) / 1000;
    // Another node knows what the first finds, and that the second is not cut off from it alone.
    const wanted = [
      `${second.subnet()} no-answer node-down`,
      `${first.subnet()} no-answer underlay-cut`,
      `${third.subnet()} one-way null`,
      `${sixth.subnet()} checksum null`,
    ];
    await eventually("the fifth node's view of the mesh", async () => {
      const told = await mesh(fifth);
      return wanted.every((text) => told.includes(text));
    });
    iproute("ip", net, "link set node2 up");
    iproute("ip", net, "link set node5 mtu 1500");
  }
  await finds(first, { 2: well, 3: well, 4: well, 5: well, 6: well });
  await eventually("a mesh without trouble", async () => (await mesh(fifth)).length === 0, 30_000);
  const log = Deno.readTextFileSync(first.logFile);
  const said = (event: string) =>
    [...log.matchAll(new RegExp(`health=(\\S+) event=${event}`, "g"))]
      .map(([, health]) => health!).sort();
  assert.deepEqual(said("peer-unhealthy"), ["blocked", "checksum", "mtu", "no-answer", "one-way"]);
  assert.deepEqual(said("peer-healthy"), ["ok", "ok", "ok", "ok", "ok"]);
  report(`five kinds of trouble between nodes, found and named after ${seconds.toFixed(1)} s`);
});

labTest("WireGuard's nodes agree on keys before their probes are missed: no trouble is announced", {
  nodes: 6,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "wireguard" } },
  program: "wireguard-go",
}, async (lab) => {
  const [first, ...others] = lab.nodes as [LabNode, ...LabNode[]];
  await first.startAgent(NEVER);
  await Promise.all(others.map((node) => node.startAgent(NEVER)));
  const all = (except: LabNode) =>
    Object.fromEntries(
      lab.nodes.flatMap((node, index) => node === except ? [] : [[index + 1, "ok 1420"]]),
    );
  await Promise.all(lab.nodes.map((node) => finds(node, all(node))));
  // A node that comes back with a device of its own anew: the others still use what they agreed on with the one before.
  const [, , last] = lab.nodes.slice(-3) as [LabNode, LabNode, LabNode];
  await last.stopAgent("SIGKILL");
  iproute("ip", last.namespaceName, "link del flannel-wg");
  await last.startAgent(NEVER);
  const before = await probes(first);
  await eventually("eight rounds", async () => await probes(first) > before + 40, 20_000);
  await Promise.all(lab.nodes.map((node) => finds(node, all(node))));
  for (const { logFile, name } of lab.nodes) {
    const log = Deno.readTextFileSync(logFile);
    assert.doesNotMatch(log, /event=(peer-unhealthy|peers-changed)/, name);
  }
});
