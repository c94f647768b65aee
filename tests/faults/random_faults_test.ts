/** Random faults in a row, always the same ones: fifty of the thousand that `deno task faults` does. */

import { report } from "../support/report.ts";
import { rootTest } from "../support/root_test.ts";
import { summarize } from "../bench/stats.ts";
import { describeGrowth, randomFaults } from "./random_faults.ts";
import { NEVER } from "../support/wait.ts";

rootTest(
  "50 random faults on three nodes: all pods talk after each, and nothing is left",
  async () => {
    const options = { backend: "vxlan", store: "sqlite", count: 50, seed: 8, ipv6: true } as const;
    const result = await randomFaults(options, () => {}, NEVER);
    const { median, max } = summarize(result.healedMs);
    report(
      `50 random faults with vxlan: healed after ${median.toFixed()} ms in the middle, ${max.toFixed()} ms at the ` +
        `most; ${describeGrowth(result)}`,
    );
  },
);
