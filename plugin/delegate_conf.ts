/**
 * flannel's way from the network configuration and subnet.env to the configuration of the plugin that does
 * the work, and denim's reading of it where that plugin is `bridge`.
 *
 * @module
 */

import { messageOf, throwDefect } from "@denim/core/errors";
import { Cidr, IpAddress } from "@denim/core/ip";
import type { MacAddress } from "@denim/core/mac";
import { parseSubnetEnv, type SubnetEnv } from "@denim/core/subnet-env";
import { CNI_CODE, CniError } from "./cni_error.ts";
import { ConfObject, type JsonObject } from "./conf_object.ts";
import { type CniArgs, interfaceNameProblem, parseMac } from "./environment.ts";
import {
  addressDirectory,
  type Dns,
  type HostLocalConf,
  readDns,
  readHostLocalConf,
  refuseUnknown,
  type RouteConf,
  unsupported,
} from "./host_local_conf.ts";
import type { NetworkConf } from "./network_conf.ts";

/** The plugin whose work denim does itself. */
export const BUILT_IN = "bridge";

/** The bridge plugin's name for its bridge. */
const DEFAULT_BRIDGE = "cni0";

/** The keys that flannel fills in itself, so that a user's own would be lost. */
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
  /** Whether the bridge's other addresses make room for the gateway's. */
  readonly forceAddress: boolean;
  /** Whether a pod's packet may come back to it by its own port. */
  readonly hairpinMode: boolean;
  /** Whether the bridge takes every packet. */
  readonly promiscMode: boolean;
  /** Whether IPv6 addresses are probed for duplicates before use (DAD). */
  readonly enableDad: boolean;
  /** The MTU of bridge and pod, in bytes; `undefined` leaves it to the kernel. */
  readonly mtuBytes: number | undefined;
  /** The Ethernet address that the pod's interface shall have. */
  readonly mac: MacAddress | undefined;
  /** Which addresses and routes the pod gets. */
  readonly ipam: HostLocalConf;
  /** The folder with the network's address files. */
  readonly addressDirectory: string;
  /** What the pod's resolver shall use. */
  readonly dns: Dns | undefined;
}

/** Reads the agent's file. It is not there before the agent has a lease, which is worth waiting for. */
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

/** Which plugin a delegate's configuration is for. */
export function typeOf(delegate: ConfObject | undefined): string {
  return delegate?.string("type") || BUILT_IN;
}

/** The name of the bridge that a delegate's configuration is for. */
export function bridgeOf(delegate: ConfObject | undefined): string {
  return delegate?.string("bridge") || DEFAULT_BRIDGE;
}

/**
 * What flannel hands to the plugin that does the work: the user's `delegate` with the network's name, the
 * node's subnets and MTU, and routes to the cluster's networks filled in. It is kept for the pod's DEL.
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
    delegate.fail("type", "another plugin's name than this one's own");
  }
  const passedOn = (key: string) => {
    const value = delegate.get(key) ?? conf.json.get(key);
    return value === undefined ? {} : { [key]: value };
  };
  return new ConfObject({
    mtu: env.mtuBytes,
    ...(type === BUILT_IN ? { isGateway: true } : {}),
    // Who masquerades, where the agent does not: another plugin, as flannel has it. denim's own bridge has
    // no masquerade, and a record that said so would have others look for rules that nobody made.
    ipMasq: type !== BUILT_IN && !env.ipMasq,
    ...withoutNulls(delegate.json),
    ...passedOn("args"),
    ...passedOn("dns"),
    // The runtime's wishes come with each call, and go before what a file says.
    ...(conf.json.get("runtimeConfig") === undefined ? {} : {
      runtimeConfig: conf.json.get("runtimeConfig"),
    }),
    type,
    name: conf.name,
    cniVersion: conf.cniVersion,
    ipam: renderIpam(conf.json.object("ipam"), env),
  }, "delegate");
}

function renderIpam(ipam: ConfObject | undefined, env: SubnetEnv): JsonObject {
  const routes = ipam?.objects("routes").map(({ json }) => json) ?? [];
  return {
    type: "host-local",
    ...withoutNulls(ipam?.json ?? {}),
    ranges: env.halves.map(({ subnet }) => [{ subnet: `${subnet}` }]),
    routes: [
      ...routes,
      ...env.halves.flatMap(({ networks }) => networks).map((network) => ({ dst: `${network}` })),
    ],
  };
}

/** A key with `null` is as good as left out, and must not hide a default. */
function withoutNulls(json: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null));
}

/** The keys of the bridge plugin that denim honours, and those that say nothing of the bridge. */
const KNOWN_KEYS = [
  "type",
  "name",
  "cniVersion",
  "capabilities",
  "bridge",
  "isGateway",
  "isDefaultGateway",
  "forceAddress",
  "ipMasq",
  "ipMasqBackend",
  "mtu",
  "hairpinMode",
  "promiscMode",
  "enabledad",
  // Says something only beside VLANs, which are refused.
  "preserveDefaultVlan",
  "ipam",
  "dns",
  "args",
  "runtimeConfig",
  "prevResult",
];

/**
 * Reads what {@link renderDelegate} made. Throws a CniError that names the key and the value: also for what
 * the bridge plugin knows and denim does not do (VLANs, MAC spoofing checks, port isolation), since a pod
 * without the wall that somebody asked for is worse than none.
 */
export function readBridgeConf(conf: ConfObject, args: CniArgs): BridgeConf {
  const ipam = conf.object("ipam");
  if (ipam?.get("type") !== "host-local") {
    throw unsupported(ipam ?? conf, "type", `denim gives addresses itself, as "host-local" does`);
  }
  refuseUnknown(conf, KNOWN_KEYS);
  if (conf.boolean("ipMasq")) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `${conf.at("ipMasq")} is true, which is not supported yet: leave it out`,
    );
  }
  const hairpinMode = conf.boolean("hairpinMode"), promiscMode = conf.boolean("promiscMode");
  if (hairpinMode && promiscMode) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `${conf.at("hairpinMode")} and ${conf.at("promiscMode")} can't both be true`,
    );
  }
  const bridge = bridgeOf(conf);
  const problem = interfaceNameProblem(bridge);
  if (problem !== undefined) conf.fail("bridge", `a device's name, and ${problem}`);
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
    mtuBytes: conf.integer("mtu", 0, 65_535) || undefined,
    mac: readMac(conf, args),
    ipam: readHostLocalConf(conf, args.ip),
    addressDirectory: addressDirectory(conf),
    dns: readDns(conf.object("dns")),
  };
}

/** The configuration's routes, and the default ones where they are asked for and not among them. */
export function podRoutes({ ipam, isDefaultGateway }: BridgeConf): RouteConf[] {
  const routes = [...ipam.routes];
  if (!isDefaultGateway) return routes;
  for (const { gateway: gw } of ipam.ranges) {
    const everywhere = new Cidr(new IpAddress(gw.family, 0n), 0);
    if (!routes.some(({ dst }) => dst.equals(everywhere))) routes.push({ dst: everywhere, gw });
  }
  return routes;
}

/** Who asks for an Ethernet address goes from the particular to the general, as for the bridge plugin. */
function readMac(conf: ConfObject, args: CniArgs): MacAddress | undefined {
  const sources = [conf.object("runtimeConfig"), conf.object("args")?.object("cni")];
  for (const source of sources) {
    const mac = source?.parsed("mac", "an Ethernet address", parseMac);
    if (mac !== undefined) return mac;
  }
  return args.mac;
}
