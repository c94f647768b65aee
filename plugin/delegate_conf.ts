/**
 * Makes the configuration of the plugin that does the work from the network configuration and subnet.env, as flannel
 * does, and reads it if that plugin is `bridge`, whose work denim does itself.
 *
 * @module
 */

import { messageOf, throwDefect } from "@denim/core/errors";
import { Cidr, IpAddress } from "@denim/core/ip";
import type { MacAddress } from "@denim/core/mac";
import { parseSubnetEnv, type SubnetEnv } from "@denim/core/subnet-env";
import { CNI_CODE, CniError } from "./cni_error.ts";
import { ConfObject, type JsonObject, show } from "./conf_object.ts";
import { type CniArgs, interfaceNameProblem, parseMac } from "./environment.ts";
import {
  addressDirectory,
  type Dns,
  type HostLocalConf,
  readDns,
  readHostLocalConf,
  type RouteConf,
} from "./host_local_conf.ts";
import type { NetworkConf } from "./network_conf.ts";

/** The plugin whose work denim does itself. */
export const BUILT_IN = "bridge";

/** The bridge's name if the configuration gives none, as in the bridge plugin. */
const DEFAULT_BRIDGE = "cni0";

/** The IPAM plugin whose work denim does itself. It is flannel's default. */
const HOST_LOCAL = "host-local";

/**
 * The largest MTU that a pod's devices can have (`ETH_MAX_MTU` in linux/if_ether.h), in bytes. The loopback's is
 * larger by one, and may be in a subnet.env of a node whose outer device it is.
 */
export const MAX_MTU_BYTES = 65_535;

/**
 * The key of a record of denim's that says that denim masquerades the pod. The bridge plugin's own key, `ipMasq`, would
 * have that plugin look for rules that do not exist, if it is the one to take the pod down.
 */
const MASQUERADED = "denimMasquerade";

/** The value of `ipMasqBackend` with which the bridge plugin masquerades by iptables. denim does it by nftables. */
const IPTABLES = "iptables";

/** The keys of `delegate` that flannel overwrites, and refuses in a user's configuration. */
const FILLED_IN = ["name", "ipam"];

/** A configuration of the bridge plugin, read and checked. */
export interface BridgeConf {
  /** The network's name. */
  readonly name: string;
  /** The bridge's name. */
  readonly bridge: string;
  /** Whether the bridge has the gateway's addresses, and the node forwards. */
  readonly isGateway: boolean;
  /** Whether the pod's default routes lead to the gateway. */
  readonly isDefaultGateway: boolean;
  /** Whether denim removes other addresses of the bridge that are in the way of the gateway's. */
  readonly forceAddress: boolean;
  /** Whether the bridge may send a pod's packet back to it by the port that it came from. */
  readonly hairpinMode: boolean;
  /** Whether the bridge is in promiscuous mode. */
  readonly promiscMode: boolean;
  /** Whether IPv6 addresses are probed for duplicates before use (DAD). */
  readonly enableDad: boolean;
  /** The MTU of bridge and pod, in bytes; `undefined` leaves it to the kernel. */
  readonly mtuBytes: number | undefined;
  /** The Ethernet address for the pod's interface; `undefined` leaves it to the kernel. */
  readonly mac: MacAddress | undefined;
  /** Whether denim has the pod's packets to the outside leave under the node's address. */
  readonly isMasqueraded: boolean;
  /** Which addresses and routes the pod gets. */
  readonly ipam: HostLocalConf;
  /** The folder with the network's address files. */
  readonly addressDirectory: string;
  /** The settings for the pod's resolver, for the runtime to pass on. */
  readonly dns: Dns | undefined;
}

/**
 * Reads the agent's subnet.env. Throws a CniError: "try again later" if it is missing, since the agent writes it once
 * the node has a lease; "decoding failure" if it is cut short or wrong.
 */
export function readSubnetEnv(path: string): SubnetEnv {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new CniError(
      CNI_CODE.tryAgainLater,
      `there is no ${path}: the agent writes it once the node has its subnet; see the agent's log`,
      { cause: error },
    );
  }
  try {
    return parseSubnetEnv(text, path);
  } catch (error) {
    throwDefect(error);
    throw new CniError(CNI_CODE.decodingFailure, messageOf(error), { cause: error });
  }
}

function ipamTypeOf(ipam: ConfObject): string {
  return ipam.string("type") || HOST_LOCAL;
}

/** The name of the plugin that a delegate's configuration is for. */
export function typeOf(delegate: ConfObject | undefined): string {
  return delegate?.string("type") || BUILT_IN;
}

/** The name of the bridge that a delegate's configuration is for. */
export function bridgeOf(delegate: ConfObject | undefined): string {
  return delegate?.string("bridge") || DEFAULT_BRIDGE;
}

/** Whether a configuration of the bridge plugin asks for the gateway's addresses on the bridge. */
export function isGatewayOf(delegate: ConfObject): boolean {
  return ["isGateway", "isDefaultGateway"].some((key) => delegate.get(key) === true);
}

/** Whether denim masquerades the pod that a record is of. */
export function isMasqueradedBy(record: ConfObject): boolean {
  return record.get(MASQUERADED) === true;
}

/** What a configuration says under a key: `delegate`, or else the configuration itself. */
function saidOf({ json }: NetworkConf, key: string): unknown {
  return json.object("delegate")?.get(key) ?? json.get(key);
}

/**
 * Whether pods are to be masqueraded by the plugin: as the configuration says, or else, as with flannel, if the agent
 * does not do it. `undefined` if that is for the agent's subnet.env to say, and it is not there.
 */
export function wantsMasquerade(
  conf: NetworkConf,
  env: Pick<SubnetEnv, "ipMasq"> | undefined,
): boolean | undefined {
  const said = saidOf(conf, "ipMasq");
  return said === undefined ? env && !env.ipMasq : said === true;
}

/**
 * Makes what flannel hands to the plugin that does the work: the user's `delegate` with the network's name, the
 * node's subnets and MTU, and routes to the cluster's networks filled in. ADD keeps it for the pod's DEL. Throws a
 * CniError that names the key if the user's part is wrong.
 */
export function renderDelegate(conf: NetworkConf, env: SubnetEnv): ConfObject {
  const delegate = conf.json.object("delegate") ?? new ConfObject({}, "delegate");
  for (const key of FILLED_IN) {
    if (delegate.get(key) !== undefined) {
      throw new CniError(
        CNI_CODE.invalidConfig,
        `${delegate.at(key)} must be left out: denim fills it in`,
      );
    }
  }
  const type = typeOf(delegate);
  if (type !== BUILT_IN && type === conf.json.get("type")) {
    delegate.fail("type", "the name of another plugin than this one");
  }
  const passedOn = (key: string) => {
    const value = delegate.get(key) ?? conf.json.get(key);
    return value === undefined ? {} : { [key]: value };
  };
  for (const object of [delegate, conf.json]) object.boolean("ipMasq");
  const asked = askedOf(conf, env);
  const isOwn = !isDelegated(asked), masquerade = wantsMasquerade(conf, env);
  if (isOwn && masquerade) requireKnownBackend(conf);
  return new ConfObject({
    mtu: Math.min(env.mtuBytes, MAX_MTU_BYTES),
    ...(type === BUILT_IN ? { isGateway: true } : {}),
    ...asked.json,
    ...(isOwn && masquerade ? { [MASQUERADED]: true } : {}),
    ipMasq: !isOwn && masquerade,
    ...passedOn("args"),
    ...passedOn("dns"),
    type,
    name: conf.name,
    cniVersion: conf.cniVersion,
    ipam: renderIpam(conf.json.object("ipam"), env),
  }, "delegate");
}

/** Throws a CniError if a configuration asks for a way to masquerade that there is none of. */
function requireKnownBackend({ json }: NetworkConf): void {
  const delegate = json.object("delegate");
  const said = delegate?.get("ipMasqBackend") === undefined ? json : delegate;
  const backend = said.get("ipMasqBackend") ?? "nftables";
  if (backend !== "nftables") said.fail("ipMasqBackend", `"nftables" or "${IPTABLES}"`);
}

/**
 * What a configuration asks of the plugin that does the work, without what {@link renderDelegate} fills in: enough
 * to tell which plugin that is, also without the agent's subnet.env.
 */
export function askedOf(
  conf: NetworkConf,
  env?: Pick<SubnetEnv, "ipMasq">,
): ConfObject {
  const { json } = conf;
  // What the runtime asks for in this call goes before what `delegate` says.
  const ofRuntime = ["runtimeConfig", "ipam"].flatMap((key) => {
    const value = json.get(key);
    return value === undefined ? [] : [[key, value] as const];
  });
  const delegate = json.object("delegate") ?? new ConfObject({}, "delegate");
  const backend = saidOf(conf, "ipMasqBackend");
  const byIptables = typeOf(delegate) === BUILT_IN && backend === IPTABLES &&
    wantsMasquerade(conf, env) !== false;
  return new ConfObject({
    ...withoutNulls(delegate.json, "ipMasq"),
    ...(backend === undefined ? {} : { ipMasqBackend: backend }),
    ...(byIptables ? { ipMasq: true } : {}),
    ...Object.fromEntries(ofRuntime),
  }, "delegate");
}

function renderIpam(ipam: ConfObject | undefined, env: SubnetEnv): JsonObject {
  const routes = ipam?.objects("routes").map(({ json }) => json) ?? [];
  return {
    type: HOST_LOCAL,
    ...withoutNulls(ipam?.json ?? {}),
    ranges: env.halves.map(({ subnet }) => [{ subnet: `${subnet}` }]),
    routes: [
      ...routes,
      ...env.halves.flatMap(({ networks }) => networks).map((network) => ({ dst: `${network}` })),
    ],
  };
}

/**
 * Without the keys whose value is `null`, which count as left out and must not hide a default, and without the key
 * `except`, if it is given.
 */
function withoutNulls(json: JsonObject, except?: string): JsonObject {
  const left = Object.entries(json).filter(([key, value]) =>
    value !== null && key.toLowerCase() !== except?.toLowerCase()
  );
  return Object.fromEntries(left);
}

/**
 * The keys of bridge and host-local that ask for what denim does not do, by the object that has them. They are never
 * ignored: a pod without the VLAN or the spoofing check that an operator asked for is worse than no pod.
 */
const NOT_BUILT_IN: readonly (readonly [object: string | undefined, keys: readonly string[]])[] = [
  [undefined, [
    "vlan",
    "vlanTrunk",
    "macspoofchk",
    "portIsolation",
    "disableContainerInterface",
  ]],
  // host-local's older way to give a range, beside the node's subnets.
  ["ipam", ["subnet", "rangeStart", "rangeEnd", "gateway"]],
  ["runtimeConfig", ["ipRanges"]],
  // Of the bridge plugin's records, and of configurations that ask for iptables; see askedOf. Last, so that errors name
  // what the user wrote.
  [undefined, ["ipMasq"]],
];

/**
 * The first thing that a configuration of the bridge plugin asks for and denim does not do, as the error that says
 * so; `undefined` if there is none. Keys that neither denim nor the bridge plugin knows ask for nothing.
 */
export function notBuiltIn(conf: ConfObject): CniError | undefined {
  const ipam = conf.object("ipam");
  if (ipam !== undefined && ipamTypeOf(ipam) !== HOST_LOCAL) return unsupported(ipam, "type");
  for (const [name, keys] of NOT_BUILT_IN) {
    const object = name === undefined ? conf : conf.object(name);
    for (const key of object === undefined ? [] : keys) {
      const value = object!.get(key);
      if (!value || Array.isArray(value) && value.length === 0) continue;
      const isBackend = key === "ipMasq" && object!.get("ipMasqBackend") === IPTABLES;
      return unsupported(object!, isBackend ? "ipMasqBackend" : key);
    }
  }
  return undefined;
}

function unsupported(conf: ConfObject, key: string): CniError {
  return new CniError(
    CNI_CODE.unsupportedField,
    `${conf.at(key)} is ${show(conf.get(key))}, which denim does not do itself`,
  );
}

/**
 * Whether another plugin does a delegate's work: any but the bridge plugin, or the bridge plugin itself if the
 * configuration asks for what denim does not do.
 */
export function isDelegated(delegate: ConfObject): boolean {
  return typeOf(delegate) !== BUILT_IN || notBuiltIn(delegate) !== undefined;
}

/**
 * Reads what {@link renderDelegate} made. Throws a CniError that names the key and the value, also for what
 * the bridge plugin knows and denim does not do.
 */
export function readBridgeConf(conf: ConfObject, args: CniArgs): BridgeConf {
  const undone = notBuiltIn(conf);
  if (undone !== undefined) throw undone;
  const hairpinMode = conf.boolean("hairpinMode"), promiscMode = conf.boolean("promiscMode");
  if (hairpinMode && promiscMode) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `${conf.at("hairpinMode")} and ${conf.at("promiscMode")} can't both be true`,
    );
  }
  const bridge = bridgeOf(conf);
  const problem = interfaceNameProblem(bridge);
  if (problem !== undefined) {
    conf.fail("bridge", `a device's name, which this one is not: it ${problem}`);
  }
  const isDefaultGateway = conf.boolean("isDefaultGateway");
  return {
    name: conf.string("name")!,
    bridge,
    isGateway: isDefaultGateway || conf.boolean("isGateway"),
    isDefaultGateway,
    forceAddress: conf.boolean("forceAddress"),
    hairpinMode,
    promiscMode,
    enableDad: conf.boolean("enabledad"),
    mtuBytes: conf.integer("mtu", 0, MAX_MTU_BYTES) || undefined,
    mac: readMac(conf, args),
    isMasqueraded: isMasqueradedBy(conf),
    ipam: readHostLocalConf(conf, args.ip),
    addressDirectory: addressDirectory(conf),
    dns: readDns(conf.object("dns")),
  };
}

/** The pod's routes: those of `ipam`, and with `isDefaultGateway` a default route a family that has none. */
export function podRoutes({ ipam, isDefaultGateway }: BridgeConf): RouteConf[] {
  const routes = [...ipam.routes];
  if (!isDefaultGateway) return routes;
  for (const { gateway: gw } of ipam.ranges) {
    const everywhere = new Cidr(new IpAddress(gw.family, 0n), 0);
    if (!routes.some(({ dst }) => dst.equals(everywhere))) routes.push({ dst: everywhere, gw });
  }
  return routes;
}

/** The Ethernet address to give: `runtimeConfig`'s, else `args.cni`'s, else `CNI_ARGS`', as in the bridge plugin. */
function readMac(conf: ConfObject, args: CniArgs): MacAddress | undefined {
  const sources = [conf.object("runtimeConfig"), conf.object("args")?.object("cni")];
  for (const source of sources) {
    const mac = source?.parsed("mac", "an Ethernet address", parseMac);
    if (mac !== undefined) return mac;
  }
  return args.mac;
}
