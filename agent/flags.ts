/**
 * The agent's flags: flannel's names, defaults and meanings, each also as `FLANNELD_…` in the environment.
 *
 * @module
 */

import { ConfigError, DEFAULT_SUBNET_FILE, type Family, IpAddress } from "@denim/core";
import { parseArgs } from "@std/cli/parse-args";
import { isIPv4, isIPv6 } from "@std/net/unstable-ip";
import type { LogFormat } from "./log.ts";

/** Where leases live. */
export type StoreSpec = { readonly kind: "sqlite"; readonly path: string };

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

const DEFAULT_NET_CONFIG = "/etc/kube-flannel/net-conf.json";
const DEFAULT_STORE = "sqlite:/var/lib/denim/denim.db";

const FLAGS: readonly FlagSpec[] = [
  {
    name: "store",
    type: "string",
    value: DEFAULT_STORE,
    help: "where leases live: sqlite:PATH, a file shared by the agents of one machine",
  },
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
  "etcd-endpoints",
  "etcd-prefix",
  "etcd-keyfile",
  "etcd-certfile",
  "etcd-cafile",
  "etcd-username",
  "etcd-password",
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
  const lines = FLAGS.map(({ name, type, value, help }) => {
    const left = `  --${name}${type === "boolean" ? "" : " VALUE"}`.padEnd(38);
    return `${left}${help}${value === undefined ? "" : ` (${value})`}`;
  });
  return [
    "Usage: denim agent [flags]",
    "",
    "Leases this node a subnet and keeps its way to every other node.",
    "Each flag may also come from the environment: --public-ip as FLANNELD_PUBLIC_IP.",
    "",
    ...lines,
    "",
  ].join("\n");
}

/**
 * Reads the agent's flags from its arguments, and from the environment what they leave out. `"help"` where
 * help was asked for. Throws a ConfigError that names the flag.
 */
export function parseAgentFlags(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): AgentFlags | "help" {
  const raw = readFlags(args, environment);
  if (raw.boolean("help")) return "help";
  const explicitNetConfig = raw.given("net-config-path");
  const netConfigPath = raw.string("net-config-path")!;
  return {
    store: parseStore(raw.string("store")!),
    netConfigPath: explicitNetConfig || exists(netConfigPath) ? netConfigPath : undefined,
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

/** Flags by name, from wherever they came. */
interface RawFlags {
  given(name: string): boolean;
  string(name: string): string | undefined;
  strings(name: string): readonly string[];
  boolean(name: string): boolean;
}

function readFlags(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): RawFlags {
  const named = (type: FlagSpec["type"]) =>
    FLAGS.filter((flag) => flag.type === type).map(({ name }) => name);
  const unknown: string[] = [];
  // Go's flags, which flannel's are, may have one dash or two.
  const dashed = args.map((arg) => arg.replace(/^-(?=[a-z][a-z0-9-]+)/, "--"));
  const parsed: Record<string, unknown> = parseArgs(dashed, {
    string: [...named("string"), ...named("strings")],
    boolean: named("boolean"),
    collect: named("strings"),
    unknown: (arg) => {
      unknown.push(arg);
      return false;
    },
  });
  const [stranger] = unknown;
  if (stranger !== undefined) throw unknownFlag(stranger);
  const fromEnvironment = (name: string) =>
    environment[`FLANNELD_${name.toUpperCase().replaceAll("-", "_")}`];
  for (const name of NOT_YET) {
    if (fromEnvironment(name) !== undefined) throw unknownFlag(`--${name} (from the environment)`);
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
    given: (name) => lookup(name) !== undefined,
    string: (name) => single(name) ?? FLAGS.find((flag) => flag.name === name)?.value,
    strings: (name) => {
      const value = lookup(name);
      return value === undefined ? [] : [value].flat().map(String);
    },
    boolean: (name) => ["true", "1"].includes(String(lookup(name))),
  };
}

function unknownFlag(arg: string): ConfigError {
  const name = /^--?(?:no-)?([^=\s]+)/.exec(arg)?.[1];
  return new ConfigError(
    name !== undefined && NOT_YET.includes(name)
      ? `--${name}: denim does not do this yet; leave it out`
      : `${arg.split("=")[0]}: no such flag of denim agent; see denim agent --help`,
  );
}

function parseStore(text: string): StoreSpec {
  const path = /^sqlite:(.+)$/.exec(text)?.[1];
  if (path !== undefined) return { kind: "sqlite", path };
  throw new ConfigError(`--store ${text}: no such kind of store; use sqlite:PATH`);
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

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
