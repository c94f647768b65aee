/**
 * `deno task compile [OUTPUT [MAIN]]`: makes denim one binary, `dist/denim` unless another path is given; or
 * a denim of one's own, by its main module, with the `*_worker.ts` beside and below it.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { denortMissing, findDenort } from "./denort.ts";
import { filesUnder, ROOT } from "./source_files.ts";

/** Where the task was called, whose paths its arguments are: tasks run where their `deno.json` is. */
const calledIn = Deno.env.get("INIT_CWD") ?? Deno.cwd();
const [output = `${ROOT}/dist/denim`, main = `${ROOT}/agent/main.ts`] = Deno.args;
Deno.exit(compile(resolve(calledIn, output), resolve(calledIn, main)));

/** Compiles and returns the exit code. */
function compile(output: string, main: string): number {
  const denort = findDenort();
  if (!denort.found && denort.named !== undefined) {
    console.error(denortMissing(denort));
    return 1;
  }
  const folder = dirname(output);
  const folderIsNew = !existsSync(folder);
  const result = new Deno.Command(Deno.execPath(), {
    args: ["compile", "-A", ...v8Flags(), ...workers(main).flatMap((file) => ["--include", file])]
      .concat("--output", output, main),
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
}

/** V8's flags, as the `denim` task has them for a checkout. */
function v8Flags(): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`));
  return /--v8-flags=\S+/.exec(tasks.denim.command)?.slice(0, 1) ?? [];
}

/** The modules that run in workers: deno can't see from the imports that the program needs them. */
function workers(main: string): string[] {
  const folders = ["agent", "backends", "core", "plugin"].map((name) => `${ROOT}/${name}`);
  const files = [...folders, dirname(main)].flatMap((folder) =>
    filesUnder(folder).map((file) => `${folder}/${file}`)
  );
  return [...new Set(files)].filter((file) => file.endsWith("_worker.ts"));
}
