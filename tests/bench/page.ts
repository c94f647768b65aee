/**
 * How fast the page and `denim peers` are in a large mesh: one node of a laboratory, with the real agent, a browser, and
 * another node whose kernel plays all peers.
 *
 * @module
 */

import type { LabNode } from "@denim/agent/lab";
import { bundle } from "../../.ci/bundle.ts";
import { AGENT_ORIGIN } from "../../agent/agent_client.ts";
import { PageGate } from "../../agent/page/page_gate.ts";
import type { StatusReport } from "../../agent/status_report.ts";
import { Browser } from "../support/browser.ts";
import { eventually } from "../support/wait.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { deployed } from "./contestants.ts";
import { makeLeases } from "./converge.ts";
import { denimPeers, meshLab, type MeshOptions, playPeers, type Program } from "./mesh.ts";
import { processorInSecond } from "./processor.ts";
import { type Measure, Samples } from "./stats.ts";

/** How often each thing is asked in a run. */
const ASKED = 5;
/** How long a node may take to follow all peers. */
const PATIENCE_MS = 60_000;

/** Measures, and says on the way how it goes. */
export async function page(
  options: MeshOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Measure[]> {
  const samples = new Samples();
  using folder = new TempFolder();
  await bundle(folder.path);
  const denim = deployed("agent", folder.path);
  for (let run = 1; run <= options.runs; run++) {
    for (const count of options.peers) {
      await runOnce(denim, count, options, samples, signal);
      say(`run ${run} of ${options.runs}, ${count} peers`);
    }
  }
  return samples.measures;
}

async function runOnce(
  denim: Program,
  count: number,
  { seconds }: MeshOptions,
  samples: Samples,
  signal: AbortSignal,
): Promise<void> {
  await using lab = await meshLab(denim);
  const [node, peers] = lab.nodes as [LabNode, LabNode];
  await node.startAgent(signal);
  playPeers(lab, node, peers);
  new SqliteLeases(`${lab.directory}/denim.db`).put(makeLeases(count).leases);
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: node.apiSocket } });
  await eventually("all peers are followed", async () => {
    const status: StatusReport = await (await fetch(`${AGENT_ORIGIN}/status`, { client })).json();
    return status.node?.peers.followed === count;
  }, PATIENCE_MS);
  const add = (what: string, unit: Measure["unit"], sample: number) =>
    samples.add(`${count} peers: ${what}`, unit, sample);
  for (let time = 0; time < ASKED; time++) {
    add("a program that does nothing", "ms", await timeOf(() => idleProgram(node)));
    add("denim peers --json", "ms", await timeOf(() => denimPeers(denim, node)));
  }
  await using gate = new PageGate(node.apiSocket);
  await using browser = await Browser.start();
  for (let time = 0; time < ASKED; time++) {
    await using tab = await browser.open();
    await tab.go(gate.url);
    const shown = "performance.getEntriesByName('shown')[0]?.startTime";
    await tab.until("the page", shown, PATIENCE_MS);
    add("page, from the address to the picture", "ms", await tab.read<number>(shown));
  }
  await using tab = await browser.open();
  const watched = async (what: string) => {
    const usedUs = (await processorInSecond(node, seconds, signal)).all;
    add(`agent's processor, of one core, ${what}`, "%", usedUs / 10_000);
  };
  await watched("nobody looks");
  await tab.go(gate.url);
  await tab.until("the page", "document.documentElement.dataset.shown", PATIENCE_MS);
  await watched("one looks");
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

/** What it costs to start Deno here, which no command of denim's can go below. */
async function idleProgram(node: LabNode): Promise<void> {
  const main = `${node.directory}/idle.js`;
  Deno.writeTextFileSync(main, "");
  await new Deno.Command(Deno.execPath(), { args: ["run", main], stdin: "null" }).output();
}
