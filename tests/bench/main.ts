/**
 * `deno task bench`: how fast denim is on this machine.
 *
 * @module
 */

import { ConfigError } from "@denim/core";
import { parseArgs } from "@std/cli/parse-args";
import { requireRoot } from "../../agent/privileges.ts";
import { runCommand } from "../../agent/run_command.ts";
import { cni, type CniOptions, MAX_PODS } from "./cni.ts";
import { converge, type ConvergeOptions, MAX_PEERS } from "./converge.ts";
import { formatTable, type Machine, machine, type Measure, writeReport } from "./stats.ts";
import { udp } from "./udp.ts";

const MAX_SECONDS = 600;
const HELP = `Usage: deno task bench [converge] [cni] [udp] [flags]

  converge  leases of 1,000, 5,000 and 20,000 peers put into the store, until every neighbour, FDB
            entry, nexthop and route is in the kernel; then one more peer, until its route, and the
            agent started again
  cni       ADD and DEL of denim's CNI plugin, in turns with bridge and host-local of Debian's
            containernetworking-plugins
  udp       the UDP backend's throughput, round trips and idle processor, in turns with kernel VXLAN's;
            needs iperf3

converge and cni, unless one is named. Prints tables, and writes every sample to tests/bench/results/NAME.json. Works
in network namespaces of its own, and removes everything at the end. A busy machine is a slow one.

  --runs N         how often everything is measured (5)
  --peers N,N,…    converge: the numbers of peers, each at most ${MAX_PEERS} (1000,5000,20000)
  --pods N         cni: the pods that are attached one at a time, at most ${MAX_PODS} (20)
  --at-once N      cni: the pods that are attached at the same time, at most ${MAX_PODS} (16)
  --seconds N      udp: how long each stream is sent, at most ${MAX_SECONDS} (4)
  --help           print this and exit
`;

const BENCHES = ["converge", "cni", "udp"] as const;
/** What runs where none is named. */
const USUAL: readonly typeof BENCHES[number][] = ["converge", "cni"];

/** What the benches were told. */
export interface Flags extends ConvergeOptions, CniOptions {
  /** Which of them to run. */
  readonly benches: readonly ("converge" | "cni" | "udp")[];
  /** How long udp sends each stream, in seconds. */
  readonly seconds: number;
}

/** Reads the arguments. Throws a ConfigError that names the one that is wrong. */
export function parseFlags(args: readonly string[]): Flags | "help" {
  const strings = ["runs", "peers", "pods", "at-once", "seconds"] as const;
  const parsed = parseArgs([...args], {
    boolean: ["help"],
    string: strings,
    collect: strings,
    unknown: (arg) => {
      if (!arg.startsWith("-")) return;
      throw new ConfigError(`${arg.split("=")[0]}: no such flag; see deno task bench --help`);
    },
  });
  if (parsed.help) return "help";
  const numbers = (name: typeof strings[number], usual: string, max: number): number[] => {
    const [text = usual, ...more] = parsed[name];
    if (more.length > 0) throw new ConfigError(`--${name} is given more than once`);
    return text.split(",").map((part) => {
      const value = /^\d{1,9}$/.test(part) ? Number(part) : NaN;
      if (value >= 1 && value <= max) return value;
      throw new ConfigError(`--${name} ${text}: must be whole numbers from 1 to ${max}`);
    });
  };
  const single = (name: typeof strings[number], usual: string, max: number): number => {
    const [value, ...more] = numbers(name, usual, max);
    if (more.length > 0) throw new ConfigError(`--${name} ${parsed[name]}: must be one number`);
    return value!;
  };
  const named = parsed._.map((name) => {
    const bench = BENCHES.find((candidate) => candidate === name);
    if (bench !== undefined) return bench;
    throw new ConfigError(`${name}: no such bench; there are ${BENCHES.join(", ")}`);
  });
  return {
    benches: named.length > 0 ? [...new Set(named)] : USUAL,
    runs: single("runs", "5", 1000),
    peers: [...new Set(numbers("peers", "1000,5000,20000", MAX_PEERS))],
    pods: single("pods", "20", MAX_PODS),
    atOnce: single("at-once", "16", MAX_PODS),
    seconds: single("seconds", "4", MAX_SECONDS),
  };
}

/** Runs benches; the exit code: 0 measured, 1 something failed, 2 wrong usage. */
function runBench(args: readonly string[]): Promise<number> {
  return runCommand("deno task bench", "stopped; everything is removed", async (signal) => {
    const flags = parseFlags(args);
    if (flags === "help") {
      console.log(HELP);
      return 0;
    }
    requireRoot("deno task bench", { namespaces: true });
    for (const name of flags.benches) await runOne(name, flags, signal);
    return 0;
  });
}

async function runOne(
  bench: typeof BENCHES[number],
  flags: Flags,
  signal: AbortSignal,
): Promise<void> {
  const at = new Date();
  const where = machine();
  console.log(`\n${bench}: ${describe(where)}`);
  const say = (line: string) => console.log(`· ${line}`);
  const { runs, peers, pods, atOnce, seconds } = flags;
  let comparison: readonly string[] = [];
  let measures: readonly Measure[];
  let settings: Record<string, unknown>;
  if (bench === "converge") {
    settings = { runs, peers };
    measures = await converge({ runs, peers }, say, signal);
  } else if (bench === "udp") {
    settings = { runs, seconds };
    ({ measures, comparison } = await udp({ runs, seconds }, say, signal));
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

function describe({ cores, processor, kernel, deno, load }: Machine): string {
  return `${cores} cores (${processor}), Linux ${kernel}, Deno ${deno}, load ${load.toFixed(2)}`;
}

if (import.meta.main) Deno.exit(await runBench(Deno.args));
