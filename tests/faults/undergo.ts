/**
 * One fault, from the moment that it strikes until all is as it should be.
 *
 * @module
 */

import { sleep } from "@denim/core";
import type { Member } from "./cluster.ts";
import { compare, viewNode } from "./node_view.ts";
import type { Fault, Site } from "./faults.ts";
import { NEVER } from "../support/wait.ts";

/** When things happened, in milliseconds of `performance.now()`. */
export interface Undergone {
  /** When the fault had been done, and it was denim's turn. */
  readonly struckAtMs: number;
  /** When everything was seen to be right. */
  readonly rightAtMs: number;
}

/**
 * Lets a fault strike, sees that it did, and waits until the cluster's view is as it should be. Throws where
 * the fault does not show, if it is not mended in time, and if an agent is another than before. Tells
 * also when all was done, with an agent that was struck itself running again.
 */
export async function undergo(
  fault: Fault,
  site: Site,
  patienceMs: number,
): Promise<Undergone & { readonly doneAtMs: number }> {
  const { cluster, at } = site;
  const before = cluster.agents();
  const leaves = fault.leaves?.(site);
  let struckAtMs = await strike(fault, site);
  if (fault.end !== undefined) {
    await sleep(fault.lastsMs ?? 0, NEVER);
    const startMs = performance.now();
    await fault.end(site);
    // To start is an agent's own part of it.
    struckAtMs = fault.restarts ? startMs : performance.now();
  }
  if (leaves !== undefined) cluster.expected = cluster.expected.map(leaves);
  const doneAtMs = performance.now();
  const rightAtMs = await cluster.asExpected(patienceMs);
  for (const [member, pid] of cluster.agents()) {
    if (pid === before.get(member) || fault.restarts && member === at) continue;
    throw new Error(`the agent of ${member.name} ended`);
  }
  return { struckAtMs, doneAtMs, rightAtMs };
}

/** Tells when it was denim's turn. An agent mends within milliseconds, so it is held still for the look. */
async function strike(fault: Fault, site: Site): Promise<number> {
  const { cluster, at } = site;
  if (fault.shows === undefined) {
    await fault.strike(site);
    return performance.now();
  }
  const held = fault.restarts ? undefined : hold(at);
  try {
    await fault.strike(site);
    const own = `${at.name}: `;
    const expected = cluster.expected.filter((line) => line.startsWith(own))
      .map((line) => line.slice(own.length));
    // Not the store's view: who is held still may hold a lock there.
    const differences = compare(expected, viewNode(at.node));
    if (!differences.some((line) => fault.shows!.test(line))) {
      throw new Error(`"${fault.name}" does not show:\n${differences.join("\n")}`);
    }
  } finally {
    held?.[Symbol.dispose]();
  }
  return performance.now();
}

/** Holds a node's agent still, until it is disposed of. */
export function hold({ name, node }: Member): Disposable {
  const pid = node.agentPid;
  if (pid === undefined) throw new Error(`no agent runs on ${name}`);
  Deno.kill(pid, "SIGSTOP");
  return {
    [Symbol.dispose]() {
      // It may have been killed meanwhile, and its number be another's.
      if (node.agentPid === pid) Deno.kill(pid, "SIGCONT");
    },
  };
}
