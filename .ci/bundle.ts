/**
 * `deno task bundle [FOLDER [MAIN]]`: makes denim two files for hosts that have Deno, `agent.js` and `plugin.js`, in
 * `dist` unless another folder is given; or a denim of one's own, by its main module.
 *
 * @module
 */

import { basename, dirname, resolve } from "node:path";
import { filesUnder, ROOT } from "./source_files.ts";

/** What the programs are made of. */
interface Sources {
  /** The agent's main module. */
  readonly main: string;
  /** The modules that run in workers: the imports do not tell that a program needs them. */
  readonly workers: readonly string[];
}

/** Where a task was called, whose paths its arguments are: tasks run where their `deno.json` is. */
const CALLED_IN = Deno.env.get("INIT_CWD") ?? Deno.cwd();

/** The path that a task's argument names. */
export function pathOfArgument(argument: string): string {
  return resolve(CALLED_IN, argument);
}

/** denim's own main module. */
export const MAIN = `${ROOT}/agent/main.ts`;

/**
 * Makes the two files. Throws an error that says what Deno said.
 *
 * @param folder where they go
 * @param main the agent's main module, with the `*_worker.ts` beside and below it
 */
export async function bundle(folder: string, main: string = MAIN): Promise<void> {
  const sources = { main, workers: workers(main) };
  const head = `globalThis.denimBuild = ${JSON.stringify({ revision: revision() })};\n`;
  const agent = await withFilesInside(bundled(main), sources);
  Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(`${folder}/agent.js`, head + inLatin1(agent));
  Deno.writeTextFileSync(
    `${folder}/plugin.js`,
    head + inLatin1(bundled(`${ROOT}/plugin/main.ts`)),
  );
}

/**
 * The same program without a character beyond Latin-1: its text stays in memory as long as it runs, several times over,
 * and one such character makes each of them take two octets. It is not minified: the minifier puts the value of a `using`
 * in the place where it is used, and so nobody gives it back (`using store = open(); return store.get()` becomes
 * `return open().get()`).
 */
function inLatin1(text: string): string {
  return text.replace(
    /[^\0-\xff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function workers(main: string): string[] {
  const folders = ["agent", "backends", "core", "plugin"].map((name) => `${ROOT}/${name}`);
  const files = [...folders, dirname(main)].flatMap((folder) =>
    filesUnder(folder).map((file) => `${folder}/${file}`)
  );
  return [...new Set(files)].filter((file) => file.endsWith("_worker.ts"));
}

/** The commit that the checkout is at, with `-dirty` if files differ from it; `null` if git can't tell. */
export function revision(): string | null {
  try {
    const { success, stdout } = new Deno.Command("git", {
      args: ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
      cwd: ROOT,
      stderr: "null",
    }).outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** A module with all that it imports, as one text. */
function bundled(module: string): string {
  const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", module],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).outputSync();
  if (!success) throw new Error(`deno bundle ${module}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Puts into a bundle what its code would read from files that are not beside it. */
async function withFilesInside(text: string, { workers }: Sources): Promise<string> {
  const functions: string[] = [];
  for (const [index, worker] of workers.entries()) {
    const url = `new URL("./${basename(worker)}", import.meta.url)`;
    if (!text.includes(url)) continue;
    text = text.replaceAll(url, `denimWorker${index}()`);
    functions.push(`function denimWorker${index}() {
  return denimWorker${index}.url ??= URL.createObjectURL(
    new Blob([${JSON.stringify(bundled(worker))}], { type: "text/javascript" }),
  );
}
`);
  }
  const left = /new URL\("\.[^"]*_worker\.ts"/.exec(text);
  if (left !== null) throw new Error(`${left[0]}: no worker of this name was found`);
  return withoutReflection(await withSchemas(text)) + functions.join("");
}

/**
 * What gRPC's loader makes of a schema beside calls: descriptors, with which a server tells clients about itself. denim
 * is a client, and they are a third of what loading etcd3 costs a start. Each piece of code as the bundler writes it,
 * with what takes its place.
 */
const REFLECTION: readonly (readonly [code: RegExp, instead: string])[] = [
  [/\n *var descriptor = require_descriptor\w*\(\);/g, ""],
  [/root\.toDescriptor\("proto3"\)\.file;\n/g, "[];\n"],
  [
    /const messageDescriptor = message\.toDescriptor\("proto3"\);\n/g,
    "const messageDescriptor = { $type: { toObject: () => ({}) } };\n",
  ],
  [
    /const enumDescriptor = enumType\.toDescriptor\("proto3"\);\n/g,
    "const enumDescriptor = { $type: { toObject: () => ({}) } };\n",
  ],
];

/** Leaves {@link REFLECTION} out of a bundle in which that loader is. */
function withoutReflection(text: string): string {
  if (!text.includes("function createPackageDefinition(")) return text;
  return REFLECTION.reduce((text, [code, instead]) => {
    const without = text.replace(code, instead);
    if (without === text) throw new Error(`@grpc/proto-loader is another: it has no ${code}`);
    return without;
  }, text);
}

/** Where the bundle has a module of an npm package whose code reads a gRPC schema. */
const SCHEMA = /\.loadSync\)\(`\$\{__dirname\}\/([^`$]+\.proto)`/g;

/** etcd3 reads etcd's schema from a file of its package. The bundle has what it read. */
async function withSchemas(text: string): Promise<string> {
  const found = [...text.matchAll(SCHEMA)];
  if (found.length === 0) return text;
  const { default: { Root } } = await import("protobufjs");
  for (const [code, path] of found) {
    // The bundler names each module's file above its code.
    const module = text.slice(0, text.indexOf(code)).match(/\n\/\/ \S+(?=\n)/g)!.at(-1)!.slice(4);
    const schema = new Root().loadSync(resolve(ROOT, dirname(module), path!), { keepCase: true });
    text = text.replace(code, () => `.fromJSON)(${JSON.stringify(schema)}`);
  }
  return text;
}

if (import.meta.main) {
  const [folder = `${ROOT}/dist`, main = MAIN] = Deno.args.map(pathOfArgument);
  try {
    await bundle(folder, main);
    console.log(`${folder}/agent.js and ${folder}/plugin.js`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
