/**
 * The agents that benches compare: denim's as `denim install` leaves it, another checkout's, and flanneld.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { RuntimeError } from "@denim/core";
import type { LabNode } from "@denim/agent/lab";
import { bundle, pathOfArgument } from "../../.ci/bundle.ts";
import { denoFlags } from "../../agent/program.ts";
import { ROOT } from "../../.ci/source_files.ts";

/** An agent that takes its turn. */
export interface Contestant {
  /** Its name in the tables. */
  readonly name: string;
  /** The words that start it on a node, with the flags that choose its store. */
  readonly program: (
    node: LabNode,
    storeFlags: readonly string[],
  ) => readonly [string, ...string[]];
  /** Whether it takes flannel's stores alone. */
  readonly isFlanneld: boolean;
}

/** What starts one of denim's programs as `denim install` leaves it, without the shell before it. */
export function deployed(
  part: "agent" | "plugin",
  folder: string,
  flags: readonly string[] = denoFlags(part),
): readonly [string, ...string[]] {
  return [Deno.execPath(), "run", ...flags, `${folder}/${part}.js`];
}

/** A program of flannel's, if `FLANNEL_BIN` names the folder that it is in. */
export function flannelProgram(name: "flannel" | "flanneld"): string | undefined {
  const program = `${Deno.env.get("FLANNEL_BIN")}/${name}`;
  return existsSync(program) ? program : undefined;
}

/**
 * All that take part: this checkout's agent, that of the checkout at `against`, and flanneld where it is.
 *
 * @param folder where bundles are made
 */
export async function contestants(
  folder: string,
  against: string | undefined,
): Promise<readonly Contestant[]> {
  const own = `${folder}/denim`;
  await bundle(own);
  const all = [denim("denim", deployed("agent", own))];
  if (against !== undefined) {
    const tree = pathOfArgument(against);
    if (resolve(tree) === ROOT) throw new RuntimeError(`${tree}: it is this checkout`);
    all.push(denim("before", await deployedFrom(tree, `${folder}/before`)));
  }
  const flanneld = flannelProgram("flanneld");
  if (flanneld !== undefined) all.push(ofFlannel(flanneld));
  return all;
}

function denim(name: string, program: readonly [string, ...string[]]): Contestant {
  return {
    name,
    program: (node, storeFlags) => [
      ...program,
      "agent",
      ...storeFlags,
      ...["--subnet-file", node.subnetFile],
      ...["--api-socket", node.apiSocket],
    ],
    isFlanneld: false,
  };
}

function ofFlannel(program: string): Contestant {
  return {
    name: "flanneld",
    program: (node, storeFlags) => [
      program,
      ...storeFlags,
      ...["--subnet-file", node.subnetFile, "--iface", "eth0", "--healthz-port", "0"],
    ],
    isFlanneld: true,
  };
}

/** Another checkout's agent, by that checkout's own tools and flags. */
async function deployedFrom(
  tree: string,
  folder: string,
): Promise<readonly [string, ...string[]]> {
  const run = async (args: readonly string[]) => {
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [...args],
      cwd: tree,
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    if (!success) throw new RuntimeError(`${tree}: ${decoder.decode(stderr).trim()}`);
    return decoder.decode(stdout);
  };
  await run(["run", "-A", ".ci/bundle.ts", folder]);
  const asks = "import { denoFlags } from './agent/program.ts';" +
    "console.log(JSON.stringify(denoFlags('agent')))";
  return deployed("agent", folder, JSON.parse(await run(["eval", "--quiet", asks])));
}
