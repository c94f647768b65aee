/**
 * CHECK: whether all that an ADD made is still there (CNI spec 1.1.0, section 2, "CHECK"). Loaded only when it
 * is used.
 *
 * @module
 */

import { Cidr, IpAddress } from "@denim/core/ip";
import type { MacAddress } from "@denim/core/mac";
import {
  findLink,
  FORWARDING,
  type LinkState,
  listAddresses,
  listRoutes,
  NetlinkSocket,
  readSysctl,
} from "@denim/core/linux/attach";
import { AddressStore } from "./address_store.ts";
import { hostInterfaceName, notABridge } from "./bridge.ts";
import { CNI_CODE, CniError } from "./cni_error.ts";
import { ConfObject } from "./conf_object.ts";
import {
  type BridgeConf,
  BUILT_IN,
  isDelegated,
  podRoutes,
  readBridgeConf,
  readSubnetEnv,
  renderDelegate,
  typeOf,
} from "./delegate_conf.ts";
import { type CniVariables, parseMac, readArgs } from "./environment.ts";
import { gatewayOf } from "./host_local_conf.ts";
import { openPod, type PodNamespace } from "./namespace.ts";
import { type NetworkConf, requireVersion } from "./network_conf.ts";
import { readOwnConf } from "./saved_conf.ts";

/** A device in the result of the ADD. */
interface PreviousInterface {
  readonly name: string;
  readonly sandbox: string | undefined;
  readonly mac: MacAddress | undefined;
  readonly mtuBytes: number | undefined;
}

/** `prevResult`: what the ADDs of all the network's plugins came to, as the runtime tells it. */
interface PreviousResult {
  readonly interfaces: readonly PreviousInterface[];
  readonly addresses: readonly {
    readonly address: IpAddress;
    readonly prefixLength: number;
    /** The index of its device in `interfaces`. */
    readonly interface: number | undefined;
  }[];
  /** Where its routes lead. */
  readonly destinations: readonly Cidr[];
}

/**
 * Returns nothing if all is there. Throws a CniError that names everything that is gone. A change that a later plugin
 * of the chain made, and that the runtime's `prevResult` tells, is as it should be.
 */
export function check(conf: NetworkConf, variables: CniVariables): string | Promise<string> {
  requireVersion(conf, "CHECK", "0.4.0");
  const previous = readPreviousResult(conf.json);
  const delegate = readOwnConf(conf, variables) ??
    renderDelegate(conf, readSubnetEnv(conf.subnetFile));
  // flannel's record may ask for masquerade, which is nothing that CHECK looks for.
  const record = typeOf(delegate) === BUILT_IN
    ? new ConfObject({ ...delegate.json, ipMasq: false }, delegate.path)
    : delegate;
  if (isDelegated(record)) {
    return import("./delegate.ts").then((it) => it.delegateCheck(conf, variables, delegate));
  }
  const bridgeConf = readBridgeConf(record, readArgs(""));
  const problems = problemsOf(bridgeConf, variables, previous);
  if (!bridgeConf.isMasqueraded) return verdict(problems);
  return import("./masquerade.ts").then(({ NodeMasquerade }) => {
    using masquerade = new NodeMasquerade();
    const addresses = previous.addresses.map(({ address }) => address)
      .filter((address) => bridgeConf.ipam.ranges.some(({ subnet }) => subnet.contains(address)))
      .map(String);
    const device = hostInterfaceName(variables);
    return verdict([...problems, ...masquerade.problems(device, addresses)]);
  });
}

function verdict(problems: readonly string[]): string {
  if (problems.length > 0) throw new CniError(CNI_CODE.missing, problems.join("; "));
  return "";
}

function readPreviousResult(conf: ConfObject): PreviousResult {
  const result = conf.object("prevResult");
  if (result === undefined) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      "prevResult is missing: CHECK needs the result of the ADD",
    );
  }
  return {
    interfaces: result.objects("interfaces").map((device) => ({
      name: device.string("name") ?? "",
      sandbox: device.string("sandbox") || undefined,
      mac: device.parsed("mac", "an Ethernet address", parseMac),
      mtuBytes: device.integer("mtu", 0, 0xffff_ffff) || undefined,
    })),
    addresses: result.objects("ips").map((ip) => {
      const wanted = "an address with its prefix length, such as 10.0.0.2/24";
      const network = ip.parsed("address", wanted, Cidr.tryParse) ?? ip.fail("address", wanted);
      return {
        address: IpAddress.parse(ip.string("address")!.split("/")[0]!),
        prefixLength: network.prefixLength,
        interface: ip.integer("interface", 0, 0xffff),
      };
    }),
    destinations: result.objects("routes").map((route) => {
      const wanted = "a network such as 10.0.0.0/8";
      return route.parsed("dst", wanted, Cidr.tryParse) ?? route.fail("dst", wanted);
    }),
  };
}

function problemsOf(
  conf: BridgeConf,
  variables: CniVariables,
  previous: PreviousResult,
): string[] {
  const { ifName, netns } = variables;
  const place = previous.interfaces.findIndex(({ name, sandbox }) =>
    name === ifName && sandbox === netns
  );
  const expected = previous.interfaces[place];
  if (expected === undefined) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `prevResult.interfaces has no ${ifName} in ${netns}: it is of another attachment`,
    );
  }
  const addresses = previous.addresses.filter((ip) => (ip.interface ?? place) === place);
  using pod = openPod(variables);
  using node = new NetlinkSocket();
  const bridge = findLink(node, conf.bridge);
  return [
    ...bridgeProblems(node, conf, bridge),
    ...podProblems(pod, conf, expected, addresses, previous.destinations),
    ...hostEndProblems(node, hostEnd(previous, conf, variables), conf, bridge),
    ...addressFileProblems(conf, variables, addresses),
  ];
}

function bridgeProblems(
  node: NetlinkSocket,
  { bridge: name, promiscMode, isGateway, ipam }: BridgeConf,
  bridge: LinkState | undefined,
): string[] {
  if (bridge === undefined) return [`the bridge ${name} is gone`];
  if (bridge.type !== "bridge") return [notABridge(name, bridge).message];
  const problems: string[] = [];
  if (!bridge.up) problems.push(`${name} is down`);
  if (promiscMode && !bridge.promiscuous) problems.push(`${name} is no longer promiscuous`);
  for (const { gateway, subnet } of isGateway ? ipam.ranges : []) {
    const { prefixLength } = subnet;
    problems.push(...addressProblems(node, bridge, [{ address: gateway, prefixLength }]));
    const setting = FORWARDING[gateway.family];
    if (readSysctl(setting) === "0") problems.push(`the node does not forward: ${setting} is 0`);
  }
  return problems;
}

function podProblems(
  pod: PodNamespace,
  conf: BridgeConf,
  expected: PreviousInterface,
  addresses: PreviousResult["addresses"],
  destinations: readonly Cidr[],
): string[] {
  const link = findLink(pod.socket, expected.name);
  const problems = linkProblems(expected, link);
  if (link === undefined) return problems;
  problems.push(...addressProblems(pod.socket, link, addresses));
  // A later plugin may have removed or moved a route. Then the result does not have it.
  const routes = podRoutes(conf).filter(({ dst }) => destinations.some((it) => it.equals(dst)));
  for (const { dst, gw = gatewayOf(conf.ipam.ranges, dst.family), table } of routes) {
    const there = listRoutes(pod.socket, dst.family, table).some(({ destination, ...route }) =>
      destination.equals(dst) && route.index === link.index && `${route.gateway}` === `${gw}`
    );
    if (!there) problems.push(`the route to ${dst} via ${gw} by ${link.name} is gone`);
  }
  return problems;
}

/** The node's end, under denim's name for it or the one that flannel's chain gave it. */
function hostEnd(
  { interfaces }: PreviousResult,
  { bridge }: BridgeConf,
  variables: CniVariables,
): PreviousInterface {
  const name = hostInterfaceName(variables);
  const onNode = interfaces.filter((device) => device.sandbox === undefined);
  return onNode.find((device) => device.name === name) ??
    onNode.find((device) => device.name.startsWith("veth") && device.name !== bridge) ??
    { name, sandbox: undefined, mac: undefined, mtuBytes: undefined };
}

function hostEndProblems(
  node: NetlinkSocket,
  expected: PreviousInterface,
  { bridge: bridgeName }: BridgeConf,
  bridge: LinkState | undefined,
): string[] {
  const link = findLink(node, expected.name);
  const problems = linkProblems(expected, link);
  if (link !== undefined && bridge !== undefined && link.masterIndex !== bridge.index) {
    problems.push(`${link.name} is not a port of ${bridgeName}`);
  }
  return problems;
}

function addressFileProblems(
  { addressDirectory, ipam }: BridgeConf,
  variables: CniVariables,
  addresses: PreviousResult["addresses"],
): string[] {
  using store = AddressStore.openExisting(addressDirectory);
  const held = store?.heldBy(variables) ?? [];
  return addresses
    .filter(({ address }) => ipam.ranges.some(({ subnet }) => subnet.contains(address)))
    .filter(({ address }) => !held.includes(`${address}`))
    .map(({ address }) =>
      `${addressDirectory}/${address} is gone, or names another container: ${address} is not reserved`
    );
}

function linkProblems(expected: PreviousInterface, link: LinkState | undefined): string[] {
  const { name, sandbox, mac, mtuBytes } = expected;
  const what = sandbox === undefined ? name : `${name} in ${sandbox}`;
  if (link === undefined) return [`${what} is gone`];
  const problems: string[] = [];
  if (!link.up) problems.push(`${what} is down`);
  if (mac !== undefined && !link.mac?.equals(mac)) {
    problems.push(`${what} has the Ethernet address ${link.mac}, not ${mac}`);
  }
  if (mtuBytes !== undefined && link.mtuBytes !== mtuBytes) {
    problems.push(`${what} has an MTU of ${link.mtuBytes}, not ${mtuBytes}`);
  }
  return problems;
}

function addressProblems(
  socket: NetlinkSocket,
  { index, name }: LinkState,
  addresses: readonly { readonly address: IpAddress; readonly prefixLength: number }[],
): string[] {
  return addresses.flatMap(({ address, prefixLength }) => {
    const found = listAddresses(socket, address.family, index)
      .find((other) => other.address.equals(address) && other.prefixLength === prefixLength);
    if (found === undefined) return [`${name} lacks the address ${address}/${prefixLength}`];
    return found.duplicate
      ? [`another host has ${address} too, which is an address of ${name}`]
      : [];
  });
}
