/**
 * What an agent costs in a cluster in which nothing happens, whatever the store: one node of a laboratory with the real
 * agent, and thousands of leases of nodes that nobody hears of. The stores are measured side by side, since time is what
 * this takes. Peers are not probed; the bench mesh has what that costs.
 *
 * @module
 */

import { formatLeaseValue, type Lease, RuntimeError, sleep } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { Lab, type LabNode } from "@denim/agent/lab";
import { EtcdServer } from "../support/etcd_server.ts";
import { iproute } from "../support/iproute.ts";
import { KubeLab, NODES, PREFIX } from "../support/kube_lab.ts";
import { sh } from "../support/sh.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { makeLeases, NET_CONF } from "./converge.ts";
import { processorUs } from "./processor.ts";
import { type Measure, Samples } from "./stats.ts";

/** How the bench is run. */
export interface IdleOptions {
  /** The numbers of peers. */
  readonly peers: readonly number[];
  /** How often each is measured. */
  readonly runs: number;
  /** For how long the processor is looked at, in seconds. */
  readonly seconds: number;
}

/** What came with the start is done by then, the first full check too. */
const SETTLE_MS = 75_000;
const POLL_MS = 200, PATIENCE_MS = 120_000;
/** Requests to Kubernetes at the same time. */
const MAKERS = 16;
/** So many leases are put in one transaction of etcd, which takes 128 at most. */
const AT_ONCE = 100;

/** A node that has its peers, and what it needs for as long as it is measured. */
interface Idler extends AsyncDisposable {
  readonly node: LabNode;
}

const STORES: Readonly<
  Record<string, (leases: readonly Lease[], signal: AbortSignal) => Promise<Idler>>
> = { sqlite, etcd, kubernetes };

/** Measures, and says on the way how it goes. */
export async function idle(
  { peers, runs, seconds }: IdleOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Measure[]> {
  const samples = new Samples();
  for (let run = 1; run <= runs; run++) {
    for (const count of peers) {
      await using idlers = new AsyncDisposableStack();
      const nodes = new Map<string, LabNode>();
      for (const [store, start] of Object.entries(STORES)) {
        const { node } = idlers.use(await start(makeLeases(count).leases, signal));
        await reachesAll(node, count, signal);
        nodes.set(store, node);
        say(`run ${run} of ${runs}, ${count} peers in ${store}: every peer has its route`);
      }
      await sleep(SETTLE_MS, signal);
      const before = [...nodes].map(([store, node]) => (
        { store, node, startMs: performance.now(), used: processorUs(node) }
      ));
      await sleep(seconds * 1000, signal);
      for (const { store, node, startMs, used } of before) {
        const after = processorUs(node);
        const elapsed = (performance.now() - startMs) / 1000;
        const what = `${count} quiet peers in ${store}: agent's processor in a second`;
        samples.add(what, "µs", (after.all - used.all) / elapsed);
        samples.add(`${what}, of this in user mode`, "µs", (after.user - used.user) / elapsed);
      }
    }
  }
  return samples.measures;
}

const FLAGS = ["--probe-peers=false"];

async function sqlite(leases: readonly Lease[], signal: AbortSignal): Promise<Idler> {
  await using parts = new AsyncDisposableStack();
  const lab = parts.use(await Lab.create({ nodes: 1, netConf: NET_CONF }));
  const node = lab.nodes[0]!;
  await node.startAgent(signal, FLAGS);
  new SqliteLeases(`${lab.directory}/denim.db`).put(leases);
  return idler(node, parts);
}

async function etcd(leases: readonly Lease[], signal: AbortSignal): Promise<Idler> {
  await using parts = new AsyncDisposableStack();
  // Where the server is known before the laboratory is, by its address in it.
  const storeFlags = ["--etcd-endpoints", "http://10.99.0.254:2379"];
  const lab = await Lab.create({ nodes: 1, netConf: NET_CONF, storeFlags });
  iproute("ip", `${lab.prefix}-net`, "link set lo up");
  const namespace = parts.use(NetworkNamespace.open(`/run/netns/${lab.prefix}-net`));
  const server = parts.use(await EtcdServer.start({ namespace, host: "10.99.0.254" }));
  parts.use(lab);
  const prefix = "/coreos.com/network";
  server.ctl("put", `${prefix}/config`, JSON.stringify(NET_CONF));
  const id = server.grant(86_400);
  for (let at = 0; at < leases.length; at += AT_ONCE) {
    server.txn(
      leases.slice(at, at + AT_ONCE).map((lease) =>
        `put --lease=${id} ${prefix}/subnets/${lease.key} ${
          JSON.stringify(formatLeaseValue(lease))
        }`
      ),
    );
  }
  const node = lab.nodes[0]!;
  await node.startAgent(signal, FLAGS);
  return idler(node, parts);
}

async function kubernetes(leases: readonly Lease[], signal: AbortSignal): Promise<Idler> {
  await using parts = new AsyncDisposableStack();
  const cluster = parts.use(await KubeLab.create({ nodes: 1, netConf: NET_CONF }));
  const node = cluster.nodes[0]!;
  await cluster.register(node.name, ["10.255.0.0/25"]);
  const waiting = [...leases];
  await Promise.all(Array.from({ length: MAKERS }, async () => {
    for (let lease = waiting.pop(); lease !== undefined; lease = waiting.pop()) {
      const { key, backendType, halves } = lease;
      const { subnet, publicIp, backendData } = halves[0]!;
      await cluster.server.admin("POST", NODES, {
        metadata: {
          name: key,
          annotations: {
            [`${PREFIX}/kube-subnet-manager`]: "true",
            [`${PREFIX}/backend-type`]: backendType,
            [`${PREFIX}/backend-data`]: JSON.stringify(backendData),
            [`${PREFIX}/public-ip`]: `${publicIp}`,
          },
        },
        spec: { podCIDR: `${subnet}`, podCIDRs: [`${subnet}`] },
      });
    }
  }));
  await node.startAgent(signal, FLAGS);
  return idler(node, parts);
}

function idler(node: LabNode, parts: AsyncDisposableStack): Idler {
  const all = parts.move();
  return { node, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

async function reachesAll(node: LabNode, count: number, signal: AbortSignal): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  const routes = () => Number(sh(`ip -n ${node.namespaceName} route | grep -c '^10\\.' || true`));
  while (routes() < count) {
    if (performance.now() > endMs) {
      throw new RuntimeError(`${routes()} of ${count} routes within ${PATIENCE_MS} ms`);
    }
    await sleep(POLL_MS, signal);
  }
}
