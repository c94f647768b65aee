/**
 * Two nodes whose default device has the same address, started one after the other: one is refused, and both work
 * once each has an outer device of its own.
 *
 * @module
 */

import type { Lab, LabNode } from "@denim/agent/lab";
import { messageOf, sleep } from "@denim/core";
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { ip, ipJson } from "./ip.ts";
import { RunningPing } from "./ping.ts";
import { reached } from "./reached.ts";
import { report } from "./report.ts";
import { eventually, NEVER } from "./wait.ts";

/** `DENIM_TEST_ORDERS=all` tries each order five times, which takes some minutes. */
const { delaysSeconds, times } = Deno.env.get("DENIM_TEST_ORDERS") === "all"
  ? { delaysSeconds: [0, 0.5, 2, 5, 20], times: 5 }
  : { delaysSeconds: [0, 0.5], times: 1 };

/** One order in which the nodes start. */
export interface StartOrder {
  /** For a test's name. */
  readonly name: string;
  /** Tries it on a laboratory of two nodes, each time on a new one. */
  readonly run: (start: () => Promise<AsyncDisposable & { readonly lab: Lab }>) => Promise<void>;
}

/** The orders to try with a store. */
export function startOrders(store: string): StartOrder[] {
  return delaysSeconds.map((delaySeconds) => {
    const name = `the second ${delaySeconds} s after the first, ${store}`;
    const run: StartOrder["run"] = async (start) => {
      const refused: string[] = [];
      for (let time = 0; time < times; time++) {
        await using started = await start();
        refused.push(await refuseOne(started.lab, delaySeconds));
      }
      report(`VirtualBox's address, ${name}: refused ${refused.join(", ")}`);
    };
    return { name, run };
  });
}

/** Gives a node VirtualBox's NAT: its default device has the address 10.0.2.15, as on every machine. */
function addNat(node: LabNode): void {
  ip(node, "link add nat0 type veth peer name nat1");
  ip(node, "link set nat1 up");
  ip(node, "addr add 10.0.2.15/24 dev nat0");
  ip(node, "link set nat0 up");
  ip(node, "route replace default via 10.0.2.2 dev nat0");
}

/** Tries one order, and returns which node was refused. */
async function refuseOne(lab: Lab, delaySeconds: number): Promise<string> {
  const [first, second] = lab.nodes as [LabNode, LabNode];
  lab.nodes.forEach(addNat);
  try {
    // Which one is refused, and whether before or after it was ready, is looked at below.
    await Promise.allSettled([
      first.startAgent(NEVER),
      sleep(delaySeconds * 1000, NEVER).then(() => second.startAgent(NEVER)),
    ]);
    await eventually("one is refused", () => isRefused(first) !== isRefused(second));
    const [loser, winner] = isRefused(first) ? [first, second] : [second, first];
    const mac = vtepMac(winner);
    assert.ok(mac !== undefined && vtepMac(loser) !== mac);
    // As a service manager would.
    assert.match(await startRefused(loser), /public IP 10\.0\.2\.15/);
    assert.ok(winner.agentPid !== undefined && vtepMac(winner) === mac && vtepMac(loser) !== mac);

    await winner.stopAgent();
    await Promise.all(lab.nodes.map((node) => node.startAgent(NEVER, ["--iface", "eth0"])));
    assert.ok(vtepMac(winner) === mac && vtepMac(loser) !== mac);
    const pods = await Promise.all(lab.nodes.map((node) => node.addPod(`on-${node.name}`)));
    await reached(pods[0]!, pods[1]!.address);
    using namespace = pods[0]!.open();
    const pinging = new RunningPing(namespace, ["-c", "3", "-i", "0.2", `${pods[1]!.address}`]);
    assert.deepEqual(await pinging.finish(), { sent: 3, received: 3 });
    return loser.name;
  } catch (error) {
    const logs = lab.nodes.map((node) => `${node.name}:\n${Deno.readTextFileSync(node.logFile)}`);
    throw new Error(`${messageOf(error)}\n${logs.join("\n")}`, { cause: error });
  }
}

/**
 * Starts an agent to which another node objects, and waits until it has ended. On a busy machine it may be ready before
 * the objection comes. Returns what it said.
 */
export async function startRefused(node: LabNode): Promise<string> {
  const before = existsSync(node.logFile) ? Deno.readTextFileSync(node.logFile).length : 0;
  await node.startAgent(NEVER).catch(() => {});
  await eventually(`the agent of ${node.name} ends`, () => node.agentPid === undefined);
  return Deno.readTextFileSync(node.logFile).slice(before);
}

/** The MAC of a node's VTEP; `undefined` if it has none. */
function vtepMac(node: LabNode): string | undefined {
  return ipJson(node, "link show type vxlan")[0]?.address;
}

/** Whether a node's agent has ended because another node has its public IP, and said what to do. */
function isRefused(node: LabNode): boolean {
  return node.agentPid === undefined &&
    /public IP 10\.0\.2\.15\b.* --iface /.test(Deno.readTextFileSync(node.logFile));
}
