/**
 * denim's program as files of a host: what `denim install` copies, from whatever it was started.
 *
 * @module
 */

import { ConfigError, messageOf, RuntimeError } from "@denim/core";
import { fileURLToPath } from "node:url";
import { pluginScript } from "@denim/plugin";
import { DEFAULT_CALLS_FOLDER } from "@denim/plugin/calls";
import { BUILD, denoFlags } from "../program.ts";
import { isThere, type WantedFile } from "./host_files.ts";

/** What a host is to run. */
export interface Program {
  /** Its files. */
  readonly files: readonly WantedFile[];
  /** A folder that has some of them. What an earlier build has there goes when nobody runs that any more. */
  readonly parts?: string;
  /**
   * The words that start the plugin from its files.
   *
   * @param placeOf the way to where a file's text is now
   */
  plugin(placeOf: (path: string) => string): readonly [string, ...string[]];
}

/** What {@link programFiles} is told. */
export interface ProgramOptions {
  /** The folder for CNI plugins. */
  readonly binDir: string;
  /** Whether the agent comes too, and not the plugin alone. */
  readonly agent: boolean;
  /** The URL of the program's main module. */
  readonly main: string;
  /** A folder for what has to be made first. */
  readonly scratch: string;
}

/** The folder beside the plugin for what it is made of. */
export function homeFolder(binDir: string): string {
  return `${binDir}/.denim`;
}

/** Where it is recorded how the host was before. */
export function hostRecordPath(binDir: string): string {
  return `${homeFolder(binDir)}/before.json`;
}

/**
 * The program's files: `BINDIR/denim` is a launcher of denim, which is the plugin if `CNI_COMMAND` is set. What it
 * starts is in `BINDIR/.denim`: a compiled denim, or a copy of Deno and denim's bundle. It is nothing that an upgrade of
 * the host's Deno would change, and nothing that has to be where it was in the container that installed it.
 */
export function programFiles({ binDir, agent, main, scratch }: ProgramOptions): Program {
  const program = `${binDir}/denim`;
  const home = homeFolder(binDir);
  if (Deno.build.standalone) {
    const binary = `${home}/denim`;
    const start = '"$home/denim"';
    return {
      files: [
        { path: binary, mode: 0o755, content: { copyOf: Deno.execPath() } },
        {
          path: program,
          mode: 0o755,
          content: launcher({ agent: start, plugin: start, revision: BUILD?.revision }),
        },
      ],
      plugin: (placeOf) => [placeOf(binary)],
    };
  }
  const bundle = BUILD === undefined ? makeBundle(scratch, main) : bundleAt(main, agent);
  const deno = `${home}/deno`, plugin = `${home}/plugin.js`;
  // The parts before what loads them. Their names tell builds apart, so that each finds its own.
  const ofAgent = agent ? [...partsAt(bundle), "agent.js"] : [];
  return {
    files: [
      { path: deno, mode: 0o755, content: { copyOf: Deno.realPathSync(Deno.execPath()) } },
      ...["plugin.js", ...ofAgent].map((name) => ({
        path: `${home}/${name}`,
        mode: 0o644,
        content: { copyOf: `${bundle}/${name}` },
      })),
      // Last: the file that runtimes look for starts the others.
      {
        path: program,
        mode: 0o755,
        content: launcher({
          agent: agent ? denoWords("agent") : undefined,
          plugin: denoWords("plugin"),
          revision: revisionOf(`${bundle}/plugin.js`),
        }),
      },
    ],
    ...agent && { parts: `${home}/parts` },
    plugin: (placeOf) => [placeOf(deno), "run", ...denoFlags("plugin"), placeOf(plugin)],
  };
}

/** What a launcher starts, as words of a shell that know the folder with denim's files as `$home`. */
export interface LauncherCommands {
  /** What is not the plugin, in front of its arguments; none where the plugin alone is installed. */
  readonly agent: string | undefined;
  /** The plugin. */
  readonly plugin: string;
  /** The commit that the plugin's build was made from, if it is known. */
  readonly revision: string | null | undefined;
  /** Where an agent serves the plugin; where it does by default unless given. */
  readonly calls?: string;
}

/**
 * The launcher. Runtimes start it for each pod, so it starts one program and no other. It finds its files beside it,
 * as a host may see its folder under another path than the container that installed it.
 */
export function launcher({ agent, plugin, revision, calls }: LauncherCommands): string {
  const others = agent === undefined ? "" : `[ -n "\${CNI_COMMAND-}" ] || exec ${agent} "$@"\n`;
  return `#!/bin/sh
# denim, as "denim install" left it, which also takes it away: "denim uninstall".
self=$0
[ ! -L "$self" ] || self=$(readlink -f "$self")
home=\${self%/*}/.denim
export DENO_DIR="\${DENO_DIR:-$home/cache}" DENO_NO_UPDATE_CHECK=1
${others}${pluginScript({ plugin, revision, calls: calls ?? DEFAULT_CALLS_FOLDER })}`;
}

function denoWords(part: "agent" | "plugin"): string {
  return `"$home/deno" run ${denoFlags(part).join(" ")} "$home/${part}.js"`;
}

/** The commit that a bundle was made from: its first line says it (.ci/bundle.ts). */
function revisionOf(bundle: string): string | null {
  const [line] = Deno.readTextFileSync(bundle).split("\n", 1);
  return JSON.parse(/\{.*\}/.exec(line!)![0]).revision;
}

/** The folder of the bundle that runs. */
function bundleAt(main: string, agent: boolean): string {
  const folder = fileURLToPath(new URL(".", main)).replace(/\/$/, "");
  for (const name of ["plugin.js", ...agent ? ["agent.js", "parts"] : []]) {
    if (!isThere(`${folder}/${name}`)) {
      throw new ConfigError(
        `${folder}/${name}: missing; a bundle is a folder with agent.js, plugin.js and parts`,
      );
    }
  }
  return folder;
}

/** What a bundle's agent loads when it needs it, as paths below the bundle's folder. */
function partsAt(bundle: string): readonly string[] {
  return [...Deno.readDirSync(`${bundle}/parts`)].map(({ name }) => `parts/${name}`).sort();
}

/** Makes the bundle of the checkout that runs. */
function makeBundle(folder: string, main: string): string {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  if (!isThere(`${root}/deno.json`)) {
    throw new ConfigError(
      "denim can be installed from its checkout, from a bundle (deno task bundle) or as a binary",
    );
  }
  const { success, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "--cwd", root, "bundle", folder, fileURLToPath(main)],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).outputSync();
  if (success) return folder;
  throw new RuntimeError(`cannot bundle denim: ${new TextDecoder().decode(stderr).trim()}`);
}

/** Throws a RuntimeError if a plugin does not run from where its files are, as on a file system without programs. */
export function tryPlugin([command, ...args]: readonly [string, ...string[]]): void {
  try {
    const { success, stdout, stderr } = new Deno.Command(command, {
      args,
      env: { CNI_COMMAND: "VERSION", DENO_NO_UPDATE_CHECK: "1" },
      stdin: "null",
    }).outputSync();
    const output = new TextDecoder().decode(stdout);
    if (success && output.includes('"supportedVersions"')) return;
    throw new RuntimeError(
      `${command}: the plugin does not run there: ${
        new TextDecoder().decode(stderr).trim() || output
      }`,
    );
  } catch (error) {
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    throw new RuntimeError(
      `${command}: no program can be run there (${messageOf(error)}); is the file system mounted ` +
        `"noexec"? Name another folder with --cni-bin-dir`,
      { cause: error },
    );
  }
}
