/**
 * How fast a node follows its peers, and what that costs: from the start of the agent's process, with leases of many
 * peers in the store, to neighbours, FDB entries, nexthops and routes in the kernel; then one more peer. One node of a
 * laboratory for each contestant; the peers are made up.
 *
 * @module
 */

import {
  Cidr,
  IpAddress,
  type Lease,
  LEASE_TTL_MS,
  leaseKey,
  MacAddress,
  RuntimeError,
  sleep,
} from "@denim/core";
import { findLink, LinuxError, NetlinkSocket, NetworkNamespace, routeTo } from "@denim/core/linux";
import { Lab, type LabNode } from "@denim/agent/lab";
import { ENOENT } from "../../core/linux/sys/linux_error.ts";
import { fdbKind } from "../../core/linux/objects/fdb.ts";
import { neighbourKind } from "../../core/linux/objects/neighbour.ts";
import { nexthopKind } from "../../core/linux/objects/nexthop.ts";
import type {
  KernelContext,
  ObjectKind,
  RtnetlinkObject,
} from "../../core/linux/objects/object_kind.ts";
import { routeKind } from "../../core/linux/objects/route.ts";
import { NDA_LLADDR, NTF_SELF, RTM_GETNEIGH } from "../../core/linux/uapi/rtnetlink.ts";
import { AF_BRIDGE } from "../../core/linux/uapi/socket.ts";
import { ip } from "../support/ip.ts";
import { iproute } from "../support/iproute.ts";
import { linesOf } from "../support/lines.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { type BenchStore, etcdStore, sqliteStore } from "./bench_store.ts";
import { type Contestant, contestants } from "./contestants.ts";
import type { Figure } from "./plot.ts";
import { processUs } from "./processor.ts";
import { type Measure, quantile, Samples, summarize } from "./stats.ts";

/** How the bench is run. */
export interface ConvergeOptions {
  /** The numbers of peers. */
  readonly peers: readonly number[];
  /** How often each is measured, each time with a process of its own. */
  readonly runs: number;
  /** Another checkout of denim, which takes its turns beside this one. */
  readonly against?: string | undefined;
}

/** What the bench comes to. */
export interface ConvergeResult {
  /** Every sample. */
  readonly measures: readonly Measure[];
  /** The medians, a row for each number of peers and a column for each contestant, as tables in Markdown. */
  readonly comparison: readonly string[];
  /** What may be drawn: costs against the number of peers. */
  readonly figures: readonly Figure[];
}

/** As many made-up peers as there is room for. */
export const MAX_PEERS = 60_000;

// The node's own subnet comes from the last /16, the peers' from what is before. The laboratory's underlay
// is outside of both.
/** The cluster of the benches. */
export const NET_CONF = {
  Network: "10.128.0.0/9",
  SubnetLen: 25,
  SubnetMin: "10.255.0.0",
  SubnetMax: "10.255.255.0",
  Backend: { Type: "vxlan" },
};
/** Its device. */
export const DEVICE = "flannel.1";
const FIRST_SUBNET = IpAddress.parse("10.128.0.0").value;
const SUBNET_LENGTH = 25;
/** The underlay's router, where etcd runs. */
const ETCD_HOST = "10.99.0.254";
/** Beyond the underlay's gateway, as nodes of other networks are. */
const FIRST_PUBLIC_IP = IpAddress.parse("172.16.0.1").value;

/** How many peers come one by one after the many. */
const LATECOMERS = 100;
/** They come at any moment of the agent's interval of looking at the store, which is shorter than this. */
const MAX_PAUSE_MS = 50;
/** How often the kernel is asked while many peers are on their way. One question costs some 20 µs. */
const POLL_MS = 1;
/** How long anything may take. */
const PATIENCE_MS = 120_000;
/** After so long an agent has given back what only its start needed. */
const SETTLE_MS = 10_000;

const STORES = ["etcd", "sqlite"] as const;
type StoreName = typeof STORES[number];

/** What is compared, with the words of the tables. */
const COSTS = {
  wall: ["from the process's start to all peers in the kernel", "ms"],
  processor: ["processor until then", "ms"],
  anonymous: [`anonymous memory ${SETTLE_MS / 1000} s later`, "MB"],
  resident: [`resident memory ${SETTLE_MS / 1000} s later`, "MB"],
  peak: ["resident memory at its peak", "MB"],
  late: ["one more peer, from the store's answer to its route", "ms"],
  again: ["started again, until subnet.env", "ms"],
  gone: ["all removed at once, from the store to the kernel", "ms"],
  come: ["all put at once, from the store to the kernel", "ms"],
} as const;
type Cost = keyof typeof COSTS;

/** What is drawn. */
const DRAWN = {
  wall: "From the start of the process to all peers in the kernel",
  processor: "Processor time of a start",
  anonymous: `Anonymous memory ${SETTLE_MS / 1000} s later`,
} as const;

/** One contestant at one store, and its node. */
interface Turn {
  readonly contestant: Contestant;
  readonly store: StoreName;
  readonly node: LabNode;
}

/** Measures, and says on the way how it goes. */
export async function converge(
  options: ConvergeOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<ConvergeResult> {
  using folder = new TempFolder();
  const all = await contestants(folder.path, options.against);
  say(`in turns: ${all.map(({ name }) => name).join(", ")}`);
  const results = new Results(all.map(({ name }) => name), options.peers);
  for (const count of options.peers) {
    const turns = STORES.flatMap((store) =>
      all.filter(({ isFlanneld }) => !isFlanneld || store === "etcd")
        .map((contestant) => ({ store, contestant }))
    );
    await using lab = await Lab.create({ nodes: turns.length, netConf: NET_CONF });
    const underlay = `/run/netns/${lab.prefix}-net`;
    using namespace = NetworkNamespace.open(underlay);
    iproute("ip", `${lab.prefix}-net`, "link set lo up");
    const { leases, latecomers } = makeLeases(count);
    await using etcd = await etcdStore(namespace, underlay, ETCD_HOST, NET_CONF);
    await using sqlite = await sqliteStore(`${lab.directory}/denim.db`, NET_CONF);
    for (const store of [etcd, sqlite]) await store.put(leases);
    // Deno compiles a program when it runs it for the first time, and the kernel loads modules: that is not counted.
    const first = count === options.peers[0] ? 0 : 1;
    for (let run = first; run <= options.runs; run++) {
      for (const [index, { contestant, store }] of turns.entries()) {
        const turn: Turn = { contestant, store, node: lab.nodes[index]! };
        const startMs = performance.now();
        const costs = await take(
          turn,
          store === "etcd" ? etcd : sqlite,
          leases,
          latecomers,
          signal,
        );
        const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
        const what = `${number(count)} peers, ${store}, ${contestant.name}`;
        say(`${run === 0 ? "warm-up" : `run ${run} of ${options.runs}`}, ${what}: ${seconds} s`);
        if (run === 0) continue;
        for (const [cost, sample] of costs) {
          results.add({ count, store, contestant: contestant.name, cost }, sample);
        }
      }
    }
  }
  return { measures: results.measures, comparison: results.tables(), figures: results.figures() };
}

async function take(
  { contestant, store: storeName, node }: Turn,
  store: BenchStore,
  leases: readonly Lease[],
  latecomers: readonly Lease[],
  signal: AbortSignal,
): Promise<readonly (readonly [Cost, number])[]> {
  const costs: (readonly [Cost, number])[] = [];
  const add = (cost: Cost, sample: number) => costs.push([cost, sample]);
  await using agent = new Agent(node, contestant, store);
  using kernel = Kernel.of(node, contestant.isFlanneld);
  const startMs = performance.now();
  agent.start();
  const last = leases.toSorted((a, b) => a.key < b.key ? -1 : 1).at(-1)!;
  await kernel.until(
    () => {
      agent.requireRunning();
      return kernel.hasRoute(last);
    },
    POLL_MS,
    signal,
  );
  const doneMs = await kernel.untilCounted(leases.length, signal);
  add("processor", agent.processorMs());
  add("wall", doneMs - startMs);
  await sleep(SETTLE_MS, signal);
  add("anonymous", agent.memoryMB("RssAnon"));
  add("resident", agent.memoryMB("VmRSS"));
  add("peak", agent.memoryMB("VmHWM"));
  {
    await using monitor = await RouteMonitor.start(node);
    for (const latecomer of latecomers) {
      await sleep(Math.random() * MAX_PAUSE_MS, signal);
      const storedAtMs = await store.put([latecomer]);
      const routedAtMs = await monitor.seen(latecomer.halves[0]!.subnet, signal);
      add("late", routedAtMs - storedAtMs);
    }
  }
  await kernel.untilCounted(leases.length + latecomers.length, signal);
  if (!contestant.isFlanneld) {
    await agent.stop();
    const stoppedMs = performance.now();
    const before = Deno.statSync(node.subnetFile).ino;
    agent.start();
    await kernel.until(() => Deno.statSync(node.subnetFile).ino !== before, POLL_MS, signal);
    add("again", performance.now() - stoppedMs);
  }
  if (storeName === "sqlite") {
    await comeAndGo([...leases, ...latecomers], store, kernel, add, signal);
  }
  const own = leaseKey([node.subnet()]);
  await agent.stop();
  await store.remove([own, ...latecomers.map(({ key }) => key)]);
  // With it goes all that lay on it. The next run is a node's first again.
  ip(node, `link del ${DEVICE}`);
  for (const { name } of [...Deno.readDirSync(node.directory)]) {
    if (name.startsWith("subnet.env")) Deno.removeSync(`${node.directory}/${name}`);
  }
  return costs;
}

/** All leave an agent that runs, and all come back. */
async function comeAndGo(
  all: readonly Lease[],
  store: BenchStore,
  kernel: Kernel,
  add: (cost: Cost, sample: number) => unknown,
  signal: AbortSignal,
): Promise<void> {
  const last = all.at(-1)!;
  await kernel.untilCounted(all.length, signal);
  await store.remove(all.map(({ key }) => key));
  const removedMs = performance.now();
  await kernel.until(() => !kernel.hasFdbEntry(last), POLL_MS, signal);
  add("gone", await kernel.untilCounted(0, signal) - removedMs);
  await store.put(all);
  const putMs = performance.now();
  await kernel.until(() => kernel.hasRoute(last), POLL_MS, signal);
  add("come", await kernel.untilCounted(all.length, signal) - putMs);
}

/** Peers that are nowhere: many, and some that come later. */
export function makeLeases(
  count: number,
): { leases: readonly Lease[]; latecomers: readonly Lease[] } {
  const all = Array.from({ length: count + LATECOMERS }, (_, index) => makeLease(index));
  return { leases: all.slice(0, count), latecomers: all.slice(count) };
}

function makeLease(index: number): Lease {
  const address = FIRST_SUBNET + (BigInt(index) << BigInt(32 - SUBNET_LENGTH));
  const subnet = new Cidr(new IpAddress(4, address), SUBNET_LENGTH);
  const publicIp = new IpAddress(4, FIRST_PUBLIC_IP + BigInt(index));
  return {
    key: leaseKey([subnet]),
    backendType: "vxlan",
    halves: [{ subnet, publicIp, backendData: { VNI: 1, VtepMAC: vtepMac(index) } }],
    expiry: { atMs: Date.now() + LEASE_TTL_MS },
  };
}

/** Locally administered (RFC 7042), and a different one for each peer. */
function vtepMac(index: number): MacAddress {
  return MacAddress.fromBytes(
    new Uint8Array([0x02, 0x0a, 0, index >> 16, index >> 8 & 255, index & 255]),
  );
}

/** A contestant's process on a node. */
class Agent implements AsyncDisposable {
  readonly #node: LabNode;
  readonly #program: readonly [string, ...string[]];
  #process: Deno.ChildProcess | undefined;
  #ended = false;

  constructor(node: LabNode, contestant: Contestant, store: BenchStore) {
    this.#node = node;
    this.#program = contestant.program(node, store.flags);
  }

  start(): void {
    const { logFile } = this.#node;
    const process = this.#node.spawn(this.#program, { stdin: "null", stdout: "null", logFile });
    this.#process = process;
    this.#ended = false;
    process.status.then(() => this.#ended ||= this.#process === process);
  }

  /** Ends it, and waits until it is gone. */
  async stop(): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (process === undefined) return;
    if (!this.#ended) process.kill("SIGTERM");
    await process.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Throws a RuntimeError with the end of its log if it has ended. */
  #pid(): number {
    if (!this.#ended) return this.#process!.pid;
    throw new RuntimeError(`${this.#program.join(" ")} has ended:\n${endOfLog(this.#node)}`);
  }

  /** Whether it has not ended, else it throws as asking it would. */
  requireRunning(): void {
    this.#pid();
  }

  /** The processor time that it has used. */
  processorMs(): number {
    return processUs(this.#pid()).all / 1000;
  }

  /** A field of proc_pid_status(5), in MB of 10⁶ bytes. */
  memoryMB(field: "RssAnon" | "VmRSS" | "VmHWM"): number {
    const status = Deno.readTextFileSync(`/proc/${this.#pid()}/status`);
    return Number(new RegExp(`^${field}:\\s*(\\d+) kB$`, "m").exec(status)![1]) * 1024 / 1e6;
  }
}

function endOfLog(node: LabNode): string {
  return Deno.readTextFileSync(node.logFile).split("\n").slice(-20).join("\n");
}

/** Hears of a node's new routes, and when the kernel told of them, by iproute2's monitor: nothing has to ask. */
class RouteMonitor implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #seenAtMs = new Map<string, number>();
  readonly #reading: Promise<void>;
  #wake = Promise.withResolvers<void>();

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#reading = this.#read();
  }

  /** Starts one, and waits until it hears. */
  static async start(node: LabNode): Promise<RouteMonitor> {
    const monitor = new RouteMonitor(
      node.spawn(["ip", "-ts", "monitor", "route"], {
        stdin: "null",
        stdout: "piped",
        env: { TZ: "UTC" },
      }),
    );
    const probe = Cidr.parse("192.0.2.1/32");
    while (!monitor.#seenAtMs.has(`${probe.address}`)) {
      for (const verb of ["replace", "del"]) ip(node, `route ${verb} blackhole ${probe}`);
      await sleep(POLL_MS, new AbortController().signal);
    }
    return monitor;
  }

  async #read(): Promise<void> {
    for await (const line of linesOf(this.#process.stdout)) {
      // [2026-01-31T12:00:00.123456] 10.128.0.0/25 nhid … proto 155, or Deleted …
      const [, at, destination] = /^\[(\S+)\] (?:blackhole |unicast )?(\d\S*)/.exec(line) ?? [];
      if (at === undefined) continue;
      this.#seenAtMs.set(destination!, microsecondsOf(at));
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    }
  }

  /** When the kernel told of the route, in milliseconds since 1970. */
  async seen(subnet: Cidr, signal: AbortSignal): Promise<number> {
    const late = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
    for (;;) {
      const atMs = this.#seenAtMs.get(`${subnet}`);
      if (atMs !== undefined) return atMs;
      const ended = Promise.withResolvers<never>();
      const onAbort = () => ended.reject(late.reason);
      late.addEventListener("abort", onAbort, { once: true });
      await Promise.race([this.#wake.promise, ended.promise]);
      late.removeEventListener("abort", onAbort);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    await this.#reading;
    await this.#process.status;
  }
}

/** iproute2's timestamp, in milliseconds since 1970 with their fraction. */
function microsecondsOf(timestamp: string): number {
  const [seconds, fraction] = timestamp.split(".");
  return Date.parse(`${seconds}Z`) + Number(`0.${fraction}`) * 1000;
}

/** What a sample belongs to. */
interface Place {
  readonly count: number;
  readonly store: StoreName;
  readonly contestant: string;
  readonly cost: Cost;
}

/** All samples, and the ways in which they are shown. */
class Results {
  readonly #contestants: readonly string[];
  readonly #counts: readonly number[];
  readonly #samples = new Samples();

  constructor(contestants: readonly string[], counts: readonly number[]) {
    this.#contestants = contestants;
    this.#counts = counts.toSorted((a, b) => a - b);
  }

  add(place: Place, sample: number): void {
    this.#samples.add(nameOf(place), COSTS[place.cost][1], sample);
  }

  /** All, those next to each other that are to be compared. */
  get measures(): readonly Measure[] {
    return this.#places(STORES, Object.keys(COSTS) as Cost[]).flatMap((place) =>
      this.#of(place) ?? []
    );
  }

  #places(stores: readonly StoreName[], costs: readonly Cost[]): Place[] {
    return stores.flatMap((store) =>
      this.#counts.flatMap((count) =>
        costs.flatMap((cost) =>
          this.#contestants.map((contestant) => ({ count, store, contestant, cost }))
        )
      )
    );
  }

  #of(place: Place): Measure | undefined {
    return this.#samples.measures.find(({ name }) => name === nameOf(place));
  }

  #median(place: Place): number | undefined {
    const measure = this.#of(place);
    return measure && summarize(measure.samples).median;
  }

  /** The median; of what matters in the worst case, too, the 99th percentile. */
  #cell(place: Place): string {
    const measure = this.#of(place);
    if (measure === undefined) return "";
    const median = shown(summarize(measure.samples).median, measure.unit);
    return place.cost === "late"
      ? `${median}, 99th percentile ${shown(quantile(measure.samples, 0.99), measure.unit)}`
      : median;
  }

  /** The medians as tables in Markdown. */
  tables(): readonly string[] {
    const lines: string[] = [];
    for (const store of STORES) {
      const head = [`peers, ${store}`, "", ...this.#contestants];
      const rows = this.#counts.flatMap((count) =>
        (Object.keys(COSTS) as Cost[]).flatMap((cost) => {
          const cells = this.#contestants.map((contestant) =>
            this.#cell({ count, store, contestant, cost })
          );
          return cells.every((cell) => cell === "")
            ? []
            : [[number(count), COSTS[cost][0], ...cells]];
        })
      );
      const table = [head, head.map(() => "---"), ...rows];
      lines.push("", ...table.map((cells) => `| ${cells.join(" | ")} |`));
    }
    return lines;
  }

  /** Costs against the number of peers, of etcd, which all contestants take. */
  figures(): readonly Figure[] {
    return (Object.keys(DRAWN) as (keyof typeof DRAWN)[]).map((cost) => ({
      name: `converge-${cost}`,
      title: `${DRAWN[cost]}, leases in etcd`,
      unit: COSTS[cost][1],
      series: this.#contestants.map((contestant) => ({
        name: contestant,
        points: this.#counts.flatMap((count) => {
          const median = this.#median({ count, store: "etcd", contestant, cost });
          return median === undefined ? [] : [[count, median] as const];
        }),
      })),
    }));
  }
}

function nameOf({ count, store, contestant, cost }: Place): string {
  return `${number(count)} peers, ${store}, ${COSTS[cost][0]}: ${contestant}`;
}

function shown(value: number, unit: Measure["unit"]): string {
  return `${value < 20 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} ${unit}`;
}

/** The node's kernel, asked from outside the agent. */
class Kernel implements Disposable {
  readonly #socket: NetlinkSocket;
  readonly #node: LabNode;
  readonly #context: KernelContext;

  readonly #isFlanneld: boolean;

  private constructor(node: LabNode, socket: NetlinkSocket, isFlanneld: boolean) {
    this.#node = node;
    this.#socket = socket;
    this.#isFlanneld = isFlanneld;
    // The agent makes the device some time after its start.
    let known: number | undefined;
    const index = () => known ??= findLink(socket, DEVICE)?.index;
    this.#context = {
      indexOf: () => index()!,
      has: (name) => name === DEVICE && index() !== undefined,
      nameOf: (candidate) => candidate === index() ? DEVICE : undefined,
      isUp: (name) => name === DEVICE,
      owned: (name) => name === DEVICE,
      ownedDevices: () => index() === undefined ? [] : [DEVICE],
      nexthop: () => undefined,
      wantsAddress: () => false,
      networks: [],
      podBridge: undefined,
    };
  }

  /** Opens a socket in a node. flanneld makes no nexthops. */
  static of(node: LabNode, isFlanneld: boolean): Kernel {
    using namespace = node.open();
    return namespace.run(() => new Kernel(node, new NetlinkSocket(), isFlanneld));
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  hasRoute(lease: Lease): boolean {
    const { subnet } = lease.halves[0]!;
    return routeTo(this.#socket, subnet.at(1n), { match: true })?.destination.equals(subnet) ===
      true;
  }

  hasFdbEntry(lease: Lease): boolean {
    const { VtepMAC } = lease.halves[0]!.backendData as { readonly VtepMAC: MacAddress };
    try {
      return this.#socket.get("look up an FDB entry", (writer) =>
        writer.begin(RTM_GETNEIGH, 0)
          .u8(AF_BRIDGE).u8(0).u16(0).u32(this.#context.indexOf(DEVICE)).u16(0).u8(NTF_SELF).u8(0)
          .addressAttribute(NDA_LLADDR, VtepMAC).end(), () => true) === true;
    } catch (error) {
      if (error instanceof LinuxError && error.errno === ENOENT) return false;
      throw error;
    }
  }

  /** How many objects of denim's there are, of each kind of which a peer has one. */
  counts(): Readonly<Record<string, number>> {
    const count = (kind: ObjectKind<RtnetlinkObject, RtnetlinkObject>) => {
      const found = kind.dump(this.#socket, this.#context)
        .filter((object) => kind.ours(object, this.#context, false));
      // A dump may hand on the same object twice: routes are asked for by protocol and by device.
      return new Set(found.map((object) => kind.key(object))).size;
    };
    return {
      neighbours: count(neighbourKind),
      "FDB entries": count(fdbKind),
      ...this.#isFlanneld ? {} : { nexthops: count(nexthopKind) },
      routes: count(routeKind),
    };
  }

  /**
   * Asks until the answer is yes, and tells when it was, on performance.now()'s clock. With a pause of 0 it
   * asks without one, on this thread.
   */
  async until(holds: () => boolean, pauseMs: number, signal: AbortSignal): Promise<number> {
    const deadlineMs = performance.now() + PATIENCE_MS;
    while (!holds()) {
      if (performance.now() > deadlineMs) throw this.#late("what was asked for");
      if (pauseMs > 0) await sleep(pauseMs, signal);
      signal.throwIfAborted();
    }
    return performance.now();
  }

  /** Counts until there are so many of each kind, and tells when the count that was right began. */
  async untilCounted(count: number, signal: AbortSignal): Promise<number> {
    let atMs = performance.now();
    const deadlineMs = atMs + PATIENCE_MS;
    while (Object.values(this.counts()).some((found) => found !== count)) {
      if (performance.now() > deadlineMs) throw this.#late(`${count} of each kind`);
      await sleep(POLL_MS, signal);
      signal.throwIfAborted();
      atMs = performance.now();
    }
    return atMs;
  }

  #late(what: string): RuntimeError {
    const counts = Object.entries(this.counts()).map(([kind, count]) => `${count} ${kind}`);
    const log = endOfLog(this.#node);
    return new RuntimeError(
      `the kernel has not ${what} after ${PATIENCE_MS / 1000} s, but ${
        counts.join(", ")
      }; the end of the ` +
        `agent's log:\n${log}`,
    );
  }
}

/** `20,000` */
function number(count: number): string {
  return count.toLocaleString("en");
}
