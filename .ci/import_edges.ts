/**
 * Who imports whom, as Deno resolves it.
 *
 * @module
 */

import { type Edge, NO_MODULE } from "./arrows.ts";

/** The part of `deno info --json` that is used here. */
interface ModuleGraph {
  readonly modules: readonly {
    readonly specifier: string;
    readonly error?: string;
    readonly dependencies?: readonly {
      readonly specifier: string;
      readonly code?: { readonly specifier?: string; readonly error?: string };
      readonly type?: { readonly specifier?: string };
    }[];
  }[];
}

/** A module that is named by its URL alone: a worker's, mostly. Deno's graph does not have these. */
const URL_OF_MODULE =
  /new URL\(\s*(["'`])([^"'`$]+\.ts)\1\s*,\s*import\.meta\.url|import\.meta\.resolve\(\s*(["'`])([^"'`$]+)\3/g;

/**
 * Every import in a checkout: static, dynamic with a literal name, of types alone, and of modules named
 * by URL, as workers are.
 *
 * @param root the checkout's folder
 * @param files paths of modules from there
 */
export function importEdges(root: string, files: readonly string[]): Edge[] {
  const edges: Edge[] = [];
  const base = new URL(`file://${root}/`);
  const place = (url: string) => url.startsWith(base.href) ? url.slice(base.href.length) : url;
  const add = (from: string, specifier: string, url: string | undefined) => {
    if (url !== undefined) edges.push({ from, to: place(url), specifier });
  };

  const { modules } = moduleGraph(root, files);
  const missing = new Set(
    modules.filter(({ error }) => error !== undefined).map(({ specifier }) => specifier),
  );
  for (const { specifier: from, dependencies = [] } of modules) {
    if (!from.startsWith(base.href)) continue;
    for (const { specifier, code, type } of dependencies) {
      const isMissing = code?.error !== undefined || missing.has(code?.specifier ?? "");
      add(place(from), specifier, isMissing ? NO_MODULE : code?.specifier);
      add(place(from), specifier, type?.specifier);
    }
  }
  for (const from of files) {
    for (const match of Deno.readTextFileSync(`${root}/${from}`).matchAll(URL_OF_MODULE)) {
      const specifier = match[2] ?? match[4]!;
      const url = match[2] !== undefined || specifier.startsWith(".")
        ? new URL(specifier, new URL(from, base)).href
        : import.meta.resolve(specifier);
      add(from, specifier, url);
    }
  }
  return edges;
}

function moduleGraph(root: string, files: readonly string[]): ModuleGraph {
  // One module that imports all of them is one run of Deno instead of one for each.
  const all = Deno.makeTempFileSync({ suffix: ".ts" });
  try {
    Deno.writeTextFileSync(all, files.map((file) => `import "file://${root}/${file}";\n`).join(""));
    const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", "--config", `${root}/deno.json`, all],
      cwd: root,
    }).outputSync();
    if (!success) throw new Error(`deno info failed:\n${new TextDecoder().decode(stderr)}`);
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    Deno.removeSync(all);
  }
}
