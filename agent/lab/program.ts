/**
 * How denim runs itself again: from a checkout through Deno, compiled as it is.
 *
 * @module
 */

/** The words that start one of denim's programs. */
export function denimProgram(part: "agent" | "plugin"): readonly [string, ...string[]] {
  const self = Deno.execPath();
  if (Deno.build.standalone) return part === "agent" ? [self, "agent"] : [self];
  const script = (path: string) => new URL(path, import.meta.url).pathname;
  return part === "agent"
    ? [self, "run", "-A", script("../main.ts"), "agent"]
    : [self, "run", "-A", script("../../plugin/main.ts")];
}
