/**
 * Random faults in a row: always the same ones for a seed. After each all pods talk; at the end nothing is left
 * of any of them.
 *
 * @module
 */

import { messageOf, RuntimeError } from "@denim/core";
import { leftovers } from "../support/leftovers.ts";
import { randomNumbers } from "../support/random.ts";
import { eventually } from "../support/wait.ts";
import { type BackendName, Cluster } from "./cluster.ts";
import { type Fault, FAULT_KINDS, type FaultKind, faultsFor, type Site } from "./faults.ts";
import { type Inventory, takeInventory } from "./inventory.ts";
import { compare } from "./node_view.ts";
import type { StoreName } from "./store_at_fault.ts";
import { undergo } from "./undergo.ts";

/** Which faults. */
export interface RandomFaultsOptions {
  /** What carries packets. */
  readonly backend: BackendName;
  /** Where leases live. */
  readonly store: StoreName;
  /** How many. */
  readonly count: number;
  /** What they follow from: a whole number from 1. */
  readonly seed: number;
  /** Whether the cluster has IPv6 beside IPv4. */
  readonly ipv6: boolean;
}

/** What they came to. */
export interface RandomFaultsResult {
  /** From each fault until all pods talked and all was as it should be, in milliseconds. */
  readonly healedMs: readonly number[];
  /** What there was before … */
  readonly before: Inventory;
  /** … and after. */
  readonly after: Inventory;
}

const NODES = 3;
/** Within this time after a fault all pairs talk, and the kernel is as it should be. */
const PATIENCE_MS = 2_000;
/** Of ten faults so many are of each kind. */
const SHARES: Readonly<Record<FaultKind, number>> = { kernel: 6, state: 2, agent: 2 };
/** How long what comes and goes by itself, as idle threads do, is given to go. */
const SETTLE_MS = 20_000;
/** An agent that has just started opens what it probes peers with within a second, and nothing more after that. */
const STILL_MS = 2_000;
/** An agent's heap grows and shrinks by some megabytes from moment to moment. */
const MAX_GROWTH_BYTES = 24 * 2 ** 20;
/** As far as etcd's log of writes grows by itself. */
const MAX_FILE_GROWTH_BYTES = 8 * 2 ** 20;
/** A thread more or less may be at work on a file at any moment. */
const MAX_MORE_THREADS = 2;

/**
 * Runs them on three nodes, after one fault of each sort to warm up. The first node's agent is never struck
 * itself, so that whatever it leaks adds up. Rejects with a RuntimeError that names the seed and the step at
 * which something did not heal, and at the end with what is left over.
 */
export async function randomFaults(
  options: RandomFaultsOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<RandomFaultsResult> {
  const { backend, store, count, seed, ipv6 } = options;
  const faults = faultsFor(backend, store);
  let prefix = "";
  let result: RandomFaultsResult;
  {
    await using cluster = await Cluster.create({ backend, store, ipv6, nodes: NODES });
    prefix = cluster.lab.prefix;
    const strike = async (step: string, fault: Fault, site: Site) => {
      signal.throwIfAborted();
      const places = cluster.logPlaces();
      try {
        return await heal(fault, site);
      } catch (error) {
        throw new RuntimeError(
          `seed ${seed}, ${step}, ${site.at.name}: ${fault.name}: ${messageOf(error)}\n` +
            cluster.logsSince(places),
        );
      }
    };
    const { members } = cluster;
    const made = members.map(({ outer, publicIp }) => ({ outer, publicIp }));
    const struck = (kind: FaultKind) => kind === "agent" ? members.slice(1) : members;
    for (const kind of FAULT_KINDS) {
      for (const [index, fault] of faults[kind].entries()) {
        const candidates = struck(kind);
        const at = candidates[index % candidates.length]!;
        const peer = members.find((member) => member !== at)!;
        await strike("warming up", fault, { cluster, at, peer });
        if (fault.toggles !== undefined) await strike("warming up", fault, { cluster, at, peer });
      }
    }
    const before = await settled(cluster);
    const healedMs: number[] = [];
    const random = randomNumbers(seed);
    const kinds = FAULT_KINDS.flatMap((kind) => Array<FaultKind>(SHARES[kind]).fill(kind));
    for (let step = 1; step <= count; step++) {
      const kind = kinds[random(kinds.length)]!;
      const fault = faults[kind][random(faults[kind].length)]!;
      const candidates = struck(kind);
      const at = candidates[random(candidates.length)]!;
      const others = members.filter((member) => member !== at);
      const peer = others[random(others.length)]!;
      const tookMs = await strike(`step ${step}`, fault, { cluster, at, peer });
      healedMs.push(tookMs);
      say(`seed ${seed}, step ${step}: ${at.name}: ${fault.name}: ${tookMs.toFixed()} ms`);
    }
    // What is otherwise still is made as it was.
    for (const [index, at] of members.entries()) {
      for (const fault of faults.kernel) {
        if (fault.toggles === undefined || at[fault.toggles] === made[index]![fault.toggles]) {
          continue;
        }
        const peer = members.find((member) => member !== at)!;
        await strike("the end", fault, { cluster, at, peer });
      }
    }
    result = { healedMs, before, after: await settled(cluster, before) };
  }
  const left = leftovers(prefix);
  if (left.length > 0) throw new RuntimeError(`left on this machine:\n${left.join("\n")}`);
  return result;
}

/** How long it took, in milliseconds. */
async function heal(fault: Fault, site: Site): Promise<number> {
  const { struckAtMs, doneAtMs } = await undergo(fault, site, PATIENCE_MS);
  await site.cluster.allTalk(PATIENCE_MS - (performance.now() - doneAtMs));
  return performance.now() - struckAtMs;
}

/** Takes stock once nothing changes any more; if it is to be as before, once it is. Throws what is more, or less. */
async function settled(cluster: Cluster, before?: Inventory): Promise<Inventory> {
  let now = takeInventory(cluster);
  let sinceMs = performance.now();
  let complaints: string[] = [];
  try {
    await eventually("nothing is left over", () => {
      const last = before ?? now;
      now = takeInventory(cluster);
      complaints = differences(last, now);
      if (complaints.length > 0) sinceMs = performance.now();
      return complaints.length === 0 &&
        (before !== undefined || performance.now() - sinceMs > STILL_MS);
    }, SETTLE_MS);
    return now;
  } catch {
    throw new RuntimeError(`not as before the faults:\n${complaints.join("\n")}`);
  }
}

function differences(before: Inventory, after: Inventory): string[] {
  const { fileBytes } = before;
  const grown = (what: string, index: number, from: number, to: number, most: number) =>
    to - from > most ? [`${what} of node${index + 1}: ${to}, was ${from}`] : [];
  return [
    // An agent that has just started has a socket more for some seconds, for Deno to look for a newer Deno.
    ...compare(before.lines, after.lines).filter((line) => !/^- node\d: open /.test(line)),
    ...after.threads.flatMap((threads, index) =>
      grown("threads", index, before.threads[index]!, threads, MAX_MORE_THREADS)
    ),
    ...after.residentBytes.flatMap((bytes, index) =>
      grown("resident bytes", index, before.residentBytes[index]!, bytes, MAX_GROWTH_BYTES)
    ),
    ...(after.fileBytes - fileBytes > MAX_FILE_GROWTH_BYTES
      ? [`bytes of files: ${after.fileBytes}, was ${fileBytes}`]
      : []),
  ];
}

/** What grew, and what did not, in words. */
export function describeGrowth({ before, after }: RandomFaultsResult): string {
  const mebibytes = (bytes: readonly number[]) =>
    bytes.map((count) => (count / 2 ** 20).toFixed()).join(", ");
  return `nothing is left over: ${after.lines.length} namespaces, processes, objects in the kernel, files and ` +
    `open files as before; agents' threads ${before.threads.join(", ")} → ${
      after.threads.join(", ")
    }, ` +
    `memory ${mebibytes(before.residentBytes)} → ${
      mebibytes(after.residentBytes)
    } MiB, the first one's ` +
    "without a restart";
}
