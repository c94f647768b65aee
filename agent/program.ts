/**
 * How denim runs itself again: from a checkout through Deno, compiled as it is.
 *
 * @module
 */

/**
 * How V8 is told to keep the agent small rather than to let garbage lie: with 5,000 peers it is resident
 * with a third less, and no slower. The `denim` task and the compiled binary say the same.
 */
export const AGENT_V8_FLAGS =
  "--max-semi-space-size=1,--optimize-for-size,--heap-growing-percent=10";

/**
 * The words that start one of denim's programs.
 *
 * @param main the URL of the agent's main module, which calls `runDenim`; denim's own unless given
 */
export function denimProgram(
  part: "agent" | "plugin",
  main: string = script("./main.ts"),
): readonly [string, ...string[]] {
  const self = Deno.execPath();
  if (Deno.build.standalone) return part === "agent" ? [self, "agent"] : [self];
  return part === "agent"
    ? [self, "run", "-A", `--v8-flags=${AGENT_V8_FLAGS}`, main, "agent"]
    : [self, "run", "-A", script("../plugin/main.ts")];
}

function script(path: string): string {
  return new URL(path, import.meta.url).href;
}
