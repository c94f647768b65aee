/**
 * A whole denim program, with the caller's own backends.
 *
 * @module
 */

import type { ChooseBackends } from "./large_commands.ts";

export type { ChooseBackends };

/**
 * Runs denim with the backends that `choose` names, and ends the process: as the CNI plugin if a container runtime
 * runs the program (`CNI_COMMAND`), else as its arguments say. The exit code is 0 for fine, 1 for failed, 2 for
 * wrong usage or configuration. The whole `main.ts` of a program that has one backend more than denim:
 *
 * ```ts ignore
 * import { runDenim } from "@denim/agent/run-denim";
 * await runDenim(async (builtin) => [...builtin, (await import("./mine.ts")).mine]);
 * ```
 *
 * Each part is loaded only when it is used, and `choose` is called only by commands that need backends: a runtime
 * waits for the plugin at every pod's start.
 *
 * @param choose is given denim's own backends and gives those that net-conf may name; denim's own unless given
 */
export async function runDenim(
  choose: ChooseBackends = (builtin) => builtin,
): Promise<void> {
  if (Deno.env.has("CNI_COMMAND")) {
    const { runPlugin } = await import("@denim/plugin/run");
    await runPlugin();
  } else {
    const { runCommandLine } = await import("./command_line.ts");
    Deno.exit(await runCommandLine(Deno.args, choose));
  }
}
