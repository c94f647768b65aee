/**
 * denim's command line.
 *
 * @module
 */

import type { AnyBackend } from "./net_conf.ts";
import { denimProgram } from "./program.ts";
import { runAgent } from "./run_agent.ts";
import config from "./deno.json" with { type: "json" };

const HELP = `denim: pods on different nodes talk to each other

Usage: denim COMMAND [flags]

  agent     lease this node a subnet and keep its way to the others
  demo      make a small cluster on this machine and show that its pods talk
  config    read, check and write the cluster's net-conf
  leases    list who holds which subnet; reserve one, release one
  version   print the version
  help      print this

denim COMMAND --help says more. With CNI_COMMAND set, denim is a CNI plugin.
`;

/**
 * Runs a command and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or configuration.
 *
 * @param backends those that net-conf may name
 */
export async function runCommandLine(
  args: readonly string[],
  backends: readonly AnyBackend[],
): Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case "agent":
      return await runAgent({ backends, args: rest });
    case "demo":
      return await (await import("./demo/demo.ts")).runDemo(
        rest,
        denimProgram("agent", Deno.mainModule),
      );
    case "config":
      return await (await import("./config_command.ts")).runConfig(backends, rest);
    case "leases":
      return await (await import("./leases_command.ts")).runLeases(rest);
    case "version":
    case "--version":
      console.log(`denim ${config.version}`);
      return 0;
    case "help":
    case "--help":
    case "-h":
      console.log(HELP);
      return 0;
    default:
      console.error(
        command === undefined ? HELP : `${command}: no such command of denim; see denim help`,
      );
      return 2;
  }
}
