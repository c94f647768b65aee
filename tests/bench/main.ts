/**
 * `deno task bench`: how fast denim is on this machine.
 *
 * @module
 */

import { ConfigError } from "@denim/core";
import { flag, type FlagType, type ParsedFlags } from "../../agent/flag_table.ts";
import { single, text, wholeNumber } from "../../agent/flag_types.ts";
import { pathOfArgument } from "../../.ci/bundle.ts";
import { requireRoot } from "../../agent/privileges.ts";
import { runCommand } from "../../agent/run_command.ts";
import { cni, type CniOptions, MAX_PODS } from "./cni.ts";
import { kubernetes } from "./kubernetes.ts";
import { converge, type ConvergeOptions, MAX_PEERS } from "./converge.ts";
import { idle } from "./idle.ts";
import { mesh } from "./mesh.ts";
import { draw, type Figure } from "./plot.ts";
import { page } from "./page.ts";
import { formatTable, type Machine, machine, type Measure, writeReport } from "./stats.ts";
import { trouble } from "./trouble.ts";
import { udp } from "./udp.ts";
import { wireguard } from "./wireguard.ts";

const MAX_SECONDS = 600;
/** How long kubernetes' nodes write their status. */
const WRITING_S = 60;
const HELP = `Usage: deno task bench [converge] [cni] [udp] [wireguard] [mesh] [idle]
                       [page] [kubernetes] [trouble] [flags]

  converge  from the start of the agent's process, with leases of many peers in etcd or the embedded
            store, until every neighbour, FDB entry, nexthop and route is in the kernel: time, processor,
            memory; then one more peer, until its route. As denim install leaves the agent, in turns with
            another checkout's (--against) and with flanneld, if FLANNEL_BIN names its folder
  cni       ADD and DEL of denim's CNI plugin, in turns with bridge and host-local of Debian's
            containernetworking-plugins
  udp       the UDP backend's throughput, round trips and idle processor, in turns with kernel VXLAN's;
            needs iperf3
  wireguard the WireGuard backend's throughput and round trips, in turns with wireguard-go set up by
            hand; needs iperf3, wireguard-go and wg
  mesh      what an agent needs to probe its peers, which ask as well, only answer, or are silent, and how fast
            denim peers is
  idle      what an agent needs while nothing happens, with its peers' leases in SQLite, etcd and Kubernetes
            (KUBE_APISERVER, or a stand-in); --seconds 600 --peers 5000 sees every timer
  page      how fast a browser shows the page, what that costs the agent, and how fast denim peers is, in
            turns with a program that does nothing; needs chromium
  kubernetes  a cluster of 5,000 nodes on a real kube-apiserver (KUBE_APISERVER): from the agent's start to
            all routes, then 50 writes of nodes' status a second; flanneld's too, if FLANNEL_BIN names its
            folder
  trouble   in such a cluster all nodes but one fall silent together and come back: when the agent of that
            one has found it and told it, what that takes, and how long it reads what all would tell

converge and cni run unless one is named. Prints tables, and writes every sample to
tests/bench/results/NAME.json. Works in network namespaces of its own, and removes everything at the
end. A busy machine is a slow one.
`;

const BENCHES = [
  "converge",
  "cni",
  "udp",
  "wireguard",
  "mesh",
  "idle",
  "page",
  "kubernetes",
  "trouble",
] as const;
/** What runs if none is named. */
const USUAL: readonly typeof BENCHES[number][] = ["converge", "cni"];

const FLAGS = [
  flag("runs", wholeNumber(1, 1000), "how often everything is measured", "5"),
  flag(
    "peers",
    wholeNumbers(1, MAX_PEERS),
    `converge, mesh, idle, page: the numbers of peers, comma-separated, each at most ${MAX_PEERS}`,
    "100,1000,5000,20000",
  ),
  flag("against", text("FOLDER"), "converge: another checkout of denim, which takes its turns"),
  flag(
    "plot",
    text("FOLDER"),
    "converge: draw costs against the number of peers, as SVG, into here",
  ),
  flag(
    "pods",
    wholeNumber(1, MAX_PODS),
    `cni: the pods that are attached one at a time, at most ${MAX_PODS}`,
    "20",
  ),
  flag(
    "at-once",
    wholeNumber(1, MAX_PODS),
    `cni: the pods that are attached at the same time, at most ${MAX_PODS}`,
    "16",
  ),
  flag(
    "seconds",
    wholeNumber(1, MAX_SECONDS),
    "udp, wireguard: how long each stream is sent; mesh, idle, page: how long the agent is watched; at " +
      `most ${MAX_SECONDS}`,
    "4",
  ),
  flag(
    "nodes",
    wholeNumber(1, MAX_PEERS),
    `kubernetes, trouble: the number of nodes, at most ${MAX_PEERS}`,
    "5000",
  ),
] as const;

/** What the benches were told. */
export interface Plan extends ConvergeOptions, CniOptions {
  /** Which of them to run. */
  readonly benches: readonly typeof BENCHES[number][];
  /** Where pictures go, if they are wanted. */
  readonly plot: string | undefined;
  /** How long udp and wireguard send each stream, in seconds. */
  readonly seconds: number;
  /** How many nodes kubernetes' cluster has. */
  readonly nodes: number;
}

/** Whole numbers within bounds, separated by commas; each counts once. */
function wholeNumbers(min: number, max: number): FlagType<readonly number[] | undefined> {
  const number = wholeNumber(min, max);
  return single("N,N,...", (text) => [
    ...new Set(text.split(",").map((part) => number.read([part])!)),
  ]);
}

function plan({ values, operands }: ParsedFlags<typeof FLAGS[number]>): Plan {
  const { runs, peers, against, plot, pods, "at-once": atOnce, seconds, nodes } = values;
  const named = operands.map((name) => {
    const bench = BENCHES.find((candidate) => candidate === name);
    if (bench !== undefined) return bench;
    throw new ConfigError(`${name}: no such bench; there are ${BENCHES.join(", ")}`);
  });
  const benches = named.length > 0 ? [...new Set(named)] : USUAL;
  return { benches, runs, peers, against, plot, pods, atOnce, seconds, nodes };
}

/**
 * Runs benches; the exit code: 0 measured, 1 something failed, 2 wrong usage.
 *
 * @param measure runs what the arguments ask for
 */
export function runBench(
  args: readonly string[],
  measure: (plan: Plan, signal: AbortSignal) => Promise<void> = measureAll,
): Promise<number> {
  return runCommand({
    name: "deno task bench",
    help: HELP,
    flags: FLAGS,
    takesOperands: true,
    stopped: "stopped; everything is removed",
    async run(flags, signal) {
      await measure(plan(flags), signal);
      return 0;
    },
  }, args);
}

async function measureAll(plan: Plan, signal: AbortSignal): Promise<void> {
  requireRoot("deno task bench", { namespaces: true });
  for (const name of plan.benches) await runOne(name, plan, signal);
}

async function runOne(
  bench: typeof BENCHES[number],
  plan: Plan,
  signal: AbortSignal,
): Promise<void> {
  const at = new Date();
  const where = machine();
  console.log(`\n${bench}: ${describe(where)}`);
  const say = (line: string) => console.log(`· ${line}`);
  const { runs, peers, against, plot, pods, atOnce, seconds, nodes } = plan;
  let comparison: readonly string[] = [];
  let measures: readonly Measure[];
  let settings: Record<string, unknown>;
  if (bench === "converge") {
    settings = { runs, peers, against };
    const result = await converge({ runs, peers, against }, say, signal);
    ({ measures, comparison } = result);
    if (plot !== undefined) drawAll(result.figures, pathOfArgument(plot));
  } else if (bench === "udp" || bench === "wireguard") {
    settings = { runs, seconds };
    const run = bench === "udp" ? udp : wireguard;
    ({ measures, comparison } = await run({ runs, seconds }, say, signal));
  } else if (bench === "mesh") {
    settings = { runs, peers, seconds };
    measures = await mesh({ runs, peers, seconds }, say, signal);
  } else if (bench === "idle") {
    settings = { runs, peers, seconds };
    measures = await idle({ runs, peers, seconds }, say, signal);
  } else if (bench === "page") {
    settings = { runs, peers, seconds };
    measures = await page({ runs, peers, seconds }, say, signal);
  } else if (bench === "kubernetes") {
    settings = { runs, nodes };
    measures = await kubernetes({ runs, nodes, seconds: WRITING_S }, say, signal);
  } else if (bench === "trouble") {
    settings = { runs, nodes };
    measures = await trouble({ runs, nodes }, say, signal);
  } else {
    const result = await cni({ runs, pods, atOnce }, say, signal);
    settings = { runs, pods, atOnce, programs: result.programs };
    measures = result.measures;
  }
  const path = await writeReport({ bench, settings, at, machine: where, measures });
  console.log(
    `\n${[formatTable(measures), ...comparison].join("\n")}\n\nEvery sample is in ${path}`,
  );
}

function drawAll(figures: readonly Figure[], folder: string): void {
  Deno.mkdirSync(folder, { recursive: true });
  for (const figure of figures) {
    Deno.writeTextFileSync(`${folder}/${figure.name}.svg`, draw(figure));
  }
}

function describe({ cores, processor, kernel, deno, load }: Machine): string {
  return `${cores} cores (${processor}), Linux ${kernel}, Deno ${deno}, load ${load.toFixed(2)}`;
}

if (import.meta.main) Deno.exit(await runBench(Deno.args));
