/**
 * What an agent costs in a cluster in which nothing happens, whatever the store: one node of a laboratory with the real
 * agent, and thousands of leases of nodes that nobody hears of. The stores are measured side by side, since time is what
 * this takes. Peers are not probed; the bench mesh has what that costs.
 *
 * @module
 */

import { type Lease, RuntimeError, sleep } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { Lab, type LabNode } from "@denim/agent/lab";
import { iproute } from "../support/iproute.ts";
import { KubeLab, PREFIX } from "../support/kube_lab.ts";
import { sh } from "../support/sh.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { all } from "../support/wait.ts";
import { etcdStore } from "./bench_store.ts";
import { makeLeases, NET_CONF } from "./converge.ts";
import type { MeshOptions } from "./mesh.ts";
import { processorInSecond } from "./processor.ts";
import { type Measure, Samples } from "./stats.ts";

/** What came with the start is done by then, the first full check too. */
const SETTLE_MS = 75_000;
const POLL_MS = 200, PATIENCE_MS = 120_000;

/** A node that has its peers, and what it needs for as long as it is measured. */
interface Idler extends AsyncDisposable {
  readonly node: LabNode;
}

const STORES: Readonly<
  Record<string, (leases: readonly Lease[], signal: AbortSignal) => Promise<Idler>>
> = { sqlite, etcd, kubernetes };

/** Measures, and says on the way how it goes. */
export async function idle(
  { peers, runs, seconds }: MeshOptions,
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
      await all([...nodes].map(async ([store, node]) => {
        const used = await processorInSecond(node, seconds, signal);
        const what = `${count} quiet peers in ${store}: agent's processor in a second`;
        samples.add(what, "µs", used.all);
        samples.add(`${what}, of this in user mode`, "µs", used.user);
      }));
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
  const path = `/run/netns/${lab.prefix}-net`;
  const store = parts.use(await etcdStore(namespace, path, "10.99.0.254", NET_CONF));
  parts.use(lab);
  await store.put(leases);
  const node = lab.nodes[0]!;
  await node.startAgent(signal, FLAGS);
  return idler(node, parts);
}

async function kubernetes(leases: readonly Lease[], signal: AbortSignal): Promise<Idler> {
  await using parts = new AsyncDisposableStack();
  const cluster = parts.use(await KubeLab.create({ nodes: 1, netConf: NET_CONF }));
  const node = cluster.nodes[0]!;
  await cluster.register(node.name, ["10.255.0.0/25"]);
  await cluster.makeNodes(leases.map(({ key, backendType, halves }) => {
    const { subnet, publicIp, backendData } = halves[0]!;
    return {
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
    };
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
