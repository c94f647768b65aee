/**
 * `deno task check`: what must hold of the source before it is tested. Every step runs, even if
 * others found something; the exit code is 1 if any found something.
 *
 * @module
 */

import { circles, violations } from "./arrows.ts";
import { importEdges } from "./import_edges.ts";
import { filesUnder, ROOT } from "./source_files.ts";

/** What may stand at the top of the checkout. */
const TOP_LEVEL: ReadonlySet<string> = new Set([
  ".ci",
  ".gitignore",
  "LICENSE",
  "README.md",
  "agent",
  "backends",
  "core",
  "deno.json",
  "deno.lock",
  "deploy",
  "docs",
  "examples",
  "plugin",
  "tests",
]);

/** Hosts of package registries, in halves, so that this file does not name one itself. */
const REGISTRY_HOSTS: readonly string[] = [
  ["registry.npmjs", "org"],
  ["registry.yarnpkg", "com"],
  ["jsr", "io"],
  ["deb.debian", "org"],
  ["archive.ubuntu", "com"],
].map((halves) => halves.join("."));

const files = filesUnder(ROOT);
const modules = files.filter((file) => file.endsWith(".ts"));

const edges = importEdges(ROOT, modules);

const steps: readonly [name: string, run: () => boolean][] = [
  ["format", () => deno("fmt", "--check")],
  ["lint", () => deno("lint")],
  ["types", () => deno("check", "--quiet", "--doc", ...modules)],
  // --no-npm: the doc comments of types that npm packages export are not ours to write.
  ["doc comments", () => deno("doc", "--quiet", "--lint", "--no-npm", ...entryModules())],
  ["import arrows", () => report([...violations(edges), ...circles(edges)])],
  ["publishing", () => deno("publish", "--quiet", "--dry-run", "--allow-dirty")],
  ["top level", () => report(strangers())],
  ["registry hosts", () => report(namedHosts())],
  ["lock file", lockIsCommitted],
];

const failed: string[] = [];
for (const [name, run] of steps) {
  console.log(`check: ${name}`);
  if (!run()) failed.push(name);
}
console.log(failed.length === 0 ? "check: fine" : `check: failed: ${failed.join(", ")}`);
Deno.exit(failed.length === 0 ? 0 : 1);

function run(command: string, args: readonly string[]): boolean {
  return new Deno.Command(command, {
    args: [...args],
    cwd: ROOT,
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).outputSync().success;
}

function deno(...args: string[]): boolean {
  return run(Deno.execPath(), args);
}

function report(findings: readonly string[]): boolean {
  for (const finding of findings) console.error(finding);
  return findings.length === 0;
}

/** The public modules of all packages: linted as one, so that a type may come from another package. */
function entryModules(): string[] {
  const { workspace } = JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`));
  return (workspace as string[]).flatMap((member) => {
    const { exports } = JSON.parse(Deno.readTextFileSync(`${ROOT}/${member}/deno.json`));
    const paths = typeof exports === "string" ? [exports] : Object.values<string>(exports);
    return paths.map((path) => `${member}/${path.replace("./", "")}`);
  });
}

function strangers(): string[] {
  const names = new Set(files.map((file) => file.split("/")[0]!));
  return [...names].filter((name) => !TOP_LEVEL.has(name))
    .map((name) => `${name}: not one of the top level's names; see TOP_LEVEL in .ci/check.ts`);
}

function namedHosts(): string[] {
  return files.flatMap((file) => {
    const text = Deno.readTextFileSync(`${ROOT}/${file}`);
    return REGISTRY_HOSTS.filter((host) => text.includes(host))
      .map((host) => `${file}: names the registry host ${host}`);
  });
}

/** All imports are resolved by now, so a lock file that lacks one has been changed by Deno. */
function lockIsCommitted(): boolean {
  return Deno.env.get("CI") !== "true" ||
    run("git", ["diff", "--exit-code", "--", "deno.lock"]);
}
