/**
 * What a large Kubernetes cluster costs a node: a real kube-apiserver with thousands of nodes of the size that nodes
 * have, whose kubelets write their status; one agent follows them. flanneld does the same, if there is one. The agent
 * does not probe its peers, which flanneld does not either: the bench mesh has what that costs.
 *
 * @module
 */

import { IpAddress, RuntimeError, sleep } from "@denim/core";
import type { LabNode } from "@denim/agent/lab";
import { KubeApiServer } from "../support/kube_api_server.ts";
import { KubeLab, NODES, PREFIX } from "../support/kube_lab.ts";
import { sh } from "../support/sh.ts";
import { processUs } from "./processor.ts";
import { flannelProgram } from "./contestants.ts";
import { type Measure, Samples } from "./stats.ts";

/** How the bench is run. */
export interface KubernetesOptions {
  /** The number of nodes. */
  readonly nodes: number;
  /** How long their status is written, in seconds. */
  readonly seconds: number;
  /** How often everything is measured. */
  readonly runs: number;
}

/** The laboratory's underlay is outside of it. */
const NET_CONF = { Network: "10.128.0.0/9", Backend: { Type: "vxlan" } };
const FIRST_SUBNET = IpAddress.parse("10.128.0.0").value;
/** Beyond the underlay's gateway, as nodes of other networks are. */
const FIRST_PUBLIC_IP = IpAddress.parse("172.16.0.1").value;
/** A kubelet writes its node's status every 5 min: these are 15,000 nodes' writes in a second. */
const WRITES_PER_S = 50;
const POLL_MS = 100;
const PATIENCE_MS = 120_000;

/** Measures, and says on the way how it goes. */
export async function kubernetes(
  options: KubernetesOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Measure[]> {
  await using cluster = await largeLab();
  const [own, flannels] = cluster.nodes as [LabNode, LabNode];
  for (const [index, { name }] of [own, flannels].entries()) {
    // flanneld ends at a node without any annotation.
    await cluster.register(name, [`10.255.${index}.0/24`], { "example.com/any": "" });
  }
  say(`making ${options.nodes} nodes`);
  await cluster.makeNodes(Array.from({ length: options.nodes }, (_, index) => largeNode(index)));
  const flanneld = flannelProgram("flanneld");
  const samples = new Samples();
  for (let run = 1; run <= options.runs; run++) {
    signal.throwIfAborted();
    const startMs = performance.now();
    // Not to its readiness alone: it is followed while it starts.
    const starting = own.startAgent(signal, ["--probe-peers=false"]);
    await measure(
      "denim",
      own,
      () => own.agentPid,
      startMs,
      { samples, cluster, ...options },
      signal,
    );
    await starting;
    await own.stopAgent();
    sh(`ip -n ${own.namespaceName} link del flannel.1`);
    say(`run ${run}: denim is done`);
    if (flanneld === undefined) continue;
    using process = new Flanneld(flanneld, cluster, flannels);
    await measure("flanneld", flannels, () => process.pid, performance.now(), {
      samples,
      cluster,
      ...options,
    }, signal);
    say(`run ${run}: flanneld is done`);
  }
  return samples.measures;
}

/** A laboratory of two nodes for a cluster of {@link largeNode}. Rejects with a RuntimeError without a kube-apiserver. */
export async function largeLab(): Promise<KubeLab> {
  if (KubeApiServer.program() === undefined) {
    throw new RuntimeError(
      "this takes a real kube-apiserver: put it on PATH, or name it with KUBE_APISERVER",
    );
  }
  return await KubeLab.create({ nodes: 2, netConf: NET_CONF });
}

async function measure(
  who: string,
  node: LabNode,
  pidOf: () => number | undefined,
  startMs: number,
  { samples, cluster, nodes, seconds }: KubernetesOptions & { samples: Samples; cluster: KubeLab },
  signal: AbortSignal,
): Promise<void> {
  const add = (what: string, unit: Measure["unit"], value: number) =>
    samples.add(`${who}, ${what}`, unit, value);
  const routes = () => Number(sh(`ip -n ${node.namespaceName} route | grep -c '^10\\.' || true`));
  while (routes() < nodes) {
    signal.throwIfAborted();
    pidOf();
    if (performance.now() - startMs > PATIENCE_MS) {
      throw new RuntimeError(`${who}: ${routes()} of ${nodes} routes within ${PATIENCE_MS} ms`);
    }
    await sleep(POLL_MS, signal);
  }
  const pid = pidOf()!;
  add("start to all routes", "ms", performance.now() - startMs);
  add("processor until then", "ms", processUs(pid).all / 1000);
  await sleep(5_000, signal);
  add("memory, peak of the start", "MB", memoryMB(pid, "VmHWM"));
  const beforeMs = processUs(pid).all / 1000;
  await writeStatus(cluster, nodes, seconds, signal);
  add(
    `processor in ${seconds} s with ${WRITES_PER_S} writes a second`,
    "ms",
    processUs(pid).all / 1000 - beforeMs,
  );
  add("memory at the end", "MB", memoryMB(pid, "VmRSS"));
  add("memory of its own at the end", "MB", memoryMB(pid, "RssAnon"));
}

/** A node of a large cluster by its number: 19 KB of JSON, as of a node with 50 images. */
export function largeNode(index: number): unknown {
  const subnet = `${new IpAddress(4, FIRST_SUBNET + BigInt(index * 256))}/24`;
  const octets = [index >> 8 & 255, index & 255].map((octet) =>
    octet.toString(16).padStart(2, "0")
  );
  const images = Array.from({ length: 50 }, (_, image) => ({
    names: [
      `registry.example/team-${image}/service-${image}@sha256:${
        `${index}${image}`.padStart(64, "0")
      }`,
      `registry.example/team-${image}/service-${image}:1.${image}.0-with-a-tag-of-usual-length`,
    ],
    sizeBytes: 100_000_000 + image,
  }));
  return {
    metadata: {
      name: nameOf(index),
      labels: Object.fromEntries(
        Array.from(
          { length: 14 },
          (_, label) => [`example.com/label-${label}`, `value-of-label-${label}`],
        ),
      ),
      annotations: {
        [`${PREFIX}/kube-subnet-manager`]: "true",
        [`${PREFIX}/backend-type`]: "vxlan",
        [`${PREFIX}/backend-data`]: `{"VNI":1,"VtepMAC":"02:0a:00:00:${octets.join(":")}"}`,
        [`${PREFIX}/public-ip`]: `${new IpAddress(4, FIRST_PUBLIC_IP + BigInt(index))}`,
      },
    },
    spec: { podCIDR: subnet, podCIDRs: [subnet] },
    status: { conditions: conditions(), images },
  };
}

function nameOf(index: number): string {
  return `large-${index}`;
}

function conditions(): unknown[] {
  const at = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  return ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map((type) => ({
    type,
    status: type === "Ready" ? "True" : "False",
    reason: `KubeletHas${type}`,
    message: `what the kubelet says of ${type}`,
    lastHeartbeatTime: at,
    lastTransitionTime: "2026-01-01T00:00:00Z",
  }));
}

/** Writes nodes' status by turns, as their kubelets do; each write another second's, so that none is a no-op. */
async function writeStatus(
  { server }: KubeLab,
  nodes: number,
  seconds: number,
  signal: AbortSignal,
): Promise<void> {
  const startMs = performance.now();
  const writes: Promise<unknown>[] = [];
  for (let write = 0; write < seconds * WRITES_PER_S; write++) {
    const path = `${NODES}/${nameOf(write * 7 % nodes)}/status`;
    writes.push(server.admin("PATCH", path, { status: { conditions: conditions() } }));
    const waitMs = startMs + (write + 1) * 1000 / WRITES_PER_S - performance.now();
    if (waitMs > 0) await sleep(waitMs, signal);
  }
  await Promise.all(writes);
}

/** A field of proc_pid_status(5), in MB. */
export function memoryMB(pid: number, field: string): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(new RegExp(`^${field}:\\s*(\\d+) kB$`, "m").exec(status)![1]) * 1024 / 1e6;
}

/** A flanneld on a node. */
class Flanneld implements Disposable {
  readonly #process: Deno.ChildProcess;
  readonly #node: LabNode;
  #ended = false;

  constructor(program: string, { lab, kubeconfig }: KubeLab, node: LabNode) {
    this.#node = node;
    const folder = `${lab.directory}/flanneld`;
    Deno.mkdirSync(folder, { recursive: true });
    using namespace = node.open();
    const command = new Deno.Command(program, {
      args: [
        ...[
          "--kube-subnet-mgr",
          `--kubeconfig-file=${kubeconfig}`,
          `--subnet-file=${folder}/subnet.env`,
        ],
        `--net-config-path=${lab.directory}/net-conf.json`,
      ],
      env: { NODE_NAME: node.name, EVENT_QUEUE_DEPTH: "5000" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
    this.#process = namespace.run(() => command.spawn());
    this.#process.status.then(() => this.#ended = true);
  }

  get pid(): number {
    if (this.#ended) throw new RuntimeError("flanneld has ended");
    return this.#process.pid;
  }

  [Symbol.dispose](): void {
    if (!this.#ended) this.#process.kill("SIGKILL");
    sh(`ip -n ${this.#node.namespaceName} link del flannel.1 2>/dev/null || true`);
  }
}
