/**
 * `denim config`: reads, checks and writes the net-conf.
 *
 * @module
 */

import { ConfigError, type LeaseAdmin, messageOf, noNetConf, RuntimeError } from "@denim/core";
import type { AnyBackend } from "./data_paths.ts";
import { checkNetConf } from "./net_conf.ts";
import { runStoreCommand } from "./store_command.ts";

const HELP = `Usage: denim config get
       denim config check [FILE]
       denim config set [FILE]

get prints the cluster's net-conf; check says whether a node could use the one in FILE, or else the
cluster's; set writes the one in FILE, or else on standard input, where a node could use it. FILE may
be - for standard input. Nodes that run follow a change.
`;

/** Runs `denim config`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or a bad net-conf. */
export async function runConfig(
  backends: readonly AnyBackend[],
  args: readonly string[],
): Promise<number> {
  return await runStoreCommand({
    name: "denim config",
    help: HELP,
    flags: {},
    creates: ([action, file]) => action === "set" || action === "check" && file !== undefined,
    async run(store, { operands }, print, signal) {
      const [action, file, ...more] = operands;
      if (more.length > 0 || action === "get" && file !== undefined) {
        throw new ConfigError(`${[...more, file][0]}: is one operand too many`);
      }
      switch (action) {
        case "get":
          return print((await current(store, signal)).replace(/\n$/, ""));
        case "check": {
          const text = file === undefined ? await current(store, signal) : await readText(file);
          return print(describe(check(text, file ?? store.description, backends)));
        }
        case "set": {
          const text = await readText(file ?? "-");
          const config = check(text, file ?? "-", backends);
          await store.setNetworkConfig(text, { ifAbsent: false }, signal);
          return print(`${store.description}: ${describe(config)}`);
        }
        default:
          throw new ConfigError(`${action ?? "nothing"}: is not get, check or set; see --help`);
      }
    },
  }, args);
}

async function current(store: LeaseAdmin, signal: AbortSignal): Promise<string> {
  const text = await store.networkConfigText(signal);
  if (text !== undefined) return text;
  throw noNetConf(store.description);
}

function check(
  text: string,
  where: string,
  backends: readonly AnyBackend[],
): ReturnType<typeof checkNetConf> {
  try {
    return checkNetConf(text, backends);
  } catch (error) {
    throw new ConfigError(`${where === "-" ? "standard input" : where}: ${messageOf(error)}`);
  }
}

async function readText(file: string): Promise<string> {
  if (file === "-") return await new Response(Deno.stdin.readable).text();
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    throw new RuntimeError(`${file} can't be read: ${messageOf(error)}`);
  }
}

function describe({ families, backend }: ReturnType<typeof checkNetConf>): string {
  const networks = families.map(({ network, subnetLength, subnetMin, subnetMax }) =>
    `${network}, a /${subnetLength} a node from ${subnetMin} to ${subnetMax}`
  );
  return `${networks.join("; ")}; backend ${backend.type}`;
}
