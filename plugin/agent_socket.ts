/**
 * What the plugin and the agent say to each other. A pod's start waits for the plugin, and most of that wait is the
 * start of a program; the agent has the plugin's modules loaded already. It serves a UNIX socket, which only its own
 * user may open. One connection is one call, of three lines:
 *
 * 1. The agent says where it is ({@link whereabouts}). If that is not where the plugin is, or if the line does not come
 *    soon, the plugin goes away and does the work itself: until then nothing was asked.
 * 2. The plugin sends a {@link CniCall}, as JSON.
 * 3. The agent sends a {@link CniReply}, as JSON. If the line ends early the agent was killed, and the plugin does the
 *    work itself, as after a plugin that was killed.
 *
 * @module
 */

import { readProcLink } from "@denim/core/linux/proc-files";
import type { Caller } from "./caller.ts";

export type { Caller };
import config from "./deno.json" with { type: "json" };

/** Where the agent serves the plugin, unless it was told otherwise. */
export const DEFAULT_CNI_SOCKET = "/run/denim/cni.sock";

/** The commands that the agent takes: pods wait for them. */
export const SERVED_COMMANDS: readonly string[] = ["ADD", "DEL"];

/** The variables that make up a call (CNI spec 1.1.0, section 2, "Parameters"). */
export const CALL_VARIABLES = [
  "CNI_COMMAND",
  "CNI_CONTAINERID",
  "CNI_NETNS",
  "CNI_IFNAME",
  "CNI_ARGS",
  "CNI_PATH",
  "CNI_NETNS_OVERRIDE",
] as const;

/** What the runtime told the plugin. */
export interface CniCall {
  /** The variables of {@link CALL_VARIABLES} that are set. */
  readonly environment: Readonly<Record<string, string>>;
  /** Standard input. */
  readonly input: string;
  /** The plugin's process. */
  readonly caller: Caller;
}

/** What the plugin is to tell the runtime; or that the plugin has to do the work itself, of which nothing is done. */
export type CniReply = "yours" | {
  /** For standard output. */
  readonly output: string;
  /** For standard error. */
  readonly errors: string;
  /** Whether the exit code is 1. */
  readonly failed: boolean;
};

/**
 * Which denim a process is, and where: programs of two versions, or in different namespaces or roots, mean different
 * things by the same path. Of the calling thread, since threads may be in different network namespaces.
 */
export function whereabouts(): string {
  const { denimBuild } = globalThis as {
    readonly denimBuild?: { readonly revision: string | null };
  };
  const places = ["ns/mnt", "ns/net", "ns/pid", "root"]
    .map((name) => readProcLink(`/proc/thread-self/${name}`));
  return ["denim", config.version, denimBuild?.revision ?? "checkout", ...places].join(" ");
}
