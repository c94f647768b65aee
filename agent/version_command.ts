/**
 * `denim version`.
 *
 * @module
 */

import config from "./deno.json" with { type: "json" };
import { flag } from "./flag_table.ts";
import { toggle } from "./flag_types.ts";
import { BUILD } from "./program.ts";
import { runCommand } from "./run_command.ts";

const FLAGS = [flag("json", toggle, "print what is known of this build, as JSON")] as const;

/** Runs `denim version`, and resolves to the exit code: 0 fine, 2 wrong usage. */
export async function runVersion(args: readonly string[]): Promise<number> {
  return await runCommand({
    name: "denim version",
    help: "Usage: denim version [--json]\n",
    flags: FLAGS,
    stopped: "stopped",
    run({ values }) {
      const { version } = config;
      const build = {
        denim: version,
        revision: BUILD?.revision ?? null,
        deno: Deno.version.deno,
        target: Deno.build.target,
      };
      console.log(values.json ? JSON.stringify(build) : `denim ${version}`);
      return Promise.resolve(0);
    },
  }, args);
}
