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

/** The words that start one of denim's programs. */
export function denimProgram(part: "agent" | "plugin"): readonly [string, ...string[]] {
  const self = Deno.execPath();
  if (Deno.build.standalone) return part === "agent" ? [self, "agent"] : [self];
  const script = (path: string) => new URL(path, import.meta.url).pathname;
  return part === "agent"
    ? [self, "run", "-A", `--v8-flags=${AGENT_V8_FLAGS}`, script("../main.ts"), "agent"]
    : [self, "run", "-A", script("../../plugin/main.ts")];
}
