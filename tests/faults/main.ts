/**
 * `deno task faults`: random faults in a row, as many as one likes.
 *
 * @module
 */

import { ConfigError } from "@denim/core";
import { parseArgs } from "@std/cli/parse-args";
import { requireRoot } from "../../agent/privileges.ts";
import { runCommand } from "../../agent/run_command.ts";
import { summarize } from "../bench/stats.ts";
import { BACKENDS } from "./cluster.ts";
import { describeGrowth, randomFaults, type RandomFaultsOptions } from "./random_faults.ts";
import { OUTAGES, type StoreName } from "./store_at_fault.ts";

const HELP = `Usage: deno task faults [flags]

Random faults in a row on three nodes with real agents, in network namespaces of their own: the kernel's state,
agents, leases and their store. After each all pods talk within 2 s, and at the end nothing is left of it. Each is
printed with the seed and its number: the same seed gives the same faults, so that --count with the number of one
that failed leads there again.

  --count N        how many (1000)
  --seed N         what they follow from (1)
  --backend NAME   ${BACKENDS.join(", ")} (vxlan)
  --store NAME     ${Object.keys(OUTAGES).join(", ")} (sqlite)
  --ipv6           IPv6 beside IPv4
  --help           print this and exit
`;

/** Reads the arguments. Throws a ConfigError that names the one that is wrong. */
export function parseFlags(args: readonly string[]): RandomFaultsOptions | "help" {
  const strings = ["count", "seed", "backend", "store"] as const;
  const parsed = parseArgs([...args], {
    boolean: ["help", "ipv6"],
    string: strings,
    unknown: (arg) => {
      throw new ConfigError(`${arg.split("=")[0]}: no such flag; see deno task faults --help`);
    },
  });
  if (parsed.help) return "help";
  const number = (name: typeof strings[number], usual: string): number => {
    const text = parsed[name] ?? usual;
    if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
    throw new ConfigError(`--${name} ${text}: must be a whole number from 1 to 999999999`);
  };
  const one = <T extends string>(name: typeof strings[number], all: readonly T[]): T => {
    const text = parsed[name] ?? all[0];
    const found = all.find((candidate) => candidate === text);
    if (found !== undefined) return found;
    throw new ConfigError(`--${name} ${text}: must be one of ${all.join(", ")}`);
  };
  return {
    count: number("count", "1000"),
    seed: number("seed", "1"),
    backend: one("backend", BACKENDS),
    store: one("store", Object.keys(OUTAGES) as StoreName[]),
    ipv6: parsed.ipv6,
  };
}

function main(args: readonly string[]): Promise<number> {
  return runCommand("deno task faults", "stopped; everything is removed", async (signal) => {
    const options = parseFlags(args);
    if (options === "help") {
      console.log(HELP);
      return 0;
    }
    requireRoot("deno task faults", { namespaces: true });
    const startMs = performance.now();
    const result = await randomFaults(options, console.log, signal);
    const { min, median, max } = summarize(result.healedMs);
    const seconds = ((performance.now() - startMs) / 1000).toFixed();
    console.log(
      `\n${options.count} faults in ${seconds} s; healed after ${min.toFixed()} ms at the least, ` +
        `${median.toFixed()} ms in the middle, ${max.toFixed()} ms at the most\n` +
        describeGrowth(result),
    );
    return 0;
  });
}

if (import.meta.main) Deno.exit(await main(Deno.args));
