/**
 * `deno task bundle [FOLDER [MAIN]]`: makes denim a folder for hosts that have Deno, `dist` unless another is given; or a
 * denim of one's own, by its main module. Its programs are `agent.js` and `plugin.js`; `parts` has what `agent.js` loads
 * only when it is used.
 *
 * @module
 */

import * as esbuild from "esbuild";
import type { NamespaceBase, ReflectionObject, Root } from "protobufjs";
import { existsSync } from "node:fs";
import { basename, dirname, relative, resolve } from "node:path";
import { filesUnder, ROOT } from "./source_files.ts";

/** Where a task was called, whose paths its arguments are: tasks run where their `deno.json` is. */
const CALLED_IN = Deno.env.get("INIT_CWD") ?? Deno.cwd();

/** The path that a task's argument names. */
export function pathOfArgument(argument: string): string {
  return resolve(CALLED_IN, argument);
}

/** denim's own main module. */
export const MAIN = `${ROOT}/agent/main.ts`;

/**
 * The modules that are files of their own, each with what nobody else needs. What else is imported only when it is used
 * is in the file that imports it.
 */
const APART = [
  "agent/large_commands.ts",
  "core/stores/etcd/mod.ts",
  "core/stores/kubernetes/kubeconfig.ts",
  "core/stores/kubernetes/mod.ts",
].map((path) => `${ROOT}/${path}`);

/** How the agent's program imports the plugin's, which is beside it. */
const PLUGIN = "@denim/plugin/run";

/**
 * How files are written. A program's text stays in memory as long as it runs, twice: so it is short, without a character
 * beyond ASCII, which would take two octets each. Its syntax stays as it is: the minifier puts the value of a `using` in the
 * place where it is used, and so nobody gives it back (`using store = open(); return store.get()` becomes
 * `return open().get()`).
 */
const WRITTEN = {
  charset: "ascii",
  format: "esm",
  legalComments: "none",
  minifyIdentifiers: true,
  minifySyntax: false,
  minifyWhitespace: true,
  platform: "node",
  target: "esnext",
} as const;

/**
 * Makes the files, in place of those of an earlier build. Rejects with an error that says what Deno said.
 *
 * @param folder where they go
 * @param main the agent's main module, with the `*_worker.ts` beside and below it
 */
export async function bundle(folder: string, main: string = MAIN): Promise<void> {
  const build = JSON.stringify({ revision: revision() });
  const write = async (options: esbuild.BuildOptions) => {
    const { outputFiles } = await esbuild.build({
      ...WRITTEN,
      // `denim install` reads it.
      banner: { js: `// ${build}` },
      bundle: true,
      define: { "globalThis.denimBuild": build },
      logLevel: "silent",
      outdir: folder,
      write: false,
      ...options,
    });
    for (const { path, text } of outputFiles!) {
      Deno.mkdirSync(dirname(path), { recursive: true });
      Deno.writeTextFileSync(path, whenUsed(text));
    }
  };
  using scratch = new Scratch();
  try {
    const [agent] = scratch.bundle([main, ...APART], "--code-splitting", "--external", PLUGIN);
    const [plugin, ...threads] = scratch.bundle([`${ROOT}/plugin/main.ts`, ...workers(main)]);
    const texts = new Map<string, string>();
    for (const path of threads) {
      const { code } = await esbuild.transform(Deno.readTextFileSync(path), WRITTEN);
      texts.set(basename(path, ".js"), code);
    }
    if (existsSync(`${folder}/parts`)) Deno.removeSync(`${folder}/parts`, { recursive: true });
    await write({
      chunkNames: "parts/[name]-[hash]",
      entryPoints: { agent: agent! },
      plugins: [parts(texts)],
      splitting: true,
    });
    await write({ entryPoints: { plugin: plugin! } });
  } finally {
    await esbuild.stop();
  }
}

/** A folder for what Deno bundles, which alone knows what denim's imports lead to. */
class Scratch implements Disposable {
  readonly #path = Deno.makeTempDirSync({ prefix: "denim-bundle-" });

  /** Bundles modules, each with all that it imports, and returns the file that each became. */
  bundle(modules: readonly string[], ...flags: readonly string[]): readonly string[] {
    const outdir = Deno.makeTempDirSync({ dir: this.#path });
    const { success, stderr } = new Deno.Command(Deno.execPath(), {
      args: ["bundle", "--quiet", ...flags, "--outdir", outdir, ...modules],
      cwd: ROOT,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).outputSync();
    if (!success) throw new Error(`deno bundle: ${new TextDecoder().decode(stderr)}`);
    // They are where they are below the folder that has them all.
    let root = dirname(modules[0]!);
    while (modules.some((module) => relative(root, module).startsWith(".."))) root = dirname(root);
    return modules.map((module) => `${outdir}/${relative(root, module).replace(/\.ts$/, ".js")}`);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.#path, { recursive: true });
  }
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

/**
 * Makes few files of the many that Deno has made, with what their code would read from files that are not beside them.
 *
 * @param workers the texts of the modules that run in workers, by their names
 */
function parts(workers: ReadonlyMap<string, string>): esbuild.Plugin {
  return {
    name: "parts",
    setup(build) {
      build.onResolve({ filter: new RegExp(`^${PLUGIN}$`) }, () => ({
        path: "./plugin.js",
        external: true,
      }));
      build.onLoad({ filter: /\.js$/ }, async ({ path }) => {
        const text = withWorkers(Deno.readTextFileSync(path), workers);
        return { contents: withoutReflection(await withSchemas(withRequires(text))) };
      });
    },
  };
}

/**
 * Has what is no entry, which Deno names by what is in it, in the file of who imports it: a module that `require` loads is
 * there. And has Node's modules without `node:module`, which takes a start 30 ms.
 */
function withRequires(text: string): string {
  return text
    .replace(
      /\bimport\(("[^"]*-[A-Z0-9]{8}\.js")\)/g,
      "Promise.resolve().then(() => require($1))",
    )
    .replace(
      /^import \{ createRequire as (\w+) \} from "node:module";\nvar __require = \1\(import\.meta\.url\);$/m,
      "var __require = (name) => process.getBuiltinModule(name);",
    );
}

/** Deno reads at the start, and keeps, what is imported by a name that it can read from the text. */
function whenUsed(text: string): string {
  return text.replace(/\bimport\(("\.[^"]*")\)/g, "import(String($1))");
}

/** Puts workers' texts where their URLs are. */
function withWorkers(text: string, workers: ReadonlyMap<string, string>): string {
  const functions: string[] = [];
  for (const [name, worker] of workers) {
    const url = `new URL("./${name}.ts", import.meta.url)`;
    if (!text.includes(url)) continue;
    text = text.replaceAll(url, `${name}()`);
    functions.push(`function ${name}() {
  return ${name}.url ??= URL.createObjectURL(
    new Blob([${JSON.stringify(worker)}], { type: "text/javascript" }),
  );
}
`);
  }
  const left = /new URL\("\.[^"]*_worker\.ts"/.exec(text);
  if (left !== null) throw new Error(`${left[0]}: no worker of this name was found`);
  return text + functions.join("");
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

/** Leaves {@link REFLECTION} out of a text in which that loader is. */
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
    await keepUsed(schema);
    text = text.replace(code, () => `.fromJSON)(${JSON.stringify(schema)}`);
  }
  return text;
}

/** Of etcd's services that denim does not use whole, the calls that it makes. */
const CALLS: Readonly<Record<string, readonly string[]>> = {
  Auth: ["Authenticate"],
  Cluster: [],
  Maintenance: ["Status"],
};

/** Leaves out of a schema what denim does not call, and the messages of those calls: two thirds of etcd's. */
async function keepUsed(schema: Root): Promise<void> {
  const { default: { Namespace, Service, Type } } = await import("protobufjs");
  const used = new Set<unknown>();
  const use = (one: ReflectionObject | null) => {
    if (one === null || used.has(one)) return;
    used.add(one);
    if (one.parent instanceof Type) use(one.parent);
    if (one instanceof Type) { for (const field of one.fieldsArray) use(field.resolvedType); }
  };
  const all = (space: NamespaceBase): ReflectionObject[] =>
    space.nestedArray.flatMap((one) => [one, ...one instanceof Namespace ? all(one) : []]);
  schema.resolveAll();
  for (const service of all(schema)) {
    if (!(service instanceof Service)) continue;
    for (const method of service.methodsArray) {
      if (CALLS[service.name]?.includes(method.name) === false) service.remove(method);
      else for (const type of [method.resolvedRequestType, method.resolvedResponseType]) use(type);
    }
    if (service.methodsArray.length > 0) use(service);
  }
  for (const one of all(schema)) {
    const isSpace = one instanceof Namespace && !(one instanceof Type || one instanceof Service);
    if (!isSpace && !used.has(one) && !(one.parent instanceof Type)) one.parent!.remove(one);
  }
}

if (import.meta.main) {
  const [folder = `${ROOT}/dist`, main = MAIN] = Deno.args.map(pathOfArgument);
  try {
    await bundle(folder, main);
    console.log(`${folder}/agent.js, ${folder}/plugin.js, and ${folder}/parts`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
