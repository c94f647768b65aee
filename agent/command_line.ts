/**
 * denim's command line.
 *
 * @module
 */

import { formatColumns } from "./columns.ts";
import type { AnyBackend } from "./net_conf.ts";
import { denimProgram } from "./program.ts";

/** One of denim's commands. */
interface CommandEntry {
  /** What `denim help` says about it. */
  readonly summary: string;
  /** Runs it, with the arguments behind its name, and gives the exit code. */
  run(
    args: readonly string[],
    loadBackends: () => Promise<readonly AnyBackend[]>,
  ): number | Promise<number>;
}

/** Each command loads its modules only when it is used. */
const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  agent: {
    summary: "lease this node a subnet, and route pods' packets to and from the other nodes",
    run: async (args, loadBackends) => {
      const [{ runAgent }, backends] = [await import("./run_agent.ts"), await loadBackends()];
      return await runAgent({ backends, args });
    },
  },
  demo: {
    summary: "make a small cluster on this machine, and show that its pods reach each other",
    run: async (args) => {
      const { runDemo } = await import("./demo/demo.ts");
      return await runDemo(args, denimProgram("agent", Deno.mainModule));
    },
  },
  config: {
    summary: "read, check and write the cluster's net-conf",
    run: async (args, loadBackends) =>
      (await import("./config_command.ts")).runConfig(await loadBackends(), args),
  },
  leases: {
    summary: "list the nodes' leases of subnets; reserve a subnet, release one",
    run: async (args) => (await import("./leases_command.ts")).runLeases(args),
  },
  status: {
    summary: "show how this node is",
    run: async (args) => (await import("./status_command.ts")).runStatus(args),
  },
  peers: {
    summary: "list the other nodes, and how each is reached",
    run: async (args) => (await import("./peers_command.ts")).runPeers(args),
  },
  mesh: {
    summary: "list what all nodes together find wrong between them",
    run: async (args) => (await import("./mesh_command.ts")).runMesh(args),
  },
  doctor: {
    summary: "say what is wrong with this host, and how to mend it",
    run: async (args) => (await import("./doctor_command.ts")).runDoctor(args),
  },
  install: {
    summary: "make this machine a node: the CNI plugin and its configuration",
    run: async (args) => (await import("./install_command.ts")).runInstall(args, Deno.mainModule),
  },
  uninstall: {
    summary: "take away what denim left on this machine",
    run: async (args) => (await import("./uninstall_command.ts")).runUninstall(args),
  },
  version: {
    summary: "print the version; with --json also Deno's, and the commit that denim was built from",
    run: async (args) => (await import("./version_command.ts")).runVersion(args),
  },
  help: { summary: "print this", run: () => print(help()) },
};

const OTHER_NAMES: Readonly<Record<string, string>> = {
  "--version": "version",
  "--help": "help",
  "-h": "help",
};

function help(): string {
  const rows = Object.entries(COMMANDS).map(([name, { summary }]) => [name, summary]);
  return `denim connects the pods of a cluster: each pod has an address that all others reach.

Usage: denim COMMAND [flags]

${formatColumns(rows, { indent: "  " })}

denim COMMAND --help says more. With CNI_COMMAND set, denim is a CNI plugin.
`;
}

function print(text: string): number {
  console.log(text);
  return 0;
}

/**
 * Runs a command and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or configuration.
 *
 * @param loadBackends loads those that net-conf may name; called only for a command that needs them
 */
export async function runCommandLine(
  args: readonly string[],
  loadBackends: () => Promise<readonly AnyBackend[]>,
): Promise<number> {
  const [given, ...rest] = args;
  if (given === undefined) {
    console.error(help());
    return 2;
  }
  const name = OTHER_NAMES[given] ?? given;
  if (Object.hasOwn(COMMANDS, name)) return await COMMANDS[name]!.run(rest, loadBackends);
  console.error(`${given}: denim has no such command; see denim help`);
  return 2;
}
