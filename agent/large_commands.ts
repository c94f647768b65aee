/**
 * The commands that need most of denim. A build has them, and what they need, in a file of its own, which no other command
 * reads.
 *
 * @module
 */

import type { AnyBackend } from "./net_conf.ts";
import { denimProgram } from "./program.ts";

/** Runs a command, with the arguments behind its name, and gives the exit code. */
type Run = (args: readonly string[], choose: ChooseBackends) => Promise<number>;

/** Of denim's own backends, and those that a program adds, the ones that net-conf may name. */
export type ChooseBackends = (
  builtin: readonly AnyBackend[],
) => readonly AnyBackend[] | Promise<readonly AnyBackend[]>;

/** Each command loads its modules only when it is used. */
export const LARGE_COMMANDS = {
  agent: async (args, choose) => {
    const [{ runAgent }, backends] = [await import("./run_agent.ts"), await loadBackends(choose)];
    return await runAgent({ backends, args });
  },
  demo: async (args, choose) => {
    const [{ runDemo }, backends] = [await import("./demo/demo.ts"), await loadBackends(choose)];
    return await runDemo(args, denimProgram("agent", Deno.mainModule), backends);
  },
  config: async (args, choose) =>
    (await import("./config_command.ts")).runConfig(await loadBackends(choose), args),
  leases: async (args) => (await import("./leases_command.ts")).runLeases(args),
  doctor: async (args) => (await import("./doctor_command.ts")).runDoctor(args),
  install: async (args) => (await import("./install_command.ts")).runInstall(args, Deno.mainModule),
  uninstall: async (args) => (await import("./uninstall_command.ts")).runUninstall(args),
} satisfies Record<string, Run>;

async function loadBackends(choose: ChooseBackends): Promise<readonly AnyBackend[]> {
  return choose((await import("@denim/backends")).builtin);
}
