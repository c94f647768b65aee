/**
 * The `ipam` object of type `host-local`: which addresses a pod may have, and which routes it gets.
 *
 * @module
 */

import { Cidr, type Family, IpAddress } from "@denim/core/ip";
import { CNI_CODE, CniError } from "./cni_error.ts";
import { ConfObject } from "./conf_object.ts";
import { parseHostAddress } from "./environment.ts";

/** The folder in which host-local keeps a folder for each network, unless `ipam.dataDir` names another. */
export const DEFAULT_NETWORKS_DIR = "/var/lib/cni/networks";

/** The addresses that pods may have in one subnet. */
export interface AddressRange {
  /** The subnet. Its prefix length is that of the pods' addresses. */
  readonly subnet: Cidr;
  /** The lowest address. */
  readonly first: IpAddress;
  /** The highest address. */
  readonly last: IpAddress;
  /** The one address in between that no pod may have. */
  readonly gateway: IpAddress;
}

/** A route for a pod (CNI spec 1.1.0, section 5, "routes"). */
export interface RouteConf {
  /** The destination. */
  readonly dst: Cidr;
  /** Its gateway; the pod's own gateway of the family unless given. */
  readonly gw?: IpAddress;
  /** The largest packet on this route, in bytes. */
  readonly mtu?: number;
  /** The largest TCP segment to announce to the other side, in bytes. */
  readonly advmss?: number;
  /** Its metric; the lowest wins. */
  readonly priority?: number;
  /** Its table; the main one unless given. */
  readonly table?: number;
  /** Its scope (`RT_SCOPE_…`). */
  readonly scope?: number;
}

/** Settings for a pod's resolver (CNI spec 1.1.0, section 5, "dns"). */
export interface Dns {
  /** Addresses of name servers, in order. */
  readonly nameservers?: readonly string[];
  /** The domain for short names. */
  readonly domain?: string;
  /** Domains to try in order. */
  readonly search?: readonly string[];
  /** The resolver's options. */
  readonly options?: readonly string[];
}

/** An `ipam` object of type `host-local`, read and checked. */
export interface HostLocalConf {
  /** One range for each of the pod's addresses: one a family. */
  readonly ranges: readonly AddressRange[];
  /** The pod's routes. */
  readonly routes: readonly RouteConf[];
  /** Addresses that the pod must have: those of `CNI_ARGS`, `args.cni.ips` and `runtimeConfig.ips`. */
  readonly requested: readonly IpAddress[];
  /** The path of a resolv.conf with the settings for the pod's resolver. */
  readonly resolvConf: string | undefined;
}

/**
 * Reads `ipam`, and the addresses that `CNI_ARGS`, `args.cni.ips` and `runtimeConfig.ips` ask for. Throws a
 * CniError that names the key and the value.
 *
 * @param conf the configuration that `ipam` belongs to
 * @param requestedIp `CNI_ARGS`' IP
 */
export function readHostLocalConf(
  conf: ConfObject,
  requestedIp: IpAddress | undefined,
): HostLocalConf {
  const ipam = conf.object("ipam") ?? new ConfObject({}, "ipam");
  const runtime = conf.object("runtimeConfig");
  const ipLists = [conf.object("args")?.object("cni"), runtime];
  return {
    ranges: readRanges(ipam),
    routes: ipam.objects("routes").map(readRoute),
    requested: [
      ...(requestedIp === undefined ? [] : [requestedIp]),
      ...ipLists.flatMap((list) => list === undefined ? [] : readIps(list)),
    ],
    resolvConf: ipam.string("resolvConf") || undefined,
  };
}

/** The folder in which host-local keeps the addresses of a configuration's network. */
export function addressDirectory(conf: ConfObject): string {
  const dataDir = conf.object("ipam")?.string("dataDir") || DEFAULT_NETWORKS_DIR;
  return `${dataDir}/${conf.string("name")}`;
}

function readIps(list: ConfObject): IpAddress[] {
  return list.strings("ips").map((text) =>
    parseHostAddress(text) ?? list.fail("ips", "a list of IP addresses")
  );
}

function readRanges(ipam: ConfObject): AddressRange[] {
  // A list of sets of ranges: renderDelegate makes one set a family, with one range.
  const sets = ipam.get("ranges") as readonly (readonly { readonly subnet: string }[])[];
  return sets.map(([range]) => rangeOf(Cidr.parse(range!.subnet)));
}

/**
 * The addresses of a subnet that pods may have, as in host-local: all but the network's own, IPv4's broadcast address
 * and the gateway's, which is the first. Throws a CniError if the subnet has no room for a pod.
 */
export function rangeOf(subnet: Cidr): AddressRange {
  if (subnet.size < 4n) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `the node's subnet ${subnet} is too small for pods: it needs at least 4 addresses`,
    );
  }
  const gateway = subnet.at(1n);
  const last = subnet.family === 4 ? subnet.at(subnet.size - 2n) : subnet.last;
  return { subnet, first: gateway, last, gateway };
}

function readRoute(route: ConfObject): RouteConf {
  const dst = route.parsed("dst", "a network such as 10.0.0.0/8", Cidr.tryParse);
  if (dst === undefined) route.fail("dst", "a network such as 10.0.0.0/8");
  const gw = route.parsed("gw", `an IPv${dst.family} address`, (text) => {
    const address = IpAddress.tryParse(text);
    return address?.family === dst.family ? address : undefined;
  });
  const number = (key: "mtu" | "advmss" | "priority" | "table" | "scope", max: number) => {
    const value = route.integer(key, 0, max);
    return value === undefined ? {} : { [key]: value };
  };
  return {
    dst,
    ...(gw === undefined ? {} : { gw }),
    ...number("mtu", 65_535),
    ...number("advmss", 65_535),
    ...number("priority", 0xffff_ffff),
    ...number("table", 0xffff_ffff),
    ...number("scope", 255),
  };
}

/** The gateway of a family's routes that name none. */
export function gatewayOf(
  ranges: readonly AddressRange[],
  family: Family,
): IpAddress | undefined {
  return ranges.find(({ subnet }) => subnet.family === family)?.gateway;
}

/** Reads `dns` of a configuration; `undefined` if it is left out or empty. */
export function readDns(dns: ConfObject | undefined): Dns | undefined {
  if (dns === undefined) return undefined;
  const list = (key: "nameservers" | "search" | "options") => {
    const items = dns.strings(key);
    return items.length === 0 ? {} : { [key]: items };
  };
  const domain = dns.string("domain");
  return someOf({
    ...list("nameservers"),
    ...(domain ? { domain } : {}),
    ...list("search"),
    ...list("options"),
  });
}

/** Reads the text of a resolv.conf (resolv.conf(5)); `undefined` if it has no settings. */
export function parseResolvConf(text: string): Dns | undefined {
  const nameservers: string[] = [], search: string[] = [], options: string[] = [];
  let domain: string | undefined;
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (values.length === 0) continue;
    if (keyword === "nameserver") nameservers.push(values[0]!);
    if (keyword === "domain") domain = values[0]!;
    if (keyword === "search") search.push(...values);
    if (keyword === "options") options.push(...values);
  }
  return someOf({
    ...(nameservers.length > 0 ? { nameservers } : {}),
    ...(domain === undefined ? {} : { domain }),
    ...(search.length > 0 ? { search } : {}),
    ...(options.length > 0 ? { options } : {}),
  });
}

function someOf(dns: Dns): Dns | undefined {
  return Object.keys(dns).length > 0 ? dns : undefined;
}
