/**
 * How fast a node follows its peers: from leases in the store to neighbours, FDB entries, nexthops and routes in
 * the kernel. One node of a laboratory, with the real agent; the peers are made up.
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
import { findLink, LinuxError, NetlinkSocket, routeTo } from "@denim/core/linux";
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
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { type Measure, Samples } from "./stats.ts";

/** How the bench is run. */
export interface ConvergeOptions {
  /** The numbers of peers. */
  readonly peers: readonly number[];
  /** How often each is measured, each time with an agent and a store of its own. */
  readonly runs: number;
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
/** Beyond the underlay's gateway, as nodes of other networks are. */
const FIRST_PUBLIC_IP = IpAddress.parse("172.16.0.1").value;

/** How many peers come one by one after the many. */
const LATECOMERS = 20;
/** They come at any moment of the agent's interval of looking at the store, which is shorter than this. */
const MAX_PAUSE_MS = 50;
/** How often the kernel is asked while many peers are on their way. One question costs some 20 µs. */
const POLL_MS = 1;
/** How long anything may take. */
const PATIENCE_MS = 60_000;

/** Measures, and says on the way how it goes. */
export async function converge(
  options: ConvergeOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Measure[]> {
  const samples = new Samples();
  // Sizes by turns, so that a machine that is busy for a while is so for all of them.
  for (let run = 1; run <= options.runs; run++) {
    for (const count of options.peers) {
      const startMs = performance.now();
      await runOnce(count, samples, signal);
      const seconds = (performance.now() - startMs) / 1000;
      say(`run ${run} of ${options.runs}, ${number(count)} peers: ${seconds.toFixed(1)} s`);
    }
  }
  return samples.measures;
}

async function runOnce(count: number, samples: Samples, signal: AbortSignal): Promise<void> {
  const add = (what: string, unit: Measure["unit"], sample: number) =>
    samples.add(`${number(count)} peers: ${what}`, unit, sample);
  await using lab = await Lab.create({ nodes: 1, netConf: NET_CONF });
  const node = lab.nodes[0]!;
  await node.startAgent(signal);
  const stored = new SqliteLeases(`${lab.directory}/denim.db`);
  using kernel = Kernel.of(node);
  const { leases, latecomers } = makeLeases(count);
  // The agent reads leases in the order in which they were put, and makes things in the order of reading.
  const [first, last] = [leases[0]!, leases.at(-1)!];

  const startMs = performance.now();
  stored.put(leases);
  const committedMs = performance.now();
  const firstMs = await kernel.until(() => kernel.hasFdbEntry(first), POLL_MS, signal);
  await kernel.until(() => kernel.hasRoute(last), POLL_MS, signal);
  const doneMs = await kernel.untilCounted(count, signal);
  add("written to the store", "ms", committedMs - startMs);
  add("from the store to the kernel", "ms", doneMs - committedMs);
  add("of this, first to last object in the kernel", "ms", doneMs - firstMs);

  for (const latecomer of latecomers) {
    await sleep(Math.random() * MAX_PAUSE_MS, signal);
    stored.put([latecomer]);
    const committedMs = performance.now();
    const routedMs = await kernel.until(() => kernel.hasRoute(latecomer), 0, signal);
    add("one more, from the store to its route", "ms", routedMs - committedMs);
  }
  const all = [...leases, ...latecomers];
  await kernel.untilCounted(all.length, signal);
  const memory = memoryOf(node);
  add("agent, peak memory", "MB", memory.peak);
  add("agent, memory at the end", "MB", memory.resident);

  await node.stopAgent();
  const stoppedMs = performance.now();
  await node.startAgent(signal);
  add("agent started again, until subnet.env", "ms", performance.now() - stoppedMs);
  add("agent started again, peak memory", "MB", memoryOf(node).peak);
  await kernel.untilCounted(all.length, signal);

  const removingMs = performance.now();
  stored.remove(all.map(({ key }) => key));
  const removedMs = performance.now();
  await kernel.until(() => !kernel.hasFdbEntry(last), POLL_MS, signal);
  const goneMs = await kernel.untilCounted(0, signal);
  add("all removed from the store", "ms", removedMs - removingMs);
  add("and then from the kernel", "ms", goneMs - removedMs);
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

/** What a process has resident now and had at the most, in MB (proc_pid_status(5)). */
function memoryOf(node: LabNode): { readonly resident: number; readonly peak: number } {
  const status = Deno.readTextFileSync(`/proc/${node.agentPid}/status`);
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(status)![1]) * 1024 / 1e6;
  return { resident: field("VmRSS"), peak: field("VmHWM") };
}

/** The node's kernel, asked from outside the agent. */
class Kernel implements Disposable {
  readonly #socket: NetlinkSocket;
  readonly #node: LabNode;
  readonly #context: KernelContext;

  private constructor(node: LabNode, socket: NetlinkSocket) {
    this.#node = node;
    this.#socket = socket;
    const { index } = findLink(socket, DEVICE)!;
    this.#context = {
      indexOf: () => index,
      has: (name) => name === DEVICE,
      nameOf: (candidate) => candidate === index ? DEVICE : undefined,
      isUp: (name) => name === DEVICE,
      owned: (name) => name === DEVICE,
      ownedDevices: () => [DEVICE],
      nexthop: () => undefined,
      wantsAddress: () => false,
      networks: [],
      podBridge: undefined,
    };
  }

  /** Opens a socket in a node whose agent is ready. */
  static of(node: LabNode): Kernel {
    using namespace = node.open();
    return namespace.run(() => new Kernel(node, new NetlinkSocket()));
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
      nexthops: count(nexthopKind),
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
    const log = Deno.readTextFileSync(this.#node.logFile).split("\n").slice(-20).join("\n");
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
