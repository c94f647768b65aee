/**
 * What denim was started from, and how it runs itself again.
 *
 * @module
 */

import { DEFAULT_CNI_SOCKET } from "@denim/plugin/socket";

/** What a build (`deno task bundle`, `deno task compile`) knows of itself. */
export interface Build {
  /** The commit that it was made from, with `-dirty` behind it if files differed; `null` if nobody knew. */
  readonly revision: string | null;
}

/** What a build knows of itself; `undefined` in a checkout. The build's first line sets it. */
export const BUILD: Build | undefined = (globalThis as { readonly denimBuild?: Build }).denimBuild;

/**
 * How V8 is told to keep the agent small rather than to let garbage lie: with 5,000 peers it is resident
 * with a third less, and no slower. The `denim` task and the compiled binary say the same.
 */
export const AGENT_V8_FLAGS =
  "--max-semi-space-size=1,--optimize-for-size,--heap-growing-percent=10";

/**
 * What Deno lets each program do. None loads code from elsewhere. The plugin, which runs for each pod, has no use for the
 * network but by netlink and to ask the agent. Which files they read and write, configurations say.
 */
const PERMISSIONS = {
  agent: ["read", "write", "net", "env", "run", "ffi"],
  plugin: ["read", "write", "env", "run", "ffi", "sys=osUptime"],
};

/**
 * Deno's flags for one of denim's programs.
 *
 * @param cniSocket the agent's socket for the plugin; `*` for any. One that the plugin may not open is one where no agent
 * answers
 */
export function denoFlags(
  part: "agent" | "plugin",
  cniSocket: string = DEFAULT_CNI_SOCKET,
): readonly string[] {
  const permissions = [
    ...PERMISSIONS[part],
    ...part === "agent" ? [] : [cniSocket === "*" ? "net" : `net=unix:${cniSocket}`],
  ];
  return [
    "--no-prompt",
    "--deny-import",
    ...permissions.map((name) => `--allow-${name}`),
    ...part === "agent" ? [`--v8-flags=${AGENT_V8_FLAGS}`] : [],
  ];
}

/**
 * The words that start one of denim's programs.
 *
 * @param main the URL of the agent's main module, which calls `runDenim`; denim's own unless given
 */
export function denimProgram(
  part: "agent" | "plugin",
  main: string = BUILD === undefined ? script("./main.ts") : import.meta.url,
): readonly [string, ...string[]] {
  const self = Deno.execPath();
  if (Deno.build.standalone) return part === "agent" ? [self, "agent"] : [self];
  return part === "agent" ? [self, "run", ...denoFlags(part), main, "agent"] : [
    self,
    "run",
    ...denoFlags(part),
    script(BUILD === undefined ? "../plugin/main.ts" : "./plugin.js"),
  ];
}

function script(path: string): string {
  return new URL(path, import.meta.url).href;
}
