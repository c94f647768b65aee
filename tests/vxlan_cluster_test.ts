/**
 * Whole nodes: real agents in namespaces, pods attached through the real plugin, Debian's ping between
 * them.
 */

import { expiryMs } from "@denim/core";
import assert from "node:assert/strict";
import { Lab, type LabNode, type Pod } from "@denim/agent/lab";
import { SqliteStore } from "@denim/core/stores/sqlite";
import { ip, vxlanRemotes } from "./support/ip.ts";
import { RunningPing } from "./support/ping.ts";
import { reached } from "./support/reached.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { rootTest } from "./support/root_test.ts";
import { eventually, NEVER } from "./support/wait.ts";

const NET_CONF = { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } };

async function ping(from: Pod, to: Pod, ...args: string[]): Promise<void> {
  await reached(from, to.address);
  using namespace = from.open();
  const counts = await new RunningPing(namespace, [
    "-c",
    "2",
    "-i",
    "0.2",
    "-W",
    "2",
    ...args,
    `${to.address}`,
  ])
    .finish();
  assert.equal(counts.received, counts.sent, `${from.name} → ${to.name} ${args.join(" ")}`);
}

rootTest("two agents, two pods: they talk, up to the largest packet", async () => {
  await using lab = await Lab.create({ nodes: 2, netConf: NET_CONF });
  await lab.startAgents(NEVER);
  const pods = await Promise.all(lab.nodes.map((node, index) => node.addPod(`pod${index + 1}`)));
  const [a, b] = [pods[0]!, pods[1]!];
  for (const [from, to] of [[a, b], [b, a]] as const) {
    await ping(from, to);
    // 1450 of the pod's MTU, less 20 of IPv4's header and 8 of ICMP's.
    await ping(from, to, "-M", "do", "-s", `${1450 - 28}`);
  }
  const { port } = await b.listen();
  const sent = await a.send(b.address, port, 1024 * 1024);
  assert.deepEqual(await b.received(), { sha256: sent.sha256, bytes: 1024 * 1024 });
});

rootTest("an agent killed, stopped and started again loses no packet", async (t) => {
  await using lab = await Lab.create({ nodes: 2, netConf: NET_CONF });
  await lab.startAgents(NEVER);
  const [node, other] = [lab.nodes[0]!, lab.nodes[1]!];
  const [a, b] = [await node.addPod("a"), await other.addPod("b")];
  await ping(a, b);
  const mac = () => JSON.parse(ip(node, "-j link show flannel.1"))[0].address;
  const before = { subnet: `${node.subnet()}`, mac: mac() };
  for (const how of ["SIGKILL", "SIGTERM"] as const) {
    await t.step(how, async () => {
      using namespace = a.open();
      const args = ["-i", "0.001", "-c", "1500", "-q", `${b.address}`];
      const pinging = new RunningPing(namespace, args);
      const ended = await node.stopAgent(how);
      assert.equal(ended?.signal, how === "SIGKILL" ? how : null, "it stops when told to");
      await node.startAgent(NEVER);
      assert.deepEqual(await pinging.finish(), { sent: 1500, received: 1500 });
      assert.deepEqual({ subnet: `${node.subnet()}`, mac: mac() }, before);
    });
  }
});

rootTest("a node that joins is reached, one whose lease ends is forgotten", async () => {
  await using lab = await Lab.create({ nodes: 3, netConf: NET_CONF });
  const [first, second, late] = lab.nodes as [LabNode, LabNode, LabNode];
  await Promise.all([first.startAgent(NEVER), second.startAgent(NEVER)]);
  const a = await first.addPod("a");
  await late.startAgent(NEVER);
  const route = () => ip(first, "route").includes(`${late.subnet()}`);
  await eventually("a route to the late node", route, 200);
  await ping(a, await late.addPod("b"));
  await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
  await late.stopAgent();
  await store.release(`${late.subnet()}`.replace("/", "-"), NEVER);
  await eventually("no route to the node that left", () => !route(), 1000);
});

rootTest("a lease that is deleted is claimed again at once, with the same subnet", async () => {
  await using lab = await Lab.create({ nodes: 2, netConf: NET_CONF });
  await lab.startAgents(NEVER);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  const key = `${node.subnet()}`.replace("/", "-");
  await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
  await store.release(key, NEVER);
  const identity = { publicIps: new Map([[4 as const, node.publicIp]]), previousSubnets: [] };
  await eventually(
    "claimed again",
    async () => (await store.held(identity, NEVER))?.key === key,
    1000,
  );
  await eventually("the other node's route", () => ip(other, "route").includes(`${node.subnet()}`));
});

rootTest("a node whose address changed while no agent ran keeps its subnet", async () => {
  await using lab = await Lab.create({ nodes: 2, netConf: NET_CONF });
  await lab.startAgents(NEVER);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  const pods = [await node.addPod("a"), await other.addPod("b")] as const;
  const subnet = `${node.subnet()}`;
  await node.stopAgent();
  ip(node, `addr del ${node.publicIp}/24 dev eth0`);
  ip(node, "addr add 10.99.0.77/24 dev eth0");
  // Also where subnet.env went with it.
  await node.startAgent(NEVER, ["--iface", "eth0"]);
  assert.equal(`${node.subnet()}`, subnet);
  await eventually(
    "the other node follows",
    () => vxlanRemotes(other).includes("10.99.0.77"),
  );
  await eventually("pods talk", async () => {
    const { timeMs } = await pods[0].ping(pods[1].address, { timeoutMs: 200 });
    return timeMs !== undefined;
  }, 2_000);
});

rootTest("a lease is renewed before its end", async () => {
  await using lab = await Lab.create({ nodes: 1, netConf: NET_CONF });
  const node = lab.nodes[0]!;
  const path = `${lab.directory}/denim.db`;
  await using store = SqliteStore.open(path, { log: new RecordingLog() });
  await store.setNetworkConfig(JSON.stringify(NET_CONF), { ifAbsent: true }, NEVER);
  const program = new URL("./support/agent_that_renews.ts", import.meta.url).pathname;
  const agent = node.spawn(
    [Deno.execPath(), "run", "-A", program, ...node.agentArguments],
    { stdin: "null", stdout: "null", stderr: "null" },
  );
  const identity = { publicIps: new Map([[4 as const, node.publicIp]]), previousSubnets: [] };
  const expiry = async () => expiryMs((await store.held(identity, NEVER))?.expiry ?? "never") ?? 0;
  await eventually("leased", async () => await expiry() > 0);
  const first = await expiry();
  await eventually("renewed", async () => await expiry() > first);
  agent.kill("SIGTERM");
  assert.equal((await agent.status).code, 0);
});

rootTest("VXLAN's options reach the device: VNI, Port, MTU, GBP, Learning", async () => {
  const Backend = { type: "vxlan", vni: 7, Port: 4789, MTU: 1400, GBP: true, Learning: true };
  await using lab = await Lab.create({ nodes: 1, netConf: { network: "10.5.0.0/16", Backend } });
  await lab.startAgents(NEVER);
  const [link] = JSON.parse(ip(lab.nodes[0]!, "-d -j link show flannel.7"));
  const { id, port, gbp, learning } = link.linkinfo.info_data;
  assert.deepEqual(
    { id, port, gbp, learning, mtu: link.mtu },
    { id: 7, port: 4789, gbp: true, learning: true, mtu: 1350 },
  );
});

rootTest("DirectRouting: peers on one link need no tunnel", async () => {
  const Backend = { Type: "vxlan", DirectRouting: true };
  await using lab = await Lab.create({ nodes: 2, netConf: { Network: "10.5.0.0/16", Backend } });
  await lab.startAgents(NEVER);
  const [a, b] = lab.nodes as [LabNode, LabNode];
  await eventually(
    "a direct route",
    () => ip(a, `route show ${b.subnet()}`).includes(`via ${b.publicIp} dev eth0`),
  );
  await ping(await a.addPod("a"), await b.addPod("b"));
});
