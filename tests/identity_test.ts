/** Whole nodes that are not where, or not who, they were. */

import type { Lease } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { Lab, type LabNode, type LabOptions } from "@denim/agent/lab";
import { EtcdServer } from "./support/etcd_server.ts";
import { ip, ipJson, vxlanRemotes } from "./support/ip.ts";
import { iproute } from "./support/iproute.ts";
import { labTest } from "./support/lab_test.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { rootTest } from "./support/root_test.ts";
import { startOrders, startRefused } from "./support/start_orders.ts";
import { eventually, NEVER } from "./support/wait.ts";

const NET_CONF = { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } };

function move(node: LabNode, from: string, to: string): void {
  ip(node, `addr del ${from}/24 dev eth0`);
  ip(node, `addr add ${to}/24 dev eth0`);
  ip(node, `route replace default via 10.99.0.254 dev eth0`);
}

function openStore(lab: Lab): SqliteStore {
  return SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
}

/** Who has which subnet, as the store says. */
async function holders(store: SqliteStore): Promise<Readonly<Record<string, string>>> {
  const leases = await store.leases(NEVER);
  return Object.fromEntries(
    leases.map(({ halves: [half] }) => [`${half!.subnet}`, `${half!.publicIp}`]),
  );
}

labTest("a node whose address changes again while its agent is down keeps its subnet", {
  nodes: 1,
  netConf: NET_CONF,
}, async (lab) => {
  await lab.startAgents(NEVER);
  await using store = openStore(lab);
  const node = lab.nodes[0]!;
  const subnet = `${node.subnet()}`;
  move(node, "10.99.0.1", "10.99.0.101");
  await eventually("published", async () => (await holders(store))[subnet] === "10.99.0.101");
  await node.stopAgent();
  move(node, "10.99.0.101", "10.99.0.102");
  await node.startAgent(NEVER);
  assert.deepEqual(await holders(store), { [subnet]: "10.99.0.102" });
});

labTest("a node with two addresses goes on under the last run's, whichever comes first", {
  nodes: 1,
  netConf: NET_CONF,
}, async (lab) => {
  await lab.startAgents(NEVER);
  await using store = openStore(lab);
  const node = lab.nodes[0]!;
  const before = await holders(store);
  await node.stopAgent();
  ip(node, "addr del 10.99.0.1/24 dev eth0");
  for (const each of ["10.99.0.200/32", "10.99.0.7/24", "10.99.0.1/24"]) {
    ip(node, `addr add ${each} dev eth0`);
  }
  ip(node, "route replace default via 10.99.0.254 dev eth0");
  await node.startAgent(NEVER);
  assert.deepEqual(await holders(store), before);
});

labTest("a node's address is followed also while net-conf is one that it can't have", {
  nodes: 2,
  netConf: NET_CONF,
}, async (lab) => {
  await lab.startAgents(NEVER);
  await using store = openStore(lab);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  const subnet = `${node.subnet()}`;
  const before = await holders(store);
  const log = () => Deno.readTextFileSync(node.logFile);
  const refusals = () => log().match(/ event=net-conf-refused/g)?.length;
  // What is leased does not fit it.
  const netConf = { ...NET_CONF, Network: "10.6.0.0/16" };
  await store.setNetworkConfig(JSON.stringify(netConf), { ifAbsent: false }, NEVER);
  await eventually("a word", () => refusals() === 1);
  // News of the underlay that change nothing are no reason to try it again.
  ip(node, "addr add 10.77.0.1/32 dev eth0");
  ip(node, "addr del 10.77.0.1/32 dev eth0");
  move(node, "10.99.0.1", "10.99.0.101");
  await eventually("published", async () => (await holders(store))[subnet] === "10.99.0.101");
  assert.deepEqual(await holders(store), { ...before, [subnet]: "10.99.0.101" });
  await eventually(
    "the other node sends to it there",
    () => vxlanRemotes(other).includes("10.99.0.101"),
  );
  assert.ok(refusals()! <= 2);
  assert.equal(`${node.subnet()}`, subnet);
});

labTest("a clone that is refused leaves no subnet.env that names the original's subnet", {
  nodes: 2,
  netConf: NET_CONF,
}, async (lab) => {
  const [node, clone] = lab.nodes as [LabNode, LabNode];
  await node.startAgent(NEVER);
  await using store = openStore(lab);
  const before = await holders(store);
  const [{ address }] = ipJson(node, "link show flannel.1");
  ip(clone, `link add flannel.1 address ${address} type vxlan id 1 dev eth0 dstport 8472`);
  Deno.copyFileSync(node.subnetFile, clone.subnetFile);
  await assert.rejects(clone.startAgent(NEVER), /if this machine is a clone of that node/);
  assert.throws(() => Deno.statSync(clone.subnetFile), Deno.errors.NotFound);
  assert.deepEqual(await holders(store), before);
});

labTest("the copy of a node's disk is refused while the node runs, and never has its MAC", {
  nodes: 2,
  netConf: NET_CONF,
}, async (lab) => {
  const [node, copy] = lab.nodes as [LabNode, LabNode];
  await node.startAgent(NEVER);
  move(copy, "10.99.0.2", "10.99.0.1");
  Deno.copyFileSync(node.subnetFile, copy.subnetFile);
  const record = JSON.parse(Deno.readTextFileSync(`${node.subnetFile}.last`));
  Deno.writeTextFileSync(
    `${copy.subnetFile}.last`,
    JSON.stringify({ ...record, boot: "the copy's machine was booted by itself" }),
  );
  const [{ address }] = ipJson(node, "link show flannel.1");
  await using store = openStore(lab);
  assert.match(await startRefused(copy), /another node has the public IP 10\.99\.0\.1/);
  assert.notEqual(node.agentPid, undefined);
  const [{ halves: [half] }] = await store.leases(NEVER) as [Lease];
  assert.deepEqual(half!.backendData, { VNI: 1, VtepMAC: address });
  // With an address of its own it gets a subnet and a MAC of its own.
  move(copy, "10.99.0.1", "10.99.0.2");
  await copy.startAgent(NEVER);
  assert.notEqual(ipJson(copy, "link show flannel.1")[0].address, address);
  assert.deepEqual(Object.values(await holders(store)).sort(), ["10.99.0.1", "10.99.0.2"]);
});

for (const [store, start] of [["sqlite", sqliteLab], ["etcd", etcdLab]] as const) {
  for (const order of startOrders(store)) {
    rootTest(`of two nodes with VirtualBox's address one is refused: ${order.name}`, async () => {
      await order.run(() => start({ nodes: 2, netConf: NET_CONF }));
    });
  }
}

/** A laboratory, and what else goes when it goes. */
type Started = AsyncDisposable & { readonly lab: Lab };

async function sqliteLab(options: LabOptions): Promise<Started> {
  const lab = await Lab.create(options);
  return { lab, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() };
}

async function etcdLab(options: LabOptions): Promise<Started> {
  await using parts = new AsyncDisposableStack();
  const host = "10.99.0.254";
  const storeFlags = ["--etcd-endpoints", `http://${host}:2379`];
  const lab = parts.use(await Lab.create({ ...options, storeFlags }));
  iproute("ip", `${lab.prefix}-net`, "link set lo up");
  const namespace = parts.use(NetworkNamespace.open(`/run/netns/${lab.prefix}-net`));
  const server = parts.use(await EtcdServer.start({ namespace, host }));
  server.ctl("put", "/coreos.com/network/config", JSON.stringify(options.netConf));
  return Object.assign(parts.move(), { lab });
}

labTest("two nodes with one public IP are named in the log of both; then they swap theirs", {
  nodes: 2,
  netConf: NET_CONF,
}, async (lab) => {
  await lab.startAgents(NEVER);
  await using store = openStore(lab);
  const [one, two] = lab.nodes as [LabNode, LabNode];
  move(one, "10.99.0.1", "10.99.0.2");
  for (const { name, logFile } of lab.nodes) {
    const word =
      "the node 10.99.0.2 has this node's public IP 10.99.0.2; look for a cloned machine";
    await eventually(`a word of ${name}`, () => Deno.readTextFileSync(logFile).includes(word));
  }
  move(two, "10.99.0.2", "10.99.0.1");
  const [subnetOfOne, subnetOfTwo] = [`${one.subnet()}`, `${two.subnet()}`];
  await eventually("each has the other's", async () => {
    const now = await holders(store);
    return now[subnetOfOne] === "10.99.0.2" && now[subnetOfTwo] === "10.99.0.1";
  });
  await eventually("each sends to the other", () => {
    return vxlanRemotes(one).includes("10.99.0.1") && vxlanRemotes(two).includes("10.99.0.2");
  });
  assert.deepEqual([`${one.subnet()}`, `${two.subnet()}`], [subnetOfOne, subnetOfTwo]);
});
