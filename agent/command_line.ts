/**
 * denim's command line.
 *
 * @module
 */

import { formatColumns } from "./columns.ts";
import type { ChooseBackends, LARGE_COMMANDS } from "./large_commands.ts";

/** One of denim's commands. */
interface CommandEntry {
  /** What `denim help` says about it. */
  readonly summary: string;
  /** Runs it, with the arguments behind its name, and gives the exit code. */
  run(args: readonly string[], choose: ChooseBackends): number | Promise<number>;
}

/** Each command loads its modules only when it is used. */
const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  agent: large(
    "agent",
    "lease this node a subnet, and route pods' packets to and from the other nodes",
  ),
  demo: large(
    "demo",
    "make a small cluster on this machine, and show that its pods reach each other",
  ),
  config: large("config", "read, check and write the cluster's net-conf"),
  leases: large("leases", "list the nodes' leases of subnets; reserve a subnet, release one"),
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
  doctor: large("doctor", "say what is wrong with this host, and how to mend it"),
  install: large("install", "make this machine a node: the CNI plugin and its configuration"),
  uninstall: large("uninstall", "take away what denim left on this machine"),
  version: {
    summary: "print the version; with --json also Deno's, and the commit that denim was built from",
    run: async (args) => (await import("./version_command.ts")).runVersion(args),
  },
  help: {
    summary: "print this; with a command's name, what its --help says",
    run: ([name], choose) =>
      name === undefined || name === "help" || name.startsWith("-")
        ? print(help())
        : runCommandLine([name, "--help"], choose),
  },
};

function large(name: keyof typeof LARGE_COMMANDS, summary: string): CommandEntry {
  return {
    summary,
    run: async (args, choose) =>
      (await import("./large_commands.ts")).LARGE_COMMANDS[name](args, choose),
  };
}

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
 * @param choose says which backends net-conf may name; called only for a command that needs them
 */
export async function runCommandLine(
  args: readonly string[],
  choose: ChooseBackends,
): Promise<number> {
  const [given, ...rest] = args;
  if (given === undefined) {
    console.error(help());
    return 2;
  }
  const name = OTHER_NAMES[given] ?? given;
  if (Object.hasOwn(COMMANDS, name)) return await COMMANDS[name]!.run(rest, choose);
  console.error(`${given}: denim has no such command; see denim help`);
  return 2;
}
