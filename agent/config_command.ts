/**
 * `denim config`: reads, checks and writes the net-conf.
 *
 * @module
 */

import { ConfigError, type LeaseAdmin, messageOf, noNetConf, RuntimeError } from "@denim/core";
import type { AnyBackend } from "./net_conf.ts";
import { checkNetConf } from "./net_conf.ts";
import { runStoreCommand } from "./store_command.ts";

const HELP = `Usage: denim config get
       denim config check [FILE]
       denim config set [FILE]

get prints the cluster's net-conf. check says whether a node can use the net-conf in FILE; without
FILE, the cluster's. set checks the net-conf in FILE, or on standard input, and writes it to the
store; running nodes follow it. FILE may be - for standard input.
`;

/** Runs `denim config`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or a bad net-conf. */
export async function runConfig(
  backends: readonly AnyBackend[],
  args: readonly string[],
): Promise<number> {
  return await runStoreCommand({
    name: "denim config",
    help: HELP,
    flags: [],
    creates: ([action]) => action === "set",
    async run(open, { operands }, print, signal) {
      const [action, file, ...more] = operands;
      if (more.length > 0 || action === "get" && file !== undefined) {
        throw new ConfigError(`${[...more, file][0]}: one operand too many; see --help`);
      }
      switch (action) {
        case "get":
          return print((await current(await open(), signal)).replace(/\n$/, ""));
        case "check": {
          if (file !== undefined) {
            return print(describe(check(await readText(file), file, backends)));
          }
          const store = await open();
          const text = await current(store, signal);
          return print(describe(check(text, store.description, backends)));
        }
        case "set": {
          const text = await readText(file ?? "-");
          const config = check(text, file ?? "-", backends);
          const store = await open();
          await store.setNetworkConfig(text, { ifAbsent: false }, signal);
          return print(`${store.description}: ${describe(config)}`);
        }
        default:
          throw new ConfigError(
            action === undefined
              ? "say get, check or set; see --help"
              : `${action}: not one of get, check, set; see --help`,
          );
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
    if (!(error instanceof ConfigError)) throw error;
    const document = where === "-" ? "standard input" : where;
    throw new ConfigError(`${document}: ${error.message}`, { cause: error });
  }
}

async function readText(file: string): Promise<string> {
  if (file === "-") return await new Response(Deno.stdin.readable).text();
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    throw new RuntimeError(`${file}: cannot read it: ${messageOf(error)}`, { cause: error });
  }
}

function describe({ families, backend }: ReturnType<typeof checkNetConf>): string {
  const networks = families.map(({ network, subnetLength, subnetMin, subnetMax }) =>
    `${network}, a /${subnetLength} a node from ${subnetMin} to ${subnetMax}`
  );
  return `${networks.join("; ")}; backend ${backend.type}`;
}
