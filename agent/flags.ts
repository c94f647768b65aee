/**
 * The agent's flags: flannel's names and meanings, each also as `FLANNELD_…` in the environment. Two defaults
 * differ from flannel's: leases live in an embedded store, and health is served on loopback.
 *
 * @module
 */

import { DEFAULT_SUBNET_FILE, type Family, type IpAddress } from "@denim/core";
import { DEFAULT_CALLS_FOLDER } from "@denim/plugin/calls";
import { API_SOCKET_FLAG, COMMON_FLAGS } from "./common_flags.ts";
import { flag, flagsHelp, type FlagValues, type ParsedFlags, parseFlags } from "./flag_table.ts";
import {
  absolutePathOrNone,
  ignored,
  ipAddress,
  list,
  minutes,
  oneOf,
  request,
  single,
  text,
  toggle,
  wholeNumber,
} from "./flag_types.ts";
import { goRegExp } from "./go_regexp.ts";
import type { MasqueradeChoice } from "./host_state.ts";
import type { InterfaceChoice } from "./outer_interface.ts";
import { STORE_FLAGS, type StoreFlag } from "./stores/mod.ts";

/** The flags of klog, flannel's logger, which denim takes and does not follow. */
const IGNORED_FLAGS = [
  flag("add_dir_header", ignored()),
  flag("alsologtostderr", ignored()),
  flag("log_backtrace_at", ignored("TEXT")),
  flag("log_dir", ignored("PATH")),
  flag("log_file", ignored("PATH")),
  flag("log_file_max_size", ignored("N")),
  flag("logtostderr", ignored()),
  flag("one_output", ignored()),
  flag("skip_headers", ignored()),
  flag("skip_log_headers", ignored()),
  flag("stderrthreshold", ignored("N")),
  flag("v", ignored("N")),
  flag("vmodule", ignored("TEXT")),
] as const;

/** Where subnet.env is. */
export const SUBNET_FILE_FLAG = flag(
  "subnet-file",
  text("PATH"),
  "where to write what the CNI plugin needs",
  DEFAULT_SUBNET_FILE,
);

/** The agent's settings: its flags but for {@link COMMON_FLAGS} and questions. */
export const SETTINGS = [
  ...STORE_FLAGS,
  flag(
    "net-config-path",
    text("PATH"),
    "file with net-conf: with --kube-subnet-mgr the cluster's, else it seeds an embedded store",
    "/etc/kube-flannel/net-conf.json",
  ),
  flag(
    "iface",
    list(text("NAME|IP")),
    "interface to other nodes; may be repeated: the first one that exists is used",
  ),
  flag(
    "iface-regex",
    list(single("PATTERN", goRegExp)),
    "pattern, as Go has them, for the interface's name or IP; may be repeated; tried after --iface",
  ),
  flag(
    "iface-can-reach",
    ipAddress(),
    "IP that the interface reaches, as `ip route get` would choose it; tried last",
  ),
  flag("public-ip", ipAddress(4), "IPv4 address at which other nodes reach this one"),
  flag("public-ipv6", ipAddress(6), "IPv6 address at which other nodes reach this one"),
  SUBNET_FILE_FLAG,
  flag(
    "subnet-lease-renew-margin",
    minutes(1, 1439),
    "how long before its end a lease is renewed, 1 to 1439",
    "60",
  ),
  flag(
    "ip-masq",
    toggle,
    "masquerade: what pods send to the outside leaves under this node's address",
  ),
  flag(
    "ip-masq-fully-random-disable",
    toggle,
    "with --ip-masq: keep pods' source ports if they are free, rather than draw them at random",
  ),
  flag(
    "ip-blackhole-route",
    toggle,
    "drop packets to addresses of this node's subnet that no pod has, rather than let them leave the node",
  ),
  flag(
    "iptables-forward-rules",
    toggle,
    "let pods' packets pass where iptables' FORWARD policy is DROP, as Docker sets it",
    "true",
  ),
  flag(
    "iptables-resync",
    wholeNumber(1, 86_400, "SECONDS"),
    "how often rules of iptables are compared in full; changes of nftables are noticed at once",
    "5",
  ),
  flag(
    "healthz-ip",
    ipAddress(),
    "address to serve /healthz, /readyz and /metrics on; 0.0.0.0, or :: for both families, is all of them",
    "127.0.0.1",
  ),
  flag("healthz-port", wholeNumber(0, 65_535, "PORT"), "port to serve them on; 0: none", "0"),
  flag(
    "page",
    oneOf(["loopback", "always", "never"]),
    "whom to serve the page of the mesh there too, at /: who connects from a loopback address, always everybody " +
      "who reaches the port, never nobody",
    "loopback",
  ),
  API_SOCKET_FLAG,
  flag(
    "cni-calls",
    absolutePathOrNone("PATH"),
    `folder in which the agent attaches pods for the CNI plugin, which asks in ${DEFAULT_CALLS_FOLDER}, or none; ` +
      "pods start sooner; not for agents in containers",
  ),
  flag(
    "probe-peers",
    toggle,
    "ask the other nodes over the data path whether packets reach them, and say which are in trouble",
    "true",
  ),
  flag("log-format", oneOf(["text", "json"]), "form of log lines", "text"),
  ...IGNORED_FLAGS,
] as const;

/** One of {@link SETTINGS}. */
export type Setting = typeof SETTINGS[number];

/** Every flag of `denim agent`. */
export const AGENT_FLAGS = [
  ...SETTINGS,
  ...COMMON_FLAGS,
  flag("version", request, "print the version and exit"),
] as const;

/** Those of {@link SETTINGS} that say what an agent makes of its node, not where leases live. */
export const NODE_FLAGS: readonly NodeFlag[] = SETTINGS.filter((one): one is NodeFlag =>
  !STORE_FLAGS.some(({ name }) => name === one.name)
);

/** One of {@link NODE_FLAGS}. */
export type NodeFlag = Exclude<Setting, { readonly name: StoreFlag["name"] }>;

/** The outer interface that flags choose. */
export function interfaceChoice(values: FlagValues<NodeFlag>): InterfaceChoice {
  const publicIps = [values["public-ip"], values["public-ipv6"]]
    .flatMap((address): (readonly [Family, IpAddress])[] =>
      address === undefined ? [] : [[address.family, address]]
    );
  return {
    iface: values.iface,
    ifaceRegex: values["iface-regex"],
    ifaceCanReach: values["iface-can-reach"],
    publicIps: new Map(publicIps),
  };
}

/** How flags have pods' packets masqueraded; `undefined` if they don't. */
export function masqueradeChoice(values: FlagValues<NodeFlag>): MasqueradeChoice | undefined {
  return values["ip-masq"] ? { fullyRandom: !values["ip-masq-fully-random-disable"] } : undefined;
}

/** One of {@link AGENT_FLAGS}. */
export type AgentFlag = typeof AGENT_FLAGS[number];

/** What the agent was told, by the flags' names. */
export type AgentFlags = FlagValues<AgentFlag>;

/** The agent's help text. */
export function agentHelp(): string {
  return `Usage: denim agent [flags]

Leases this node a subnet, and routes pods' packets to and from every other node.
Each flag may also come from the environment: --public-ip as FLANNELD_PUBLIC_IP. An argument wins.

${flagsHelp(AGENT_FLAGS)}
`;
}

/**
 * Reads the agent's flags from its arguments, and from the environment what they leave out; or says which question
 * was asked. Throws a ConfigError that names the flag.
 */
export function parseAgentFlags(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): ParsedFlags<AgentFlag> | "help" | "version" {
  return parseFlags("denim agent", AGENT_FLAGS, { args, environment });
}

/** The flags that were given and have no effect, as the operator gave them. */
export function ignoredFlags(flags: ParsedFlags<AgentFlag>): readonly string[] {
  return IGNORED_FLAGS.filter(({ name }) => flags.values[name]).map(({ name }) =>
    flags.label(name)
  );
}
