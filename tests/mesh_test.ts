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
import { ipJson } from "./support/ip.ts";
import { iproute } from "./support/iproute.ts";
import { labTest } from "./support/lab_test.ts";
import { report } from "./support/report.ts";
import { sh, shIn } from "./support/sh.ts";
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

/** A trouble between the six nodes of the laboratory, of which the fifth is asked how the mesh is. */
interface Kind {
  readonly name: string;
  /** Makes it, until it is disposed of. */
  readonly strike: (lab: Lab) => AsyncDisposable | Disposable | Promise<AsyncDisposable>;
  /** What the first node finds of a node, by its number: `mtu 1354`. */
  readonly found?: Readonly<Record<number, string>>;
  /** What the fifth node knows then, of nodes by their numbers. */
  readonly told: readonly (readonly [node: number, text: string])[];
}

const nodeOf = (lab: Lab, number: number) => lab.nodes[number - 1]!;
const link = (lab: Lab, command: string) =>
  void iproute("ip", `${lab.prefix}-net`, `link set ${command}`);
const until = (end: () => void | Promise<void>): AsyncDisposable => ({
  [Symbol.asyncDispose]: async () => await end(),
});

const KINDS: readonly Kind[] = [
  {
    name: "underlay cut",
    strike: (lab) => {
      link(lab, "node2 down");
      return until(() => link(lab, "node2 up"));
    },
    found: { 2: "no-answer null" },
    // It lives, and says itself whom it does not reach.
    told: [[2, "no-answer underlay-cut"]],
  },
  {
    name: "node gone",
    strike: async (lab) => {
      link(lab, "node2 down");
      await nodeOf(lab, 2).stopAgent("SIGKILL");
      return until(async () => {
        link(lab, "node2 up");
        await nodeOf(lab, 2).startAgent(NEVER);
      });
    },
    found: { 2: "no-answer null" },
    told: [[2, "no-answer node-down"]],
  },
  {
    name: "one way only",
    strike: (lab) => dropping(nodeOf(lab, 3), `ip saddr ${nodeOf(lab, 1).publicIp}`),
    found: { 3: "one-way null" },
    told: [[3, "one-way null"], [1, "no-answer underlay-cut"]],
  },
  {
    name: "port dropped",
    strike: (lab) => dropping(nodeOf(lab, 4), "udp dport 8472"),
    found: { 4: "blocked null" },
    told: [[4, "blocked null"]],
  },
  {
    name: "path MTU lowered",
    strike: (lab) => {
      link(lab, "node4 mtu 1400");
      return until(() => link(lab, "node4 mtu 1500"));
    },
    // A bridge has room for a VLAN tag beyond its MTU.
    found: { 4: "mtu 1354" },
    told: [[4, "mtu null"]],
  },
  {
    name: "checksum broken",
    strike: (lab) => withoutOffload(lab, nodeOf(lab, 6)),
    found: { 6: "checksum 1450" },
    told: [[6, "checksum null"]],
  },
  {
    name: "agent dead",
    strike: async (lab) => {
      await nodeOf(lab, 4).stopAgent("SIGKILL");
      return until(() => nodeOf(lab, 4).startAgent(NEVER));
    },
    found: { 4: "no-agent 1450" },
    told: [[4, "no-agent null"]],
  },
  {
    name: "agent hangs",
    strike: (lab) => {
      const pid = nodeOf(lab, 4).agentPid!;
      Deno.kill(pid, "SIGSTOP");
      return until(() => Deno.kill(pid, "SIGCONT"));
    },
    found: { 4: "no-agent 1450" },
    told: [[4, "no-agent null"]],
  },
  {
    name: "clone with the same VTEP MAC",
    strike: (lab) => {
      const { address } = ipJson(nodeOf(lab, 3), "link show flannel.1")[0]!;
      return clone(
        lab,
        `ip link add flannel.1 address ${address} type vxlan id 1 dev eth0 ` +
          `local ${nodeOf(lab, 7).publicIp} dstport 8472 nolearning`,
        [],
        "ip link del flannel.1",
      );
    },
    // The subnet that the clone got, which is none of the six nodes'.
    told: [[0, "clone null"]],
  },
  {
    name: "clone with the same public IP",
    strike: (lab) => {
      const { publicIp } = nodeOf(lab, 3);
      const address = `${publicIp}/32 dev eth0`;
      return clone(
        lab,
        `ip addr add ${address}`,
        ["--iface", `${publicIp}`],
        `ip addr del ${address}`,
      );
    },
    told: [[3, "clone null"]],
  },
];

/** Starts the agent of the seventh node, which is like another. It has to end by itself. */
function clone(lab: Lab, prepare: string, flags: readonly string[], tidy: string): AsyncDisposable {
  const spare = nodeOf(lab, 7);
  shIn(spare, prepare);
  const agent = spare.spawn([...lab.agentProgram, ...spare.agentArguments, ...flags], {
    stdin: "null",
    stdout: "null",
    logFile: spare.logFile,
  });
  return until(async () => {
    assert.equal((await agent.status).code, 1);
    shIn(spare, tidy);
  });
}

labTest("every trouble between nodes is found, named and told, and so is its end", {
  nodes: 7,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
}, async (lab) => {
  const nodes = lab.nodes.slice(0, 6);
  const [first, viewer] = [nodes[0]!, nodes[4]!];
  for (const node of nodes) await node.startAgent(NEVER);
  const well = { 2: "ok 1450", 3: "ok 1450", 4: "ok 1450", 5: "ok 1450", 6: "ok 1450" };
  await finds(first, well);
  const subnets = nodes.map((node) => `${node.subnet()}`);
  const times: string[] = [];
  // A node that started less than 10 s ago would take itself for the clone.
  await eventually("nobody is new", () => performance.now() > 12_000, 20_000);
  for (const { name, strike, found, told } of KINDS) {
    const startMs = performance.now();
    {
      const trouble = await strike(lab);
      await using _end = until(() => end(trouble));
      const isTold = async () => {
        const lines = await mesh(viewer);
        return told.every(([node, text]) =>
          lines.some((line) => {
            const [subnet] = line.split(" ");
            const is = node === 0 ? !subnets.includes(subnet!) : subnet === subnets[node - 1];
            return is && line.endsWith(text);
          })
        );
      };
      await eventually(`${name}: told on another node`, isTold, 40_000);
      times.push(`${name} ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
      if (found !== undefined) await finds(first, { ...well, ...found });
    }
    await finds(first, well);
    await eventually(`${name}: over`, async () => (await mesh(viewer)).length === 0, 90_000);
  }
  const log = Deno.readTextFileSync(first.logFile);
  // A node that came back may be without an agent for a while, until that has started.
  const others = (healths: readonly string[]) => healths.filter((health) => health !== "no-agent");
  const said = [...log.matchAll(/health=(\S+) event=peer-unhealthy/g)].map(([, health]) => health!);
  const wanted = KINDS.flatMap(({ found = {} }) =>
    Object.values(found).map((text) => text.split(" ")[0]!)
  );
  assert.deepEqual(others(said), others(wanted), "nothing else");
  report(`troubles between nodes, told on another node after: ${times.join(", ")}`);
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

async function end(trouble: AsyncDisposable | Disposable): Promise<void> {
  if (Symbol.asyncDispose in trouble) await trouble[Symbol.asyncDispose]();
  else trouble[Symbol.dispose]();
}
