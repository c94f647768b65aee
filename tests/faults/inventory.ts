/**
 * All that a cluster has: taken before and after many faults, it shows what they left behind.
 *
 * @module
 */

import { leftovers } from "../support/leftovers.ts";
import { sh } from "../support/sh.ts";
import type { Cluster } from "./cluster.ts";
import { viewNode } from "./node_view.ts";

/** What there is, and how much of it. */
export interface Inventory {
  /** Namespaces, processes, what the nodes' kernels hold, files, and the agents' open files, a line each. */
  readonly lines: readonly string[];
  /** The threads of each agent. */
  readonly threads: readonly number[];
  /** The memory that each agent is resident with, in bytes. */
  readonly residentBytes: readonly number[];
  /** What the laboratory's files but for logs take, in bytes. */
  readonly fileBytes: number;
}

/** Takes stock of a cluster. */
export function takeInventory(cluster: Cluster): Inventory {
  const { members, lab } = cluster;
  const pids = members.map(({ node }) => node.agentPid!);
  const files = filesUnder(lab.directory);
  return {
    lines: [
      ...leftovers(lab.prefix),
      ...members.flatMap(({ name, node }) =>
        [...viewNode(node), ...kernelLines(node.namespaceName)].map((line) => `${name}: ${line}`)
      ),
      ...files.map(({ path }) => `file ${path}`),
      ...pids.flatMap((pid, index) =>
        openFiles(pid).map((file) => `${members[index]!.name}: ${file}`)
      ),
    ],
    threads: pids.map((pid) => statusOf(pid, "Threads")),
    residentBytes: pids.map((pid) => statusOf(pid, "VmRSS") * 1024),
    fileBytes: files.filter(({ path }) => !path.endsWith(".log")).reduce(
      (sum, { bytes }) => sum + bytes,
      0,
    ),
  };
}

/** What a namespace's kernel holds beyond a node's view, in both families; without what comes and goes by itself. */
function kernelLines(namespace: string): string[] {
  const text = sh(
    `for what in link addr "route show table all" rule; do ip -n ${namespace} -o $what; done; ` +
      `bridge -n ${namespace} fdb show state permanent`,
  );
  return text.split("\n").filter((line) => line !== "").map((line) =>
    // Numbers of devices, a TUN device's own address, and words on how something fares change with each making.
    line.replace(/^\d+: /, "").replace(/@\S+/, "").replace(/\\.*/, "")
      .replace(/fe80::[0-9a-f:]+/g, "fe80::…")
      .replace(/ (tentative|dadfailed|linkdown|extern_learn|offload)\b/g, "").trimEnd()
  ).sort();
}

interface File {
  readonly path: string;
  readonly bytes: number;
}

function filesUnder(directory: string): File[] {
  return [...Deno.readDirSync(directory)].flatMap(({ name, isDirectory }): File[] => {
    const path = `${directory}/${name}`;
    if (isDirectory) return filesUnder(path);
    try {
      return [{ path, bytes: Deno.statSync(path).size }];
    } catch {
      // It was renamed or removed meanwhile.
      return [];
    }
  }).sort((a, b) => a.path < b.path ? -1 : 1);
}

/** The files that a process has open, without numbers that tell one socket, pipe or process from another. */
function openFiles(pid: number): string[] {
  const directory = `/proc/${pid}/fd`;
  return [...Deno.readDirSync(directory)].flatMap(({ name }) => {
    try {
      const file = Deno.readLinkSync(`${directory}/${name}`);
      return [`open ${file.replace(/\[\d+\]$|\d+\/task\/\d+(?=\/net\/)/, "")}`];
    } catch {
      // It was closed meanwhile.
      return [];
    }
  }).sort();
}

function statusOf(pid: number, field: string): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(status)![1]);
}
