/**
 * A cluster that faults strike: nodes with real agents, a pod on each, and what all of it should look like.
 *
 * @module
 */

import { type Cidr, leaseKey, messageOf } from "@denim/core";
import { allDone, Lab, type LabNode, type Pod } from "@denim/agent/lab";
import { shIn } from "../support/sh.ts";
import { SmallDisk } from "../support/small_disk.ts";
import { eventually, NEVER } from "../support/wait.ts";
import { compare, viewNode } from "./node_view.ts";
import { openStore, type StoreAtFault, storeFlags, type StoreName } from "./store_at_fault.ts";

/** The backends whose faults are tested. */
export const BACKENDS = ["vxlan", "host-gw", "udp", "wireguard", "ipip"] as const;
/** One of them. */
export type BackendName = typeof BACKENDS[number];

/** Where agents serve their health, each in its node's namespace. */
const HEALTH_PORT = 8471;
/** How long one request between two pods is waited for. */
const PAIR_PING_MS = 200;

/** How a cluster is set up. */
export interface ClusterOptions {
  /** What carries its packets. */
  readonly backend: BackendName;
  /** The number of nodes with agents and pods. */
  readonly nodes: number;
  /** Whether there is another node, on a link of its own behind a router; with two nodes. */
  readonly spare?: boolean;
  /** Where leases live; an embedded store unless given. */
  readonly store?: StoreName;
  /** Whether it has IPv6 beside IPv4. */
  readonly ipv6?: boolean;
}

/** A node of a cluster, and what a fault may change about it. */
export interface Member {
  /** `node1` */
  readonly name: string;
  /** The node. */
  readonly node: LabNode;
  /** The pod on it. */
  readonly pod: Pod;
  /** Its subnet. */
  readonly subnet: Cidr;
  /** The key of its lease. */
  readonly key: string;
  /** Its outer interface's name … */
  outer: string;
  /** … and address. */
  publicIp: string;
  /** When its agent was ready, in milliseconds of `performance.now()`. */
  readyAtMs: number;
}

/** A cluster at work. Dispose of it, and nothing of it is left. */
export class Cluster implements AsyncDisposable {
  /** What carries its packets. */
  readonly backend: BackendName;
  /** Its namespaces. */
  readonly lab: Lab;
  /** Its leases. */
  readonly store: StoreAtFault;
  /** Its nodes with agents. */
  readonly members: readonly Member[];
  /** Its node without, if it has one. */
  readonly spare: LabNode | undefined;
  /** What {@link Cluster.view} tells while all is well. */
  expected: readonly string[] = [];
  #parts: AsyncDisposable = new AsyncDisposableStack();

  private constructor(
    backend: BackendName,
    lab: Lab,
    store: StoreAtFault,
    members: readonly Member[],
  ) {
    this.backend = backend;
    this.lab = lab;
    this.store = store;
    this.members = members;
    this.spare = lab.nodes[members.length];
  }

  /** Makes one, and waits until all pairs of pods talk. */
  static async create(options: ClusterOptions): Promise<Cluster> {
    const { backend, nodes, spare = false, store: storeName = "sqlite", ipv6 = false } = options;
    const netConf = {
      Network: "10.5.0.0/16",
      ...(ipv6 ? { EnableIPv6: true, IPv6Network: "fc00:5::/48" } : {}),
      Backend: { Type: backend },
    };
    await using made = new AsyncDisposableStack();
    // Files in memory: a disk that is busy with something else lets each write wait, for seconds at times, and that is
    // none of the faults here.
    const disk = made.use(new SmallDisk("512m"));
    const lab = made.use(
      await Lab.create({
        nodes: nodes + Number(spare),
        segments: 1 + Number(spare),
        netConf,
        parentDirectory: disk.directory,
        ...storeFlags(storeName),
      }),
    );
    for (const node of lab.nodes) {
      // When a link comes up the kernel would look out for duplicates of its addresses for 2 s.
      shIn(node, "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad");
    }
    const store = made.use(await openStore(storeName, lab, netConf));
    const members = await allDone(
      lab.nodes.slice(0, nodes).map(async (node): Promise<Member> => {
        await startAgent(node);
        const subnet = node.subnet();
        return {
          name: node.name,
          node,
          pod: await node.addPod(`pod-${node.name}`),
          subnet,
          key: leaseKey(node.subnets()),
          outer: "eth0",
          publicIp: `${node.publicIp}`,
          readyAtMs: performance.now(),
        };
      }),
    );
    const cluster = new Cluster(backend, lab, store, members);
    await cluster.allTalk(10_000);
    cluster.expected = cluster.view();
    cluster.#parts = made.move();
    return cluster;
  }

  /** What all nodes look like, and the leases, a line an object. */
  view(): string[] {
    return [
      ...this.members.flatMap(({ name, node }) => viewNode(node).map((line) => `${name}: ${line}`)),
      ...[...this.store.holders()].map(([key, holder]) => `lease ${key} at ${holder}`).sort(),
    ];
  }

  /** Waits until all is as it is expected, and tells when that was seen, in milliseconds since the start. */
  async asExpected(patienceMs: number): Promise<number> {
    let differences: string[] = [];
    let seenMs = 0;
    try {
      await eventually("all is as it should be", () => {
        differences = this.#differences();
        seenMs = performance.now();
        return differences.length === 0;
      }, patienceMs);
      return seenMs;
    } catch {
      throw new Error(`not right within ${patienceMs} ms:\n${differences.join("\n")}`);
    }
  }

  #differences(): string[] {
    try {
      return compare(this.expected, this.view());
    } catch (error) {
      // iproute2 may find things changing while it looks.
      return [messageOf(error)];
    }
  }

  /** Waits until every pod has an answer from every address of every other; how long that took, in milliseconds. */
  async allTalk(patienceMs: number): Promise<number> {
    const startMs = performance.now();
    await allDone(this.members.map(async ({ pod }) => {
      const addresses = this.members.filter((other) => other.pod !== pod)
        .flatMap((other) => other.pod.addresses);
      for (const address of addresses) {
        await eventually(`${pod.name} → ${address}`, async () => {
          const { timeMs } = await pod.ping(address, { timeoutMs: PAIR_PING_MS });
          return timeMs !== undefined;
        }, Math.max(patienceMs - (performance.now() - startMs), 0));
      }
    }));
    return performance.now() - startMs;
  }

  /** The processes of the agents. */
  agents(): Map<Member, number | undefined> {
    return new Map(this.members.map((member) => [member, member.node.agentPid]));
  }

  /** Starts a member's agent. */
  async startAgent(member: Member): Promise<void> {
    await startAgent(member.node);
    member.readyAtMs = performance.now();
  }

  /** What the agents wrote from a place in their logs on. */
  logsSince(places: readonly number[]): string {
    return this.members.map(({ name, node }, index) =>
      `${name}:\n${Deno.readTextFileSync(node.logFile).slice(places[index])}`
    ).join("");
  }

  /** How far the agents' logs are. */
  logPlaces(): number[] {
    return this.members.map(({ node }) => Deno.readTextFileSync(node.logFile).length);
  }

  /** Stops everything and removes it. */
  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#parts[Symbol.asyncDispose]();
  }
}

async function startAgent(node: LabNode): Promise<void> {
  await node.startAgent(NEVER, ["--ip-masq", "--healthz-port", `${HEALTH_PORT}`]);
}

/** What a node's agent answers to `/readyz`: its HTTP status, or 0 if nobody answers. */
export function readiness(node: LabNode): number {
  const request = "GET /readyz HTTP/1.0\\r\\n\\r\\n";
  try {
    using namespace = node.open();
    const answer = namespace.run(() =>
      // bash, since a connection of Deno's own would be made on another thread.
      new Deno.Command("bash", {
        args: [
          "-c",
          `exec 3<>/dev/tcp/127.0.0.1/${HEALTH_PORT} && printf '${request}' >&3 && head -n 1 <&3`,
        ],
      }).outputSync()
    );
    return Number(/^HTTP\/\S+ (\d+)/.exec(new TextDecoder().decode(answer.stdout))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
