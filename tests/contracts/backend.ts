/**
 * What every `Backend` does: one table of cases, which each backend's test runs on whole nodes, with pods
 * attached through the CNI plugin. A backend is done when it passes.
 *
 * @module
 */

import { Cidr, IpAddress, type Lease, parseSubnetEnv } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { Lab, type LabNode, type Pod } from "@denim/agent/lab";
import { ip, ipJson } from "../support/ip.ts";
import { RunningPing } from "../support/ping.ts";
import { RecordingLog } from "../support/recording_log.ts";
import { rootTest, type TestNeeds } from "../support/root_test.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { eventually, NEVER } from "../support/wait.ts";

/** A backend, as the contract has to know it, and the program that it needs. */
export interface BackendSubject extends TestNeeds {
  /** net-conf's `Backend` object. */
  readonly backend: Readonly<Record<string, unknown>>;
  /** The words that start an agent which has the backend; denim's own unless given. */
  readonly agentProgram?: readonly [string, ...string[]];
  /** Whether it carries packets (true). One that carries none need not follow peers. */
  readonly carries?: boolean;
  /** Whether packets travel while no agent runs (true). */
  readonly outlivesAgent?: boolean;
  /** Whether it carries IPv6 (true). */
  readonly ipv6?: boolean;
  /** Whether it reaches each peer by a route of its own, through a nexthop object (false). */
  readonly routes?: boolean;
  /** Whether its nodes publish data; unless given they do if it can be changed. */
  readonly publishes?: boolean;
  /** Makes a node whose agent is stopped publish other data than before; if that is possible. */
  readonly changeData?: (node: LabNode) => void | Promise<void>;
}

/** Registers the contract's tests for one backend. */
export function backendContract(name: string, subject: BackendSubject): void {
  rootTest(`${name} keeps the contract for backends`, async (t) => {
    await using cluster = await ContractCluster.create(subject, 3, { Network: "10.5.0.0/16" });
    for (const [name, step] of Object.entries(CASES)) {
      const { needs, run } = typeof step === "function" ? { run: step } : step;
      const ignore = needs !== undefined && !subject[needs];
      await t.step({ name, ignore, fn: () => run(cluster) });
    }
  }, subject);
  if (subject.carries === false || subject.ipv6 === false) return;
  const ipv6 = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };
  for (
    const [what, netConf, families] of [
      ["both families", { Network: "10.5.0.0/16", ...ipv6 }, [4, 6]],
      ["IPv6 alone", { EnableIPv4: false, ...ipv6 }, [6]],
    ] as const
  ) {
    rootTest(`${name} carries ${what}`, async () => {
      await using cluster = await ContractCluster.create(subject, 2, netConf);
      const [a, b] = await Promise.all([cluster.start(0), cluster.start(1)]);
      assert.deepEqual(a.addresses.map(({ family }) => family), families);
      await cluster.talk(a, b, DAD_MS);
    }, subject);
  }
}

/** How long the others may take to follow what a node does. */
const FOLLOW_MS = 2_000;
/** The kernel asks for no neighbour while it probes a new device's link-local address (RFC 4862). */
const DAD_MS = 5_000;

/** Nodes with a backend, each with a pod once it was started. */
class ContractCluster implements AsyncDisposable {
  readonly subject: BackendSubject;
  readonly nodes: readonly LabNode[];
  readonly pods: Pod[] = [];
  readonly store: SqliteStore;
  /** The same store's, to write to by hand. */
  readonly leases: SqliteLeases;
  readonly #lab: Lab;

  private constructor(subject: BackendSubject, lab: Lab) {
    this.subject = subject;
    this.#lab = lab;
    this.nodes = lab.nodes;
    const path = `${lab.directory}/denim.db`;
    this.store = SqliteStore.open(path, { log: new RecordingLog() });
    this.leases = new SqliteLeases(path);
  }

  static async create(
    subject: BackendSubject,
    nodes: number,
    netConf: object,
  ): Promise<ContractCluster> {
    const { backend, agentProgram } = subject;
    const lab = await Lab.create({
      nodes,
      netConf: { ...netConf, Backend: backend },
      ...agentProgram && { agentProgram },
    });
    return new ContractCluster(subject, lab);
  }

  /** Starts a node's agent and attaches its pod. */
  async start(index: number): Promise<Pod> {
    const node = this.nodes[index]!;
    await node.startAgent(NEVER);
    const pod = await node.addPod(`pod${index + 1}`);
    this.pods[index] = pod;
    return pod;
  }

  /** The lease of a node's subnet. */
  async lease(index: number): Promise<Lease> {
    const subnet = `${this.nodes[index]!.subnet()}`;
    const leases = await this.store.leases(NEVER);
    return leases.find(({ halves }) => `${halves[0]!.subnet}` === subnet)!;
  }

  /** Two pods reach each other in every family, or, if the backend carries nothing, do not. */
  async talk(a: Pod, b: Pod, patienceMs = FOLLOW_MS): Promise<void> {
    for (const [from, to] of [[a, b], [b, a]] as const) {
      for (const address of to.addresses) {
        const what = `${from.name} → ${to.name} ${address}`;
        const answers = async (timeoutMs = 200) =>
          (await from.ping(address, { timeoutMs })).timeMs !== undefined;
        if (this.subject.carries === false) assert.ok(!await answers(), what);
        else {
          await eventually(what, () => answers(), patienceMs);
          // From now on none is lost; a slow machine, such as an emulated one, may let it wait.
          for (let count = 0; count < 3; count++) assert.ok(await answers(1_000), what);
        }
      }
    }
  }

  /** The route that a node has to another's subnet, where there is one of its own for it. */
  // deno-lint-ignore no-explicit-any -- iproute2's JSON
  routeTo(from: number, to: number): any {
    const subnet = `${this.nodes[to]!.subnet()}`;
    return ipJson(this.nodes[from]!, `route show ${subnet}`)[0];
  }

  /** Does something under a ping of 1 ms from the first pod to the second; no packet may be lost. */
  async withoutLoss(work: () => Promise<void>): Promise<void> {
    const [a, b] = this.pods as [Pod, Pod];
    if (this.subject.carries === false || this.subject.outlivesAgent === false) {
      await work();
      return await this.talk(a, b);
    }
    using namespace = a.open();
    const pinging = new RunningPing(namespace, ["-i", "0.001", `${b.address}`]);
    await pinging.reaches(1);
    await work();
    await pinging.reaches(50);
    const { sent, received } = await pinging.stop();
    assert.equal(received, sent);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    await this.#lab[Symbol.asyncDispose]();
  }
}

type Run = (cluster: ContractCluster) => Promise<void>;
/** A step of the contract; with `needs`, for subjects alone that have the property. */
type Step = Run | { readonly needs?: "routes" | "changeData"; readonly run: Run };

/** In this order: each goes on with what the one before left. */
const CASES: Readonly<Record<string, Step>> = {
  "nodes that start together reach each other, up to the largest packet": async (cluster) => {
    const [a, b] = await Promise.all([cluster.start(0), cluster.start(1)]);
    await cluster.talk(a, b);
    const [node] = cluster.nodes as [LabNode];
    const { mtuBytes } = parseSubnetEnv(Deno.readTextFileSync(node.subnetFile), node.subnetFile);
    if (cluster.subject.carries === false) return;
    // Less 20 of IPv4's header and 8 of ICMP's.
    const { timeMs } = await a.ping(b.address, { payloadBytes: mtuBytes - 28 });
    assert.ok(timeMs !== undefined, `a packet of ${mtuBytes} bytes`);
  },

  "what a node publishes is what its lease says": async (cluster) => {
    const { backendType, halves } = await cluster.lease(0);
    const type = String(cluster.subject.backend.Type);
    assert.ok(backendType === type || backendType === "", backendType);
    const { publishes, changeData } = cluster.subject;
    assert.equal(halves[0]!.backendData !== undefined, publishes ?? changeData !== undefined);
  },

  "a node that joins later is reached": async (cluster) => {
    const late = await cluster.start(2);
    for (const pod of cluster.pods.slice(0, 2)) await cluster.talk(pod, late);
  },

  "an agent killed and started again has its subnet, and loses no packet": async (cluster) => {
    const [node] = cluster.nodes as [LabNode];
    const before = `${node.subnet()}`;
    for (const how of ["SIGKILL", "SIGTERM"] as const) {
      await cluster.withoutLoss(async () => {
        await node.stopAgent(how);
        await node.startAgent(NEVER);
      });
      assert.equal(`${node.subnet()}`, before);
    }
  },

  "the plain routes of a flanneld that was here before are taken over": {
    needs: "routes",
    run: async (cluster) => {
      const [node] = cluster.nodes as [LabNode];
      await cluster.withoutLoss(async () => {
        await node.stopAgent();
        for (const other of [1, 2]) {
          const { dst, gateway, dev } = cluster.routeTo(0, other);
          ip(node, `route replace ${dst} via ${gateway} dev ${dev} onlink`);
        }
        assert.equal(cluster.routeTo(0, 1).nhid, undefined);
        await node.startAgent(NEVER);
      });
      for (const other of [1, 2]) assert.ok(cluster.routeTo(0, other).nhid, "denim's again");
    },
  },

  "a route that is deleted comes back": {
    needs: "routes",
    run: async (cluster) => {
      const [node] = cluster.nodes as [LabNode];
      ip(node, `route del ${cluster.routeTo(0, 1).dst}`);
      await cluster.talk(cluster.pods[0]!, cluster.pods[1]!);
    },
  },

  "a peer with another public IP is followed": async (cluster) => {
    const node = cluster.nodes[2]!;
    const lease = await cluster.lease(2);
    const [half] = lease.halves;
    const publicIp = new IpAddress(4, half!.publicIp.value + 30n);
    await node.stopAgent();
    ip(node, `addr del ${half!.publicIp}/24 dev eth0`);
    ip(node, `addr add ${publicIp}/24 dev eth0`);
    ip(node, `route replace default via 10.99.0.254 dev eth0`);
    cluster.leases.put([{ ...lease, halves: [{ ...half!, publicIp }] }]);
    await node.startAgent(NEVER);
    assert.equal((await cluster.lease(2)).key, lease.key, "its subnet is the same");
    for (const pod of cluster.pods.slice(0, 2)) await cluster.talk(pod, cluster.pods[2]!);
  },

  "a peer that publishes something else is followed": {
    needs: "changeData",
    run: async (cluster) => {
      const changeData = cluster.subject.changeData!;
      const node = cluster.nodes[2]!;
      const before = (await cluster.lease(2)).halves[0]!.backendData;
      await node.stopAgent();
      await changeData(node);
      await node.startAgent(NEVER);
      assert.notDeepEqual((await cluster.lease(2)).halves[0]!.backendData, before);
      for (const pod of cluster.pods.slice(0, 2)) await cluster.talk(pod, cluster.pods[2]!);
    },
  },

  "a peer of another type, or one that can't be read, harms nobody": async (cluster) => {
    const [node] = cluster.nodes as [LabNode];
    const lease = await cluster.lease(1);
    const { publicIp } = lease.halves[0]!;
    const stranger = (offset: bigint, changes: Partial<Lease>): Lease => {
      const other = new Cidr(new IpAddress(4, 0x0a06_0000n + offset * 256n), 24);
      const half = { subnet: other, publicIp, backendData: 7 };
      return { ...lease, key: `${other}`.replace("/", "-"), halves: [half], ...changes };
    };
    const strangers = [stranger(1n, { backendType: "carrier-pigeon" }), stranger(2n, {})];
    cluster.leases.put(strangers);
    const said = () => {
      const log = Deno.readTextFileSync(node.logFile);
      return strangers.every(({ key }) => log.includes(`lease ${key} is not followed`));
    };
    if (cluster.subject.carries ?? true) await eventually("a word about each", said);
    assert.doesNotMatch(ip(node, "route"), /10\.6\./);
    await cluster.talk(cluster.pods[0]!, cluster.pods[1]!);
    cluster.leases.remove(strangers.map(({ key }) => key));
  },

  "a node whose lease ends is forgotten, the others go on": async (cluster) => {
    const [a, b, c] = cluster.pods as [Pod, Pod, Pod];
    await cluster.nodes[2]!.stopAgent();
    await cluster.store.release((await cluster.lease(2)).key, NEVER);
    await eventually(
      "not reached any more",
      async () =>
        cluster.routeTo(0, 2) === undefined &&
        (await a.ping(c.address, { timeoutMs: 100 })).timeMs === undefined,
      FOLLOW_MS,
    );
    await cluster.talk(a, b);
  },
};
