/**
 * `denim config`: reads, checks and writes the net-conf.
 *
 * @module
 */

import {
  ConfigError,
  fitsConfig,
  hostsOf,
  hostWithin,
  type LeaseAdmin,
  type LeaseStore,
  messageOf,
  type NetworkConfig,
  networksOf,
  NO_METRICS,
  noNetConf,
  RuntimeError,
} from "@denim/core";
import { Findings } from "./findings.ts";
import { flag, type ParsedFlags } from "./flag_table.ts";
import { toggle } from "./flag_types.ts";
import { interfaceChoice, masqueradeChoice, NODE_FLAGS, type NodeFlag } from "./flags.ts";
import { serverAddresses } from "./host_network.ts";
import type { AnyBackend } from "./net_conf.ts";
import { checkNetConf } from "./net_conf.ts";
import { runStoreCommand } from "./store_command.ts";
import { chooseStore, isStoreNamed, type StoreFlag } from "./stores/mod.ts";
import type { StoreKind } from "./stores/store_kind.ts";

const HELP = `Usage: denim config get
       denim config check [--node] [FILE]
       denim config set [FILE]

get prints the cluster's net-conf. check says whether a node can use the net-conf in FILE; without
FILE, the cluster's. With FILE and a store it also says which nodes' leases do not fit. With --node
it says what an agent would say on this node, started with the same flags; it changes nothing. set
checks the net-conf in FILE, or on standard input, and writes it to the store; running nodes follow
it. FILE may be - for standard input.

Exit code: 0 if an agent would start, 2 if a setting is wrong, 1 if something else is.
`;

const CHECK_FLAGS = [
  flag("node", toggle, "check this node, too: run it as root, with the agent's flags"),
] as const;

type CheckFlag = typeof CHECK_FLAGS[number] | NodeFlag;

/** Runs `denim config`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or a bad net-conf. */
export async function runConfig(
  backends: readonly AnyBackend[],
  args: readonly string[],
): Promise<number> {
  return await runStoreCommand<CheckFlag>({
    name: "denim config",
    help: HELP,
    // Only a check has a node to ask.
    flags: args.includes("check") ? [...CHECK_FLAGS, ...NODE_FLAGS] : [],
    creates: ([action]) => action === "set",
    async run(open, flags, print, signal) {
      const [action, file, ...more] = flags.operands;
      if (more.length > 0 || action === "get" && file !== undefined) {
        throw new ConfigError(`${[...more, file][0]}: one operand too many; see --help`);
      }
      switch (action) {
        case "get":
          return print((await current(await open(), signal)).replace(/\n$/, ""));
        case "check":
          return await checkAll({ backends, open, flags, file, print, signal });
        case "set": {
          const text = await readText(file ?? "-");
          const config = check(file ?? "-", () => checkNetConf(text, { backends }));
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

/** What `denim config check` works with. */
interface CheckOptions {
  readonly backends: readonly AnyBackend[];
  readonly open: () => Promise<LeaseAdmin & Pick<LeaseStore, "servers">>;
  readonly flags: ParsedFlags<CheckFlag | StoreFlag>;
  /** The file to check; `undefined` for what the store has. */
  readonly file: string | undefined;
  readonly print: (text: string) => void;
  readonly signal: AbortSignal;
}

/** Checks a net-conf, what the store has against it, and this node; prints what is found, and gives the exit code. */
async function checkAll(options: CheckOptions): Promise<number> {
  const { backends, open, flags, print, signal } = options;
  const { values } = flags;
  const findings = new Findings();
  const { kind, spec } = chooseStore(flags);
  // A store that denim can't administer takes the net-conf from a file on each node.
  const isElsewhere = kind.openAdmin === undefined;
  const file = options.file ?? (isElsewhere ? values["net-config-path"] : undefined);
  // Without a file it is the store's: then nothing can be said if that is out of reach. One that is not there yet is
  // the agent's to make.
  const store = file === undefined
    ? await open()
    : isStoreNamed(flags) && !isElsewhere && await kind.missing?.(spec) === undefined
    ? await findings.attempt(open)
    : undefined;
  const text = file === undefined ? await current(store!, signal) : await readText(file);
  const masquerade = masqueradeChoice(values);
  const config = check(file ?? store!.description, () =>
    checkNetConf(text, {
      backends,
      log: findings.log,
    }));
  const servers = isElsewhere && values.node
    ? await findings.attempt(() => askAgentsStore(kind, spec, file!, findings, signal))
    : store?.servers;
  if (store !== undefined) {
    await findings.attempt(() => checkStore(config, store, findings, signal));
  }
  if (values.node) {
    const { checkNode } = await import("./node_check.ts");
    await checkNode({
      config,
      backends,
      choice: interfaceChoice(values),
      subnetFile: values["subnet-file"],
      masquerade,
      servers: servers ?? [],
      findings,
    });
  }
  for (const text of findings.warnings) console.error(`denim config: warning: ${text}`);
  for (const text of findings.errors) console.error(`denim config: ${text}`);
  for (const text of findings.notes) print(text);
  if (findings.code === 0) print(describe(config));
  return findings.code;
}

/** How long a store that waits for its servers may take. */
const STORE_PATIENCE_MS = 10_000;

/** Opens a store as an agent does, and asks it one question. Resolves to the hosts of its servers. */
async function askAgentsStore(
  kind: StoreKind,
  spec: unknown,
  file: string,
  { log }: Findings,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const late = AbortSignal.timeout(STORE_PATIENCE_MS);
  const ending = AbortSignal.any([signal, late]);
  const netConfFile = { path: file, isNamed: true };
  try {
    await using store = await kind.open(spec, {
      netConfFile,
      log,
      metrics: NO_METRICS,
      signal: ending,
    });
    await store.held({ publicIps: new Map(), previousSubnets: [] }, ending);
    return store.servers ?? [];
  } catch (error) {
    if (!late.aborted) throw error;
    throw new RuntimeError(
      `the store ${kind.name} has not answered for ${STORE_PATIENCE_MS / 1000} s`,
      {
        cause: error,
      },
    );
  }
}

/** What the store knows: leases that do not fit, and hosts in the pods' networks. */
async function checkStore(
  config: NetworkConfig,
  store: LeaseAdmin & Pick<LeaseStore, "servers">,
  findings: Findings,
  signal: AbortSignal,
): Promise<void> {
  const networks = networksOf(config);
  const leases = await store.leases(signal);
  const servers = await serverAddresses(store.servers ?? []);
  for (const host of [...servers, ...leases.flatMap(hostsOf)]) {
    if (hostWithin(networks, [host]) === undefined) continue;
    findings.warn(
      `${host.address}, the address of ${host.whose}, is in the pod network: no subnet that holds it is leased or ` +
        "routed; choose a pod network in which no host has an address",
    );
  }
  for (const { key, halves } of leases) {
    if (fitsConfig(config, halves.map(({ subnet }) => subnet))) continue;
    findings.warn(
      `the lease ${key} does not fit: its node keeps the net-conf that it has until its pods are drained and its ` +
        "agent is started again",
    );
  }
}

async function current(store: LeaseAdmin, signal: AbortSignal): Promise<string> {
  const text = await store.networkConfigText(signal);
  if (text !== undefined) return text;
  throw noNetConf(store.description);
}

function check(where: string, read: () => NetworkConfig): NetworkConfig {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const document = where === "-" ? "standard input" : where;
    throw new ConfigError(`${document}: ${error.message}`, { cause: error });
  }
}

async function readText(file: string): Promise<string> {
  // Deno lets a program with limited rights read no file in /dev.
  if (file === "-" || file === "/dev/stdin") return await new Response(Deno.stdin.readable).text();
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    throw new RuntimeError(`${file}: cannot read it: ${messageOf(error)}`, { cause: error });
  }
}

function describe({ families, backend }: NetworkConfig): string {
  const networks = families.map(({ network, subnetLength, subnetMin, subnetMax }) =>
    `${network}, a /${subnetLength} a node from ${subnetMin} to ${subnetMax}`
  );
  return `${networks.join("; ")}; backend ${backend.type}`;
}
