/**
 * A program that is all of denim, with backends of one's own.
 *
 * @module
 */

import type { AnyBackend } from "./net_conf.ts";

/**
 * Runs denim with the backends that `choose` names: the CNI plugin where a container runtime runs the program
 * (`CNI_COMMAND`), else what its arguments say, and then ends it with the exit code: 0 fine, 1 failed,
 * 2 wrong usage or configuration. All of a program's `main.ts` that has one backend more than denim:
 *
 * ```ts ignore
 * import { runDenim } from "@denim/agent/run-denim";
 * await runDenim(async (builtin) => [...builtin, (await import("./mine.ts")).mine]);
 * ```
 *
 * Each part is loaded only when it is used, `choose` called only where backends matter: a runtime waits for the
 * plugin at every pod's start.
 *
 * @param choose is given denim's own backends and gives those that net-conf may name; denim's own unless given
 */
export async function runDenim(
  choose: (
    builtin: readonly AnyBackend[],
  ) => readonly AnyBackend[] | Promise<readonly AnyBackend[]> = (builtin) => builtin,
): Promise<void> {
  if (Deno.env.has("CNI_COMMAND")) {
    const { runPlugin } = await import("@denim/plugin");
    await runPlugin();
  } else {
    const { runCommandLine } = await import("./command_line.ts");
    const { builtin } = await import("@denim/backends");
    Deno.exit(await runCommandLine(Deno.args, await choose(builtin)));
  }
}
