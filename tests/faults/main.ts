/**
 * `deno task faults`: random faults in a row, as many as one likes.
 *
 * @module
 */

import { flag } from "../../agent/flag_table.ts";
import { oneOf, toggle, wholeNumber } from "../../agent/flag_types.ts";
import { requireRoot } from "../../agent/privileges.ts";
import { runCommand } from "../../agent/run_command.ts";
import { summarize } from "../bench/stats.ts";
import { BACKENDS } from "./cluster.ts";
import { describeGrowth, randomFaults } from "./random_faults.ts";
import { OUTAGES, type StoreName } from "./store_at_fault.ts";

const STORES = Object.keys(OUTAGES) as StoreName[];
const HELP = `Usage: deno task faults [flags]

Random faults in a row on three nodes with real agents, in network namespaces of their own: the
kernel's state, agents, leases and their store. After each fault all pods reach each other within 2 s,
and at the end nothing of it is left. Each fault is printed with the seed and its number: the same seed
gives the same faults, so --count with the number of one that failed leads there again.
`;

const number = wholeNumber(1, 999_999_999);
/** The flags of `deno task faults`. */
export const FLAGS = [
  flag("count", number, "how many faults", "1000"),
  flag("seed", number, "what the faults follow from", "1"),
  flag("backend", oneOf(BACKENDS), "net-conf's Backend.Type", BACKENDS[0]),
  flag("store", oneOf(STORES), "where leases live", STORES[0]!),
  flag("ipv6", toggle, "IPv6 beside IPv4"),
] as const;

function main(args: readonly string[]): Promise<number> {
  return runCommand({
    name: "deno task faults",
    help: HELP,
    flags: FLAGS,
    stopped: "stopped; everything is removed",
    async run({ values }, signal) {
      requireRoot("deno task faults", { namespaces: true });
      const startMs = performance.now();
      const result = await randomFaults(values, console.log, signal);
      const { min, median, max } = summarize(result.healedMs);
      const seconds = ((performance.now() - startMs) / 1000).toFixed();
      console.log(
        `\n${values.count} faults in ${seconds} s; healed after ${min.toFixed()} ms at the least, ` +
          `${median.toFixed()} ms in the middle, ${max.toFixed()} ms at the most\n` +
          describeGrowth(result),
      );
      return 0;
    },
  }, args);
}

if (import.meta.main) Deno.exit(await main(Deno.args));
