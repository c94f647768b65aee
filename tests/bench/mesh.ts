/**
 * What it costs to watch over a large mesh: nodes with the real agent, and for each another one whose kernel plays all
 * peers.
 *
 * @module
 */

import { bundle } from "../../.ci/bundle.ts";
import { Lab, type LabNode } from "@denim/agent/lab";
import { sleep } from "@denim/core";
import type { PeersReport } from "../../agent/status_report.ts";
import { ip, ipJson } from "../support/ip.ts";
import { iproute } from "../support/iproute.ts";
import { sh, shIn } from "../support/sh.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { all } from "../support/wait.ts";
import { AskingPeers } from "./asking_peers.ts";
import { deployed } from "./contestants.ts";
import { DEVICE, makeLeases, NET_CONF } from "./converge.ts";
import { processorInSecond } from "./processor.ts";
import { type Measure, Samples } from "./stats.ts";

/** How the bench is run. */
export interface MeshOptions {
  /** The numbers of peers. */
  readonly peers: readonly number[];
  /** How often each is measured. */
  readonly runs: number;
  /** For how long the processor is looked at, in seconds. */
  readonly seconds: number;
}

/**
 * Every peer has had its turns by then, the first full check is over, and V8 has compiled what runs each second: an agent
 * runs for months.
 */
const SETTLE_MS = 600_000;
const ASKED = 5;
/** Peers whose agents ask as well, peers that only answer, as flannel's, peers that do not, and an agent that does not ask. */
const MODES = ["probed and probing", "probed", "probed and silent", "left alone"] as const;
type Mode = typeof MODES[number];

/** Measures, and says on the way how it goes. */
export async function mesh(
  options: MeshOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Measure[]> {
  const samples = new Samples();
  using folder = new TempFolder();
  await bundle(folder.path);
  const denim = deployed("agent", folder.path);
  for (let run = 1; run <= options.runs; run++) {
    for (const count of options.peers) {
      await runOnce(denim, count, options, samples, signal);
      say(`run ${run} of ${options.runs}, ${count} peers`);
    }
  }
  return samples.measures;
}

/** Measures all modes side by side: they are compared within the same time, and time is what this takes. */
async function runOnce(
  denim: Program,
  count: number,
  { seconds }: MeshOptions,
  samples: Samples,
  signal: AbortSignal,
): Promise<void> {
  await using parts = new AsyncDisposableStack();
  const nodes: (readonly [Mode, LabNode])[] = [];
  for (const mode of MODES) nodes.push([mode, await startNode(denim, count, mode, parts, signal)]);
  await sleep(SETTLE_MS, signal);
  const whatOf = (mode: Mode) => `${count} peers, ${mode}`;
  await all(nodes.map(async ([mode, node]) => {
    const used = await processorInSecond(node, seconds, signal);
    samples.add(`${whatOf(mode)}: agent's processor in a second`, "µs", used.all);
  }));
  for (const [mode, node] of nodes) {
    for (let time = 0; time < ASKED; time++) {
      const askedMs = performance.now();
      const { peers } = await denimPeers(denim, node);
      samples.add(`${whatOf(mode)}: denim peers`, "ms", performance.now() - askedMs);
      const ok = peers.filter(({ health }) => health === "ok").length;
      if (time === 0) samples.add(`${whatOf(mode)}: found well`, "%", 100 * ok / count);
    }
  }
}

/** A node with its peers in a laboratory of its own, which goes with `parts`. */
async function startNode(
  denim: Program,
  count: number,
  mode: Mode,
  parts: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<LabNode> {
  const lab = parts.use(await meshLab(denim));
  const [node, peers] = lab.nodes as [LabNode, LabNode];
  await node.startAgent(signal, mode === "left alone" ? ["--probe-peers=false"] : []);
  const { leases } = makeLeases(count);
  new SqliteLeases(`${lab.directory}/denim.db`).put(leases);
  if (mode === "probed" || mode === "probed and probing") playPeers(lab, node, peers);
  if (mode === "probed and probing") {
    using namespace = peers.open();
    const subnets = leases.map(({ halves: [half] }) => half!.subnet);
    const agents = parts.use(new AskingPeers(namespace, node.subnet().address, subnets));
    const stop = new AbortController();
    const running = agents.run(AbortSignal.any([signal, stop.signal]));
    parts.defer(async () => {
      stop.abort();
      await running;
    });
  }
  keepApart(lab, node, peers);
  return node;
}

/**
 * Has the agent work on one processor, and everything behind its device on the others: of a real network a node does not do
 * the switches' and the peers' work.
 */
function keepApart(lab: Lab, node: LabNode, peers: LabNode): void {
  const others = (2 ** navigator.hardwareConcurrency - 2).toString(16);
  if (others === "0") return;
  sh(`taskset -a -p 1 ${node.agentPid}`);
  sh(`taskset -a -p ${others} ${Deno.pid}`);
  for (const name of [`${lab.prefix}-net`, node.namespaceName, peers.namespaceName]) {
    sh(
      `ip netns exec ${name} sh -c ` +
        `'for file in /sys/class/net/*/queues/rx-*/rps_cpus; do echo ${others} >$file; done'`,
    );
  }
}

/** Has a node answer for every address of the peers, on the underlay and behind its VXLAN device. */
export function playPeers(lab: Lab, node: LabNode, peers: LabNode): void {
  const [link] = ipJson(node, `link show ${DEVICE}`);
  const own = node.subnet();
  iproute("ip", `${lab.prefix}-net`, `route add 172.16.0.0/12 via ${peers.publicIp}`);
  ip(peers, "route add local 172.16.0.0/12 dev lo");
  ip(peers, `link add ${DEVICE} type vxlan id 1 dstport 8472 dev eth0 nolearning`);
  ip(peers, `link set ${DEVICE} mtu 1450 up`);
  ip(peers, "addr add 10.254.0.0/32 dev lo");
  ip(peers, `neigh add ${own.address} lladdr ${link.address} dev ${DEVICE} nud permanent`);
  shIn(peers, `bridge fdb add ${link.address} dev ${DEVICE} dst ${node.publicIp}`);
  ip(peers, `route add ${own} via ${own.address} dev ${DEVICE} onlink`);
  // The network is 10.128.0.0/9, of which the last /16 is the node's.
  ip(peers, "route add local 10.128.0.0/10 dev lo");
  // One kernel answers for all: its limit of ICMP errors to one host does not hold.
  shIn(peers, "echo 0 > /proc/sys/net/ipv4/icmp_ratemask");
  // Frames come to the MAC of each peer.
  shIn(
    peers,
    `nft add table netdev peers
nft 'add chain netdev peers in { type filter hook ingress device ${DEVICE} priority 0; }'
nft add rule netdev peers in meta pkttype set host`,
  );
}

/** What starts denim as it is installed. */
export type Program = readonly [string, ...string[]];

/** A laboratory for a node and one that plays its peers. */
export function meshLab(denim: Program): Promise<Lab> {
  return Lab.create({ nodes: 2, netConf: NET_CONF, agentProgram: [...denim, "agent"] });
}

/** Runs `denim peers --json`. */
export async function denimPeers(
  [command, ...words]: Program,
  node: LabNode,
): Promise<PeersReport> {
  const args = [...words, "peers", "--json", "--api-socket", node.apiSocket];
  const { stdout } = await new Deno.Command(command, { args, stdin: "null" }).output();
  return JSON.parse(new TextDecoder().decode(stdout));
}
