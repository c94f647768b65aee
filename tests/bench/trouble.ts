/**
 * What becomes of a large cluster's store when all nodes fall silent together and come back: a real kube-apiserver, and a
 * node of a laboratory whose peers another node's kernel plays. What the node writes meanwhile, what that costs it, and
 * how long it takes to read what all nodes would have written.
 *
 * @module
 */

import { AgentConnection } from "../../agent/agent_client.ts";
import type { LabNode } from "@denim/agent/lab";
import { formatReport, type MeshReport, type Trouble } from "../../agent/mesh/mesh_report.ts";
import { sleep } from "@denim/core";
import { iproute } from "../support/iproute.ts";
import { all } from "../support/wait.ts";
import { type KubeLab, PREFIX } from "../support/kube_lab.ts";
import { largeLab, largeNode, memoryMB } from "./kubernetes.ts";
import { playPeers } from "./mesh.ts";
import { processUs } from "./processor.ts";
import { type Measure, Samples } from "./stats.ts";

/** How the bench is run. */
export interface TroubleOptions {
  /** The number of nodes, but for the one that is watched. */
  readonly nodes: number;
  /** How often everything is measured. */
  readonly runs: number;
}

/** To look costs the agent something, too. */
const POLL_MS = 5_000;
const EVENTS = "/api/v1/namespaces/default/events";
/** How often the mesh is asked for. */
const ASKED = 5;
/** Longer than an answer about the mesh is remembered. */
const FORGOTTEN_MS = 6_000;
/** Events that are made at the same time. */
const MAKERS = 16;

/** Measures, and says on the way how it goes. */
export async function trouble(
  { nodes, runs }: TroubleOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Measure[]> {
  const samples = new Samples();
  await using cluster = await largeLab();
  const [own, peers] = cluster.nodes as [LabNode, LabNode];
  await cluster.register(own.name, ["10.255.0.0/24"]);
  say(`making ${nodes} nodes`);
  await cluster.makeNodes(Array.from({ length: nodes }, (_, index) => largeNode(index)));
  await own.startAgent(signal);
  playPeers(cluster.lab, own, peers);
  const wire = (state: "up" | "down") =>
    iproute("ip", `${cluster.lab.prefix}-net`, `link set ${peers.name} ${state}`);
  const watched = new Watched(cluster, own, signal);
  await watched.until(({ health }) => health("ok") === nodes);
  say("all peers answer");
  for (let run = 1; run <= runs; run++) {
    for (
      const [what, state, health] of [["fall silent", "down", "no-answer"], [
        "come back",
        "up",
        "ok",
      ]] as const
    ) {
      const [before, beforeUs] = [await watched.look(), processUs(own.agentPid!).all];
      wire(state);
      const foundMs = await watched.until((now) => now.health(health) === nodes);
      const told = health === "ok" ? 0 : nodes;
      const toldMs = await watched.until((now) => now.told === told);
      const after = await watched.look();
      const add = (measured: string, unit: Measure["unit"], value: number) =>
        samples.add(`${nodes} peers ${what}: ${measured}`, unit, value);
      add("until all are found so", "s", foundMs / 1000);
      add("until the store has it, more", "s", toldMs / 1000);
      add("requests to the API server meanwhile", "", after.requests - before.requests);
      add("probes in a second", "", (after.probes - before.probes) / ((foundMs + toldMs) / 1000));
      add(
        "agent's processor, of one core",
        "%",
        (processUs(own.agentPid!).all - beforeUs) / 10 / (foundMs + toldMs),
      );
      add("agent's memory", "MB", memoryMB(own.agentPid!, "VmRSS"));
      say(`run ${run} of ${runs}: all peers ${what}`);
    }
  }
  say(`making ${nodes} notes`);
  const bytes = await makeNotes(cluster, nodes);
  samples.add(`${nodes} notes: one of them`, "kB", bytes / 1000);
  for (let time = 0; time < ASKED; time++) {
    await sleep(FORGOTTEN_MS, signal);
    const beforeUs = processUs(own.agentPid!).all;
    const askedMs = performance.now();
    const { troubles } = await watched.ask<MeshReport>("/mesh");
    samples.add(`${nodes} notes: the mesh, from all of them`, "ms", performance.now() - askedMs);
    samples.add(
      `${nodes} notes: agent's processor for it`,
      "ms",
      (processUs(own.agentPid!).all - beforeUs) / 1000,
    );
    if (troubles.length < nodes) say(`${troubles.length} of ${nodes} nodes are named`);
  }
  samples.add(`${nodes} notes: agent's memory after it`, "MB", memoryMB(own.agentPid!, "VmRSS"));
  return samples.measures;
}

/** What every node would write if it found all others in trouble; the length of one, in bytes. */
async function makeNotes({ server }: KubeLab, nodes: number): Promise<number> {
  const subnet = (index: number) => `10.${128 + (index >> 8)}.${index & 255}.0/24`;
  const waiting = Array.from({ length: nodes }, (_, index) => index);
  let bytes = 0;
  await all(Array.from({ length: MAKERS }, async () => {
    for (let index = waiting.pop(); index !== undefined; index = waiting.pop()) {
      const from = index;
      const troubles = Array.from({ length: nodes - 1 }, (_, other): Trouble => ({
        subnet: subnet((from + 1 + other) % nodes),
        health: "no-answer",
        sinceMs: Date.now(),
      }));
      const text = formatReport(troubles, nodes, Date.now());
      const key = subnet(from).replace("/", "-");
      const note = JSON.stringify({ key, until: Date.now() + 600_000, text });
      bytes = note.length;
      await server.admin("POST", EVENTS, {
        metadata: { name: `large-${from}.denim`, annotations: { [`${PREFIX}/denim-note`]: note } },
        involvedObject: { apiVersion: "v1", kind: "Node", name: `large-${from}` },
        type: "Warning",
        reason: "PeersInTrouble",
      });
    }
  }));
  return bytes;
}

/** What is seen of an agent at one time. */
interface Sight {
  /** How many peers probes find so. */
  readonly health: (health: string) => number;
  /** How many requests the store has made, and how many probes were sent. */
  readonly requests: number;
  readonly probes: number;
  /** How many peers in trouble its Event tells of. */
  readonly told: number;
}

/** An agent, and what it writes. */
class Watched {
  readonly #cluster: KubeLab;
  readonly #node: LabNode;
  readonly #signal: AbortSignal;

  constructor(cluster: KubeLab, node: LabNode, signal: AbortSignal) {
    this.#cluster = cluster;
    this.#node = node;
    this.#signal = signal;
  }

  async ask<Answer>(route: string): Promise<Answer> {
    return JSON.parse(await this.#text(route));
  }

  async #text(route: string): Promise<string> {
    using agent = new AgentConnection(this.#node.apiSocket);
    return await agent.ask(route, this.#signal);
  }

  async look(): Promise<Sight> {
    const text = await this.#text("/metrics");
    const sum = (series: string) =>
      [...text.matchAll(new RegExp(`^${series}(?:\\{.*\\})? (\\S+)$`, "gm"))]
        .reduce((sum, [, value]) => sum + Number(value), 0);
    const health = (health: string) => sum(`denim_probed_peers\\{health="${health}"\\}`);
    const [requests, probes] = [sum("denim_store_requests_total"), sum("denim_probes_sent_total")];
    return { health, requests, probes, told: await this.#told() };
  }

  async #told(): Promise<number> {
    const selector = `fieldSelector=reason=PeersInTrouble,involvedObject.name=${this.#node.name}`;
    const { items } = await this.#cluster.server.admin("GET", `${EVENTS}?${selector}`) as {
      items: readonly { readonly message: string }[];
    };
    return items.reduce((sum, { message }) => sum + Number.parseInt(message), 0);
  }

  /** Waits for a sight. Resolves to the time that it took, in milliseconds. */
  async until(isSeen: (sight: Sight) => boolean): Promise<number> {
    const startMs = performance.now();
    while (!isSeen(await this.look())) await sleep(POLL_MS, this.#signal);
    return performance.now() - startMs;
  }
}
