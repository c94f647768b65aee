/**
 * denim as a service of systemd.
 *
 * @module
 */

import { ConfigError, messageOf, RuntimeError } from "@denim/core";
import { DEFAULT_CALLS_FOLDER } from "@denim/plugin/calls";
import { environmentName, type ParsedFlags } from "../flag_table.ts";
import { parseAgentFlags, type Setting, SETTINGS } from "../flags.ts";
import { isThere, textIfThere, type WantedFile } from "./host_files.ts";

/** The unit's name. */
export const UNIT = "denim.service";
/** Where the unit is. */
export const UNIT_PATH = `/etc/systemd/system/${UNIT}`;
/** Where the agent's settings are, which may have secrets. */
export const ENVIRONMENT_PATH = "/etc/denim/denim.env";
/** flanneld's unit. */
export const FLANNELD_UNIT = "flanneld.service";
/** What has flanneld's unit run denim. */
export const FLANNELD_DROP_IN_PATH = `/etc/systemd/system/${FLANNELD_UNIT}.d/denim.conf`;
/** Deno's cache, if the agent is run by Deno. */
export const CACHE_PATH = "/var/cache/denim";

/** The variable with the flags that can't be variables, since they are given several times. */
const FLAGS_VARIABLE = "DENIM_FLAGS";

/** Runs systemctl(1). Throws a RuntimeError with what it says. */
export function systemctl(...args: readonly string[]): string {
  try {
    const { success, stdout, stderr } = new Deno.Command("systemctl", {
      args: [...args],
      stdin: "null",
    }).outputSync();
    const decoder = new TextDecoder();
    if (success) return decoder.decode(stdout).trim();
    throw new RuntimeError(`systemctl ${args.join(" ")}: ${decoder.decode(stderr).trim()}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new RuntimeError(`systemctl: ${messageOf(error)}`, { cause: error });
  }
}

/** Whether systemd runs this machine (sd_booted(3)). */
export function isSystemdThere(): boolean {
  return isThere("/run/systemd/system");
}

/** The settings that were given, by their names. */
export function givenSettings(flags: ParsedFlags<Setting>): readonly Setting["name"][] {
  return SETTINGS.map(({ name }) => name).filter((name) => flags.source(name) !== "default");
}

/** The settings that were given, as EnvironmentFile= takes them (systemd.exec(5)). */
export function environmentFile(flags: ParsedFlags<Setting>): WantedFile {
  const given = givenSettings(flags).map((name) => ({ name, texts: flags.texts(name) }));
  // A variable has one value. Secrets are given once.
  const words = given.filter(({ texts }) => texts.length > 1)
    .flatMap(({ name, texts }) => texts.map((text) => quoted(`--${name}=${text}`)));
  const lines = [
    "# Settings of denim's agent, made by denim install: each flag of denim agent, as FLANNELD_…",
    ...given.filter(({ texts }) => texts.length === 1)
      .map(({ name, texts }) => `${environmentName(name)}=${quoted(texts[0]!)}`),
    ...words.length === 0 ? [] : [`${FLAGS_VARIABLE}=${quoted(words.join(" "))}`],
  ];
  return { path: ENVIRONMENT_PATH, mode: 0o600, content: `${lines.join("\n")}\n` };
}

/** A value as the file has it. */
function quoted(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  return `"${text.replaceAll(/["\\$`]/g, (special) => `\\${special}`)}"`;
}

/** What a settings file says: variables, and flags. Reads what {@link environmentFile} writes, and simple edits of it. */
export function readEnvironmentFile(): {
  readonly environment: Readonly<Record<string, string>>;
  readonly args: readonly string[];
} {
  const environment: Record<string, string> = {};
  for (const line of (textIfThere(ENVIRONMENT_PATH) ?? "").split("\n")) {
    const match = /^\s*([A-Za-z_]\w*)=(.*?)\s*$/.exec(line);
    if (match !== null) environment[match[1]!] = unquoted(match[2]!);
  }
  const words = (environment[FLAGS_VARIABLE] ?? "").match(/"(\\.|[^"\\])*"|\S+/g) ?? [];
  return { environment, args: words.map(unquoted) };
}

function unquoted(text: string): string {
  const inner = /^"(.*)"$/s.exec(text)?.[1] ?? /^'(.*)'$/s.exec(text)?.[1];
  return inner === undefined ? text : inner.replaceAll(/\\(["\\$`])/g, "$1");
}

/** Has the agent attach pods, unless its settings say otherwise. */
const CALLS_BY_DEFAULT = `Environment=${environmentName("cni-calls")}=${DEFAULT_CALLS_FOLDER}\n`;

/** What {@link unitFile} is told. */
export interface UnitOptions {
  /** The program. */
  readonly program: string;
  /** Whether the node's kubelet and container runtime wait for denim. */
  readonly first: boolean;
  /** Whether the agent attaches pods for the CNI plugin. */
  readonly attaches: boolean;
}

/**
 * The unit. The agent keeps capabilities for what it does: the kernel's network, ICMP errors by raw sockets, reading
 * certificates of other users, and asking which process has a TUN device. To attach pods it enters their namespaces, and
 * sees the file system as the plugin does. What it has started lives on: wireguard-go carries pods' packets.
 */
export function unitFile({ program, first, attaches }: UnitOptions): WantedFile {
  // A cluster that keeps its leases in Kubernetes may have its API server on this node, run by its kubelet.
  const before = first
    ? "Before=kubelet.service containerd.service crio.service docker.service\n"
    : "";
  const [calls, capabilities, namespaces] = attaches
    ? [CALLS_BY_DEFAULT, " CAP_SYS_ADMIN CAP_SYS_CHROOT", "net mnt"]
    : ["", "", "yes"];
  const content = `# Made by denim install.
[Unit]
Description=denim, the network between containers of all nodes
Wants=network-online.target
After=network-online.target etcd.service
${before}Conflicts=flanneld.service
After=flanneld.service
StartLimitIntervalSec=0

[Service]
Type=notify
EnvironmentFile=-${ENVIRONMENT_PATH}
Environment=DENO_DIR=${CACHE_PATH}
${calls}ExecStart=${program} agent $${FLAGS_VARIABLE}
Restart=always
RestartSec=1
TimeoutStartSec=90
WatchdogSec=20
WatchdogSignal=SIGKILL
OOMScoreAdjust=-500
# A program that is WireGuard where the kernel has none goes on: pods talk on.
KillMode=process

StateDirectory=denim
StateDirectoryMode=0700
CacheDirectory=denim
RuntimeDirectory=flannel denim
RuntimeDirectoryPreserve=yes
UMask=0022

CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_DAC_READ_SEARCH CAP_SYS_PTRACE${capabilities}
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=${namespaces}
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`;
  return { path: UNIT_PATH, mode: 0o644, content };
}

/**
 * What has flanneld's unit run denim in flanneld's place, and leaves all else as it is: its settings, what it does
 * after the start (mk-docker-opts.sh), and the units that wait for it. Throws a ConfigError if denim does not take the
 * arguments, and a RuntimeError if there is no such unit.
 *
 * @param program denim
 */
export function flanneldDropIn(program: string): WantedFile {
  const [, wrapper, args] = /^(\S+)\s*(.*)$/.exec(flanneldCommand())!;
  // Fedora's unit runs a script that makes flags of two variables.
  const words = wrapper!.endsWith("/flanneld-start")
    ? `-etcd-endpoints=\${FLANNEL_ETCD_ENDPOINTS} -etcd-prefix=\${FLANNEL_ETCD_PREFIX} ${args}`
    : args!;
  const literal = words.split(/\s+/).filter((word) => word !== "" && !word.includes("$"));
  try {
    parseAgentFlags(literal.map(unquoted), {});
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${FLANNELD_UNIT}: ${error.message}`, { cause: error });
  }
  const content = `# Made by denim install: flanneld's unit runs denim.
[Service]
Type=notify
Environment=DENO_DIR=${CACHE_PATH}
${CALLS_BY_DEFAULT}ExecStart=
ExecStart=${program} agent ${words}
Restart=always
WatchdogSec=20
WatchdogSignal=SIGKILL
CacheDirectory=denim
`;
  return { path: FLANNELD_DROP_IN_PATH, mode: 0o644, content };
}

/** How flanneld's unit starts flanneld. */
function flanneldCommand(): string {
  // Each file begins with its path in a comment.
  const files = systemctl("cat", FLANNELD_UNIT).split(/^(?=# \/)/m)
    .filter((text) => !text.startsWith(`# ${FLANNELD_DROP_IN_PATH}`));
  const text = files.join("").replaceAll(/\\\n\s*/g, " ");
  const commands = [...text.matchAll(/^ExecStart=[-@:+!]*(.*)$/gm)].map(([, command]) =>
    command!.trim()
  );
  const command = commands.at(-1);
  if (command) return command;
  throw new RuntimeError(`${FLANNELD_UNIT}: it has no ExecStart`);
}
