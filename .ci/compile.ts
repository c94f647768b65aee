/**
 * `deno task compile [OUTPUT [MAIN [TARGET]]]`: makes denim one binary, `dist/denim` unless another path is given; or
 * a denim of one's own, by its main module; for this machine, or for `x86_64-unknown-linux-gnu` or
 * `aarch64-unknown-linux-gnu`.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { bundle, MAIN, pathOfArgument } from "./bundle.ts";
import { denortMissing, findDenort } from "./denort.ts";
import { ROOT } from "./source_files.ts";

/** The kinds of machines that denim knows the system calls of. */
const TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/** The binary is the plugin or all else; a pod's start waits for the plugin alone. */
const PROGRAM =
  `await import(Deno.env.get("CNI_COMMAND") === undefined ? "./agent.js" : "./plugin.js");\n`;

const [output = `${ROOT}/dist/denim`, main = MAIN] = Deno.args.slice(0, 2).map(pathOfArgument);
Deno.exit(await compile(output, main, Deno.args[2] ?? Deno.build.target));

/** Compiles and returns the exit code. */
async function compile(output: string, main: string, target: string): Promise<number> {
  if (!TARGETS.includes(target)) {
    console.error(`${target}: not one of ${TARGETS.join(", ")}`);
    return 1;
  }
  const denort = findDenort(target);
  if (!denort.found && denort.named !== undefined) {
    console.error(denortMissing(denort));
    return 1;
  }
  const folder = dirname(output);
  const folderIsNew = !existsSync(folder);
  const parts = Deno.makeTempDirSync({ prefix: "denim-compile-" });
  try {
    await bundle(parts, main);
    Deno.writeTextFileSync(`${parts}/denim.js`, PROGRAM);
    const included = ["agent.js", "plugin.js", "parts"].flatMap((name) => [
      "--include",
      `${parts}/${name}`,
    ]);
    const result = new Deno.Command(Deno.execPath(), {
      args: ["compile", "--no-config", ...flags(), ...included, "--target", target]
        .concat("--output", output, `${parts}/denim.js`),
      cwd: ROOT,
      stdin: "null",
      stdout: "inherit",
    }).outputSync();
    const stderr = new TextDecoder().decode(result.stderr);
    console.error(stderr);
    if (result.success) return 0;
    // deno removes its half-written program itself, but not the folder that it made for it.
    if (folderIsNew && existsSync(folder)) Deno.removeSync(folder);
    // Other failures, a type error say, come with words enough.
    if (stderr.includes("denort")) console.error(denortMissing(denort));
    return 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  } finally {
    Deno.removeSync(parts, { recursive: true });
  }
}

/** What the program may do, and V8's flags, as the `denim` task has them for a checkout. */
function flags(): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`));
  const [, , ...words] = tasks.denim.command.split(" ");
  return words.slice(0, -1);
}
