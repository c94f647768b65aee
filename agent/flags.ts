/**
 * The agent's flags: flannel's names, defaults and meanings, each also as `FLANNELD_…` in the environment.
 *
 * @module
 */

import { ConfigError, DEFAULT_SUBNET_FILE, type Family, IpAddress } from "@denim/core";
import { parseArgs } from "@std/cli/parse-args";
import { isIPv4, isIPv6 } from "@std/net/unstable-ip";
import { existsSync } from "node:fs";
import type { LogFormat } from "./log.ts";

/** Where leases live. */
export type StoreSpec =
  | { readonly kind: "sqlite"; readonly path: string }
  | ({ readonly kind: "etcd" } & EtcdSpec);

/** Which etcd, and how to get in. */
export interface EtcdSpec {
  /** The servers' URLs. */
  readonly endpoints: readonly string[];
  /** What all keys begin with. */
  readonly prefix: string;
  /** The user to act as. */
  readonly username: string | undefined;
  /** The user's password: never logged. */
  readonly password: string | undefined;
  /** The file with the client's certificate. */
  readonly certFile: string | undefined;
  /** The file with the client's private key. */
  readonly keyFile: string | undefined;
  /** The file with the CAs that may have signed the servers' certificates. */
  readonly caFile: string | undefined;
}

/** What the agent was told. */
export interface AgentFlags {
  /** Where leases live. */
  readonly store: StoreSpec;
  /** The file that seeds an embedded store which has no net-conf; `undefined` where there is none. */
  readonly netConfigPath: string | undefined;
  /** The outer interface, by name or address, in order of preference. */
  readonly iface: readonly string[];
  /** Patterns for the outer interface's name or address, tried after `iface`. */
  readonly ifaceRegex: readonly RegExp[];
  /** The outer interface is the one that reaches this address; tried last. */
  readonly ifaceCanReach: IpAddress | undefined;
  /** The addresses at which other nodes reach this one, where they are not the interface's. */
  readonly publicIps: ReadonlyMap<Family, IpAddress>;
  /** Where subnet.env is written. */
  readonly subnetFile: string;
  /** How long before its end a lease is renewed, in milliseconds. */
  readonly renewMarginMs: number;
  /** Where health is served; `undefined` for nowhere. */
  readonly healthz: { readonly hostname: string; readonly port: number } | undefined;
  /** The form of log lines. */
  readonly logFormat: LogFormat;
  /** Whether debug messages are written. */
  readonly debug: boolean;
}

/** One flag, as help shows it. */
interface FlagSpec {
  readonly name: string;
  readonly type: "string" | "strings" | "boolean";
  readonly value?: string;
  readonly help: string;
}

const AGENT = "denim agent";
const DEFAULT_NET_CONFIG = "/etc/kube-flannel/net-conf.json";
const DEFAULT_STORE = "sqlite:/var/lib/denim/denim.db";

/** flannel's. Of the two, one is enough. */
const DEFAULT_ENDPOINTS = "http://127.0.0.1:4001,http://127.0.0.1:2379";

/** The flags that say where leases live, for every command that reads or writes them. */
const STORE_FLAGS: readonly FlagSpec[] = [
  {
    name: "store",
    type: "string",
    value: DEFAULT_STORE,
    help:
      "where leases live: sqlite:PATH, a file shared by the agents of one machine, or etcd; etcd " +
      "also where any --etcd flag is given",
  },
  {
    name: "etcd-endpoints",
    type: "string",
    value: DEFAULT_ENDPOINTS,
    help: "URLs of etcd's servers, comma-separated; one that answers is enough",
  },
  {
    name: "etcd-prefix",
    type: "string",
    value: "/coreos.com/network",
    help: "what all keys in etcd begin with",
  },
  { name: "etcd-cafile", type: "string", help: "CAs of etcd's certificate; else the system's" },
  { name: "etcd-certfile", type: "string", help: "certificate to show to etcd" },
  { name: "etcd-keyfile", type: "string", help: "private key of that certificate" },
  { name: "etcd-username", type: "string", help: "user to act as in etcd" },
  {
    name: "etcd-password",
    type: "string",
    help: "that user's password; give it as FLANNELD_ETCD_PASSWORD, since all users see arguments",
  },
];

const AGENT_FLAGS: readonly FlagSpec[] = [
  ...STORE_FLAGS,
  {
    name: "net-config-path",
    type: "string",
    value: DEFAULT_NET_CONFIG,
    help: "net-conf that seeds an embedded store which has none yet",
  },
  {
    name: "iface",
    type: "strings",
    help:
      "interface to other nodes, by name or IP; may be repeated, the first that is there is used",
  },
  {
    name: "iface-regex",
    type: "strings",
    help: "pattern for the interface's name or IP; may be repeated; tried after --iface",
  },
  {
    name: "iface-can-reach",
    type: "string",
    help: "IP that the interface reaches, as `ip route get` would choose it; tried last",
  },
  { name: "public-ip", type: "string", help: "IPv4 at which other nodes reach this one" },
  { name: "public-ipv6", type: "string", help: "IPv6 at which other nodes reach this one" },
  {
    name: "subnet-file",
    type: "string",
    value: DEFAULT_SUBNET_FILE,
    help: "where to write what the CNI plugin needs",
  },
  {
    name: "subnet-lease-renew-margin",
    type: "string",
    value: "60",
    help: "minutes before its end at which a lease is renewed, 1 to 1439",
  },
  { name: "healthz-ip", type: "string", value: "127.0.0.1", help: "address to serve health on" },
  {
    name: "healthz-port",
    type: "string",
    value: "0",
    help: "port for /healthz and /readyz; 0: none",
  },
  { name: "log-format", type: "string", value: "text", help: "form of log lines: text or json" },
  { name: "debug", type: "boolean", help: "log what is of use while a fault is looked for" },
  { name: "help", type: "boolean", help: "print this and exit" },
];

/** Flags of flannel's that denim knows of and does not do yet; silence would be a false promise. */
const NOT_YET: readonly string[] = [
  "kube-subnet-mgr",
  "kube-api-url",
  "kube-annotation-prefix",
  "kubeconfig-file",
  "ip-masq",
  "ip-masq-fully-random-disable",
  "iptables-resync",
  "iptables-forward-rules",
  "ip-blackhole-route",
  "set-node-network-unavailable",
];

/** The agent's help text. */
export function agentHelp(): string {
  return [
    "Usage: denim agent [flags]",
    "",
    "Leases this node a subnet and keeps its way to every other node.",
    "Each flag may also come from the environment: --public-ip as FLANNELD_PUBLIC_IP.",
    "",
    flagsHelp(AGENT_FLAGS),
    "",
  ].join("\n");
}

/** The help text of the flags that say where leases live. */
export function storeHelp(): string {
  return flagsHelp(STORE_FLAGS);
}

function flagsHelp(flags: readonly FlagSpec[]): string {
  return flags.map(({ name, type, value, help }) => {
    const left = `  --${name}${type === "boolean" ? "" : " VALUE"}`.padEnd(38);
    return `${left}${help}${value === undefined ? "" : ` (${value})`}`;
  }).join("\n");
}

/**
 * Reads the agent's flags from its arguments, and from the environment what they leave out. `"help"` where
 * help was asked for. Throws a ConfigError that names the flag.
 */
export function parseAgentFlags(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): AgentFlags | "help" {
  const raw = readFlags(AGENT, AGENT_FLAGS, args, environment);
  if (raw.boolean("help")) return "help";
  const explicitNetConfig = raw.given("net-config-path");
  const netConfigPath = raw.string("net-config-path")!;
  return {
    store: parseStore(raw),
    netConfigPath: explicitNetConfig || existsSync(netConfigPath) ? netConfigPath : undefined,
    iface: raw.strings("iface"),
    ifaceRegex: raw.strings("iface-regex").map(parseRegex),
    ifaceCanReach: parseAddress("iface-can-reach", raw.string("iface-can-reach")),
    publicIps: new Map([
      ...publicIp("public-ip", 4, isIPv4, raw.string("public-ip")),
      ...publicIp("public-ipv6", 6, isIPv6, raw.string("public-ipv6")),
    ]),
    subnetFile: raw.string("subnet-file")!,
    renewMarginMs: wholeNumber(raw, "subnet-lease-renew-margin", 1, 1439) * 60_000,
    healthz: healthz(raw),
    logFormat: parseLogFormat(raw.string("log-format")!),
    debug: raw.boolean("debug"),
  };
}

/** What a command that reads or writes the store was told. */
export interface StoreCommandFlags {
  /** Where leases live. */
  readonly store: StoreSpec;
  /** The arguments that are no flags. */
  readonly operands: readonly string[];
  /** The command's own flags that were given, those without a value as "true". */
  readonly own: ReadonlyMap<string, string>;
}

/**
 * Reads the arguments of a command that reads or writes the store: flags as {@link parseAgentFlags} has
 * them, and operands. `"help"` where help was asked for. Throws a ConfigError that names the flag.
 *
 * @param command the command, for messages: `denim leases`
 * @param own the command's own flags: their names, and whether they take a value
 */
export function parseStoreFlags(
  command: string,
  own: Readonly<Record<string, "string" | "boolean">>,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): StoreCommandFlags | "help" {
  const specs: FlagSpec[] = [
    ...STORE_FLAGS,
    ...Object.entries(own).map(([name, type]) => ({ name, type, help: "" })),
    { name: "help", type: "boolean", help: "" },
  ];
  const raw = readFlags(command, specs, args, environment);
  if (raw.boolean("help")) return "help";
  const given = Object.keys(own).filter((name) => raw.given(name));
  return {
    store: parseStore(raw),
    operands: raw.operands,
    own: new Map(given.map((name) => [name, raw.string(name)!])),
  };
}

/** Flags by name, from wherever they came. */
interface RawFlags {
  /** What is no flag. */
  readonly operands: readonly string[];
  given(name: string): boolean;
  string(name: string): string | undefined;
  strings(name: string): readonly string[];
  boolean(name: string): boolean;
}

function readFlags(
  command: string,
  flags: readonly FlagSpec[],
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): RawFlags {
  const named = (type: FlagSpec["type"]) =>
    flags.filter((flag) => flag.type === type).map(({ name }) => name);
  const operands: string[] = [];
  const unknown: string[] = [];
  // Go's flags, which flannel's are, may have one dash or two.
  const dashed = args.map((arg) => arg.replace(/^-(?=[a-z][a-z0-9-]+)/, "--"));
  const parsed: Record<string, unknown> = parseArgs(dashed, {
    string: [...named("string"), ...named("strings")],
    boolean: named("boolean"),
    collect: named("strings"),
    unknown: (arg) => {
      if (/^-./.test(arg)) unknown.push(arg);
      else operands.push(arg);
      return false;
    },
  });
  // The agent takes no operands: one is a slip.
  const [stranger] = [...unknown, ...command === AGENT ? operands : []];
  if (stranger !== undefined) throw unknownFlag(command, stranger);
  const fromEnvironment = (name: string) =>
    environment[`FLANNELD_${name.toUpperCase().replaceAll("-", "_")}`];
  for (const name of NOT_YET) {
    if (fromEnvironment(name) !== undefined) {
      throw unknownFlag(command, `--${name} (from the environment)`);
    }
  }
  const lookup = (name: string): unknown => {
    const value = parsed[name];
    const absent = value === undefined || value === false ||
      Array.isArray(value) && value.length === 0;
    return absent ? fromEnvironment(name) : value;
  };
  const single = (name: string): string | undefined => {
    const value = lookup(name);
    if (value === "") throw new ConfigError(`--${name} needs a value`);
    return value === undefined ? undefined : String(value);
  };
  return {
    operands,
    given: (name) => lookup(name) !== undefined,
    string: (name) => single(name) ?? flags.find((flag) => flag.name === name)?.value,
    strings: (name) => {
      const value = lookup(name);
      return value === undefined ? [] : [value].flat().map(String);
    },
    boolean: (name) => ["true", "1"].includes(String(lookup(name))),
  };
}

function unknownFlag(command: string, arg: string): ConfigError {
  const name = /^--?(?:no-)?([^=\s]+)/.exec(arg)?.[1];
  return new ConfigError(
    name !== undefined && NOT_YET.includes(name)
      ? `--${name}: denim does not do this yet; leave it out`
      : `${arg.split("=")[0]}: no such flag of ${command}; see ${command} --help`,
  );
}

function parseStore(raw: RawFlags): StoreSpec {
  const etcdFlags = STORE_FLAGS.map(({ name }) => name).filter((name) => name.startsWith("etcd-"));
  const given = etcdFlags.find((name) => raw.given(name));
  const text = raw.string("store")!;
  if (raw.given("store") ? text === "etcd" : given !== undefined) return parseEtcd(raw);
  const path = /^sqlite:(.+)$/.exec(text)?.[1];
  if (path === undefined) {
    throw new ConfigError(`--store ${text}: no such kind of store; use sqlite:PATH or etcd`);
  }
  if (given === undefined) return { kind: "sqlite", path };
  throw new ConfigError(`--store ${text} and --${given}: leases live in one place; leave one out`);
}

function parseEtcd(raw: RawFlags): StoreSpec {
  const endpoints = raw.string("etcd-endpoints")!.split(",").map((text) => text.trim())
    .filter((text) => text !== "").map(parseEndpoint);
  const prefix = raw.string("etcd-prefix")!;
  const username = raw.string("etcd-username");
  const password = raw.string("etcd-password");
  const [certFile, keyFile] = [raw.string("etcd-certfile"), raw.string("etcd-keyfile")];
  if (endpoints.length === 0) throw new ConfigError("--etcd-endpoints names none");
  if (password !== undefined && username === undefined) {
    throw new ConfigError("--etcd-password needs --etcd-username");
  }
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new ConfigError("--etcd-certfile and --etcd-keyfile go together: give both or neither");
  }
  const caFile = raw.string("etcd-cafile");
  return { kind: "etcd", endpoints, prefix, username, password, certFile, keyFile, caFile };
}

/** No scheme means `http`, as in etcd's own client; no port means etcd's. */
function parseEndpoint(text: string): string {
  if (text.includes("@")) {
    throw new ConfigError(
      "--etcd-endpoints: a URL holds a user's name or password; give --etcd-username, and the " +
        "password as FLANNELD_ETCD_PASSWORD",
    );
  }
  const url = URL.parse(/^[a-z]+:\/\//i.test(text) ? text : `http://${text}`);
  if (
    url === null || !["http:", "https:"].includes(url.protocol) || url.pathname !== "/" ||
    url.search !== "" || url.hash !== ""
  ) throw new ConfigError(`--etcd-endpoints ${text}: is no URL such as http://10.0.0.1:2379`);
  // A URL keeps no port that is its scheme's own.
  const port = url.port || (/:(80|443)\/?$/.exec(text)?.[1] ?? "2379");
  return `${url.protocol}//${url.hostname}:${port}`;
}

function parseRegex(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new ConfigError(`--iface-regex ${text}: is no regular expression`);
  }
}

function parseAddress(name: string, text: string | undefined): IpAddress | undefined {
  if (text === undefined) return undefined;
  const address = IpAddress.tryParse(text);
  if (address === undefined) throw new ConfigError(`--${name} ${text}: is no IP address`);
  return address;
}

function publicIp(
  name: string,
  family: Family,
  valid: (text: string) => boolean,
  text: string | undefined,
): (readonly [Family, IpAddress])[] {
  if (text === undefined) return [];
  if (!valid(text)) throw new ConfigError(`--${name} ${text}: is no IPv${family} address`);
  return [[family, IpAddress.parse(text)]];
}

function wholeNumber(raw: RawFlags, name: string, least: number, most: number): number {
  const text = raw.string(name)!;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw new ConfigError(`--${name} ${text}: must be a whole number from ${least} to ${most}`);
}

function healthz(raw: RawFlags): AgentFlags["healthz"] {
  const port = wholeNumber(raw, "healthz-port", 0, 65_535);
  const address = parseAddress("healthz-ip", raw.string("healthz-ip"))!;
  return port === 0 ? undefined : { hostname: `${address}`, port };
}

function parseLogFormat(text: string): LogFormat {
  if (text === "text" || text === "json") return text;
  throw new ConfigError(`--log-format ${text}: must be text or json`);
}
