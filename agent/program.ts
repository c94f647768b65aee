/**
 * What denim was started from, and how it runs itself again.
 *
 * @module
 */

/** What a build (`deno task bundle`, `deno task compile`) knows of itself. */
export interface Build {
  /** The commit that it was made from, with `-dirty` behind it if files differed; `null` if nobody knew. */
  readonly revision: string | null;
}

/** What a build knows of itself; `undefined` in a checkout. The bundler puts it in this place. */
export const BUILD: Build | undefined = (globalThis as { readonly denimBuild?: Build }).denimBuild;

/**
 * V8's flags for the agent's start: young objects get half the room that they would have, of which an eighth costs a tenth
 * more of the processor, and `heap.ts` may collect when the start is over. What keeps the heap small from the start on
 * doubles the work of a start, and so comes then. The `denim` task and the compiled binary say the same.
 */
const AGENT_V8_FLAGS = "--max-semi-space-size=8,--expose-gc";

/**
 * What Deno lets denim do: not to load code from elsewhere, and not to ask for more. The plugin, which runs for each pod,
 * has no use for the network but by netlink. Which files it reads and writes, configurations say.
 */
const PERMISSIONS = ["read", "write", "env", "run", "ffi", "sys=osUptime"];

/** Deno's flags for one of denim's programs. */
export function denoFlags(part: "agent" | "plugin"): readonly string[] {
  const permissions = part === "agent" ? [...PERMISSIONS, "net"] : PERMISSIONS;
  return [
    "--no-prompt",
    "--deny-import",
    ...permissions.map((name) => `--allow-${name}`),
    // V8's cache holds none of the functions that are compiled when they are first called, and opening it takes 1 ms.
    ...part === "agent" ? [`--v8-flags=${AGENT_V8_FLAGS}`] : ["--no-code-cache"],
  ];
}

/**
 * The words that start one of denim's programs.
 *
 * @param main the URL of the agent's main module, which calls `runDenim`; denim's own unless given
 */
export function denimProgram(
  part: "agent" | "plugin",
  main: string = BUILD === undefined ? url("./main.ts", import.meta.url) : Deno.mainModule,
): readonly [string, ...string[]] {
  const self = Deno.execPath();
  if (Deno.build.standalone) return part === "agent" ? [self, "agent"] : [self];
  return part === "agent" ? [self, "run", ...denoFlags(part), main, "agent"] : [
    self,
    "run",
    ...denoFlags(part),
    BUILD === undefined
      ? url("../plugin/main.ts", import.meta.url)
      : url("./plugin.js", Deno.mainModule),
  ];
}

function url(path: string, base: string): string {
  return new URL(path, base).href;
}
