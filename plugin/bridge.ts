/**
 * The bridge plugin's work in the kernel: a bridge on the node, and for each pod a veth pair with one end in
 * it. The bridge has the gateway's address, and the node forwards.
 *
 * @module
 */

import { messageOf, throwDefect } from "@denim/core/errors";
import type { IpAddress } from "@denim/core/ip";
import { Cidr } from "@denim/core/ip";
import { MacAddress } from "@denim/core/mac";
import {
  type AddressState,
  findLink,
  FORWARDING,
  isLocal,
  type LinkState,
  LinuxError,
  listAddresses,
  MessageWriter,
  NetlinkSocket,
  NO_GATEWAY_ALIAS,
  readSysctl,
  trySysctl,
  waitForKernel,
  writeHairpin,
  writeLinkSettings,
  writeNewAddress,
  writeNewBridge,
  writeNewRoute,
  writeNewVeth,
  writeRemovedAddress,
  writeRemovedLink,
  writeRemovedLinks,
  writeSysctl,
} from "@denim/core/linux/attach";
import type { HeldAddress } from "./address_store.ts";
import { CNI_CODE, CniError } from "./cni_error.ts";
import type { BridgeConf } from "./delegate_conf.ts";
import type { Attachment } from "./environment.ts";
import type { AddressRange, RouteConf } from "./host_local_conf.ts";
import type { PodNamespace } from "./namespace.ts";

/** How long the bridge's port may take to carry packets; as long as in the bridge plugin. */
const PORT_TIMEOUT_MS = 2500;
/** How long the kernel may need to take up an IPv6 address: 1 to 2 s if it probes for duplicates. */
const ADDRESS_TIMEOUT_MS = 5000;

/** One message of a batch, and what it is for. */
type Step = readonly [what: string, write: (writer: MessageWriter) => void];

/** Sends messages in one system call. Throws a LinuxError that says what the first one to fail was for. */
function apply(socket: NetlinkSocket, steps: readonly Step[]): void {
  const batch = new MessageWriter();
  for (const [, write] of steps) write(batch);
  const [failure] = socket.send(batch);
  if (failure === undefined) return;
  const { error: cause, index } = failure;
  throw new LinuxError(cause.errno, steps[index]![0], cause.detail, { cause });
}

/**
 * The name of the node's end of an attachment's veth pair. It follows from the attachment, so that the next ADD,
 * or a DEL whose namespace is gone, finds what a crash left behind. It has 44 bits of an FNV-1a hash, enough for no
 * two attachments of a node to share a name.
 */
export function hostInterfaceName({ containerId, ifName }: Attachment): string {
  let hash = 0xcbf2_9ce4_8422_2325n;
  for (const byte of new TextEncoder().encode(`${containerId}/${ifName}`)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100_0000_01b3n);
  }
  return `veth${hash.toString(16).padStart(16, "0").slice(0, 11)}`;
}

/**
 * Makes the bridge, or takes the one that is there, and sets it up. Of several plugin processes at once one makes
 * it, and all find it. Throws a CniError if another kind of device has the name.
 */
export function ensureBridge(socket: NetlinkSocket, conf: BridgeConf): LinkState {
  const { bridge: name, mtuBytes, promiscMode } = conf;
  const settings = { up: true, promiscuous: promiscMode || undefined };
  let found = findLink(socket, name);
  if (found === undefined) {
    // A bridge that was given an Ethernet address keeps it. Otherwise it has its lowest port's, which changes as
    // pods come and go.
    const mac = MacAddress.random();
    tolerate(
      "EEXIST",
      () =>
        apply(socket, [[`make bridge ${name}`, (w) => writeNewBridge(w, name, { mtuBytes, mac })]]),
    );
    found = findLink(socket, name);
  }
  if (found?.type !== "bridge") throw notABridge(name, found);
  const { index, up, promiscuous } = found;
  // denim makes the node's routes on the bridge. A pod that sends router advertisements must not.
  trySysctl(`net/ipv6/conf/${name}/accept_ra`, "0");
  // Before the bridge is up: the kernel probes its link-local address for duplicates for a second or two. Until then
  // it has no source address to ask for a pod's Ethernet address, and packets to pods wait.
  trySysctl(`net/ipv6/conf/${name}/accept_dad`, "0");
  if (!up || promiscMode && !promiscuous) {
    apply(socket, [[`set up ${name}`, (w) => writeLinkSettings(w, index, settings)]]);
  }
  return found;
}

/**
 * Marks a bridge as one that must have no gateway's address, or takes the mark away: the agent, which keeps the
 * gateway's address on the pods' bridge, has nothing else to tell the two by.
 */
export function markGateway(socket: NetlinkSocket, bridge: LinkState, isGateway: boolean): void {
  const isMarked = bridge.alias === NO_GATEWAY_ALIAS;
  if (isMarked !== isGateway) return;
  const alias = isGateway ? "" : NO_GATEWAY_ALIAS;
  apply(socket, [[`mark ${bridge.name}`, (w) => writeLinkSettings(w, bridge.index, { alias })]]);
}

/** The error for a device that has the bridge's name and is not a bridge. */
export function notABridge(name: string, found: LinkState | undefined): CniError {
  return new CniError(
    CNI_CODE.conflict,
    `${name} is not a bridge${found?.type === undefined ? "" : ` (it is ${found.type})`}: ` +
      "remove it, or give delegate.bridge another name",
  );
}

/**
 * Gives the bridge the gateway's addresses, and turns the node's forwarding on for their families. Throws a CniError if
 * a bridge has them that is no network's, such as docker0 with flanneld's options for Docker: of two bridges with one
 * subnet one gets no packets.
 *
 * @param isKnown whether a bridge is that of a network
 */
export function ensureGateway(
  socket: NetlinkSocket,
  conf: BridgeConf,
  bridge: LinkState,
  networks: readonly Cidr[],
  isKnown: (bridge: string) => boolean,
): void {
  for (const range of conf.ipam.ranges) {
    if (range.subnet.family === 6) allowIpv6(bridge.name);
    const steps = gatewaySteps(socket, conf, bridge, range, networks);
    if (steps.length > 0) {
      refuseStrangersGateway(socket, bridge, range, isKnown);
      apply(socket, steps);
      waitForAddress(socket, bridge.index, range.gateway);
    }
    writeSysctl(FORWARDING[range.subnet.family], "1");
  }
}

/**
 * The steps that give the bridge a gateway's address; none if it has it. Other addresses of the cluster's networks
 * go: they are left from a subnet that the node no longer has, and would draw another node's packets here. An
 * address from outside those networks may be an operator's, and stays unless `forceAddress` is set.
 */
function gatewaySteps(
  socket: NetlinkSocket,
  { forceAddress }: BridgeConf,
  { index, name, mac }: LinkState,
  { gateway, subnet }: AddressRange,
  networks: readonly Cidr[],
): Step[] {
  const { family, prefixLength } = subnet;
  const found = listAddresses(socket, family, index);
  const isGateway = (it: AddressState) =>
    it.prefixLength === prefixLength && it.address.equals(gateway);
  const isThere = found.some(isGateway);
  // As in the bridge plugin: a device has several IPv6 addresses as a matter of course.
  const isForced = (it: AddressState) =>
    forceAddress && !isThere &&
    (family === 4 || new Cidr(it.address, it.prefixLength).overlaps(subnet));
  const unwanted = found.filter((it) =>
    !isGateway(it) && (networks.some((network) => network.contains(it.address)) || isForced(it))
  );
  if (isThere && unwanted.length === 0) return [];
  const steps = unwanted.map(({ address, prefixLength }): Step => [
    `take ${address}/${prefixLength} from ${name}`,
    (w) => writeRemovedAddress(w, index, address, prefixLength),
  ]);
  // Even if it is there: with the first IPv4 address of a subnet the kernel removes the others.
  steps.push([
    `give ${name} the address ${gateway}/${prefixLength}`,
    (w) => writeNewAddress(w, index, gateway, prefixLength),
  ]);
  // A bridge that denim did not make may still follow its ports' Ethernet addresses. Pods would lose their gateway's.
  if (mac !== undefined) {
    steps.push([`fix the address of ${name}`, (w) => writeLinkSettings(w, index, { mac })]);
  }
  return steps;
}

function refuseStrangersGateway(
  socket: NetlinkSocket,
  { index }: LinkState,
  { gateway, subnet: { family, prefixLength } }: AddressRange,
  isKnown: (bridge: string) => boolean,
): void {
  const stranger = listAddresses(socket, family)
    .filter((it) => it.index !== index && it.address.equals(gateway))
    .map((it) => findLink(socket, it.index))
    .find((link) => link?.type === "bridge" && link.up && !isKnown(link.name));
  if (stranger === undefined) return;
  const { name } = stranger;
  const address = `${gateway}/${prefixLength}`;
  throw new CniError(
    CNI_CODE.conflict,
    `the bridge ${name} has the pods' gateway ${address}, and one of two bridges would get no packets: run ` +
      `ip addr del ${address} dev ${name} (Docker: take flannel's --bip from its options first), or name ` +
      `${name} in delegate.bridge`,
  );
}

/** Both ends of an attachment's veth pair. */
export interface VethPair {
  /** The node's end, a port of the bridge. */
  readonly host: LinkState;
  /** The pod's end. */
  readonly pod: LinkState;
}

/** Makes a veth pair: the node's end is up and a port of the bridge, the pod's end is down. */
export function makeVeth(
  socket: NetlinkSocket,
  pod: PodNamespace,
  attachment: Attachment,
  conf: BridgeConf,
  bridge: LinkState,
): VethPair {
  const { ifName } = attachment;
  const hostName = hostInterfaceName(attachment);
  const { mtuBytes, mac } = conf;
  const make = () =>
    apply(socket, [[
      `make ${ifName} and ${hostName}`,
      (w) =>
        writeNewVeth(
          w,
          { name: hostName, up: true, masterIndex: bridge.index, mtuBytes },
          { name: ifName, namespaceFd: pod.namespace.fd, mtuBytes, mac },
        ),
    ]]);
  if (!tolerate("EEXIST", make)) {
    // An ADD of the attachment was killed here. Its pod has no address, or this ADD would have been refused before.
    removeLink(socket, hostName);
    make();
  }
  const host = findLink(socket, hostName)!;
  if (conf.hairpinMode) {
    apply(socket, [[`set hairpin of ${hostName}`, (w) => writeHairpin(w, host.index, true)]]);
  }
  trySysctl(`net/ipv6/conf/${hostName}/accept_ra`, "0");
  return { host, pod: findLink(pod.socket, ifName)! };
}

/** Gives the pod's interface its addresses and routes, and sets it up. */
export function configurePod(
  pod: PodNamespace,
  { index, name }: LinkState,
  { enableDad }: BridgeConf,
  held: readonly HeldAddress[],
  routes: readonly RouteConf[],
): void {
  const ipv6 = held.filter(({ address }) => address.family === 6);
  pod.namespace.run(() => {
    trySysctl(`net/ipv4/conf/${name}/arp_notify`, "1");
    if (enableDad) trySysctl(`net/ipv6/conf/${name}/enhanced_dad`, "1");
    trySysctl(`net/ipv6/conf/${name}/accept_dad`, enableDad ? "1" : "0");
    if (ipv6.length > 0) {
      for (const device of ["lo", name]) allowIpv6(device);
      // The address stays when the pod sets its interface down and up again.
      writeSysctl(`net/ipv6/conf/${name}/keep_addr_on_down`, "1");
    }
  });
  apply(pod.socket, [
    ...held.map(({ address, range: { subnet } }): Step => [
      `give ${name} the address ${address}/${subnet.prefixLength}`,
      (w) => writeNewAddress(w, index, address, subnet.prefixLength, { dad: enableDad }),
    ]),
    [`set up ${name}`, (w) => writeLinkSettings(w, index, { up: true })],
    // If the addresses are probed for duplicates, the routes come after that.
    ...(enableDad ? [] : routeSteps(index, held, routes)),
  ]);
  pod.namespace.run(() => {
    for (const { address } of ipv6) waitForAddress(pod.socket, index, address);
  });
  if (enableDad) apply(pod.socket, routeSteps(index, held, routes));
}

function routeSteps(
  index: number,
  held: readonly HeldAddress[],
  routes: readonly RouteConf[],
): Step[] {
  return routes.map(({ dst, gw, priority, table, scope, mtu, advmss }): Step => {
    const range = held.find(({ address }) => address.family === dst.family)?.range;
    const gateway = gw ?? range?.gateway;
    return [
      `make the route to ${dst}${gateway === undefined ? "" : ` via ${gateway}`}`,
      (w) =>
        writeNewRoute(w, {
          destination: dst,
          gateway,
          index,
          metric: priority,
          table,
          scope,
          mtuBytes: mtu,
          advMssBytes: advmss,
          // A container's second interface may have a route to the same networks.
          besideOthers: true,
        }),
    ];
  });
}

/**
 * Switches IPv6 on for a device of this thread's namespace: if `net.ipv6.conf.default.disable_ipv6` is 1, new
 * devices have none. Throws a CniError that names the setting if it can't be written.
 */
function allowIpv6(device: string): void {
  const name = `net/ipv6/conf/${device}/disable_ipv6`;
  if (readSysctl(name) !== "1") return;
  try {
    writeSysctl(name, "0");
  } catch (cause) {
    throwDefect(cause);
    throw new CniError(
      CNI_CODE.ioFailure,
      `${device} needs IPv6, and ${name} is 1 and can't be set: ${messageOf(cause)}; ` +
        "set it to 0, or let the plugin write to /proc/sys",
      { cause },
    );
  }
}

/** Throws a CniError if a pod would get an IPv6 address and the kernel has no IPv6 (`ipv6.disable=1`). */
export function requireIpv6({ ipam: { ranges } }: BridgeConf): void {
  const range = ranges.find(({ subnet }) => subnet.family === 6);
  if (range === undefined || readSysctl("net/ipv6/conf/all/disable_ipv6") !== undefined) return;
  throw new CniError(
    CNI_CODE.kernel,
    `the node has the subnet ${range.subnet}, and its kernel no IPv6: boot it without ipv6.disable=1, ` +
      "or leave IPv6 out of the network's configuration (EnableIPv6)",
  );
}

/**
 * Waits until the kernel takes packets for an address of a device of this thread's namespace. Throws a CniError
 * if another host has the address, or if the kernel still probes for one.
 */
export function waitForAddress(
  socket: NetlinkSocket,
  index: number,
  address: IpAddress,
): void {
  const state = () =>
    listAddresses(socket, address.family, index).find((other) => other.address.equals(address));
  waitForKernel(
    () => isLocal(socket, address) || state()?.duplicate !== false,
    ADDRESS_TIMEOUT_MS,
  );
  const { duplicate, tentative } = state() ?? { duplicate: true };
  if (!duplicate && !tentative) return;
  throw new CniError(
    CNI_CODE.conflict,
    duplicate
      ? `another host has ${address} already (duplicate address detection)`
      : `${address} is still being probed for duplicates after ${ADDRESS_TIMEOUT_MS} ms`,
  );
}

/** Waits until a port of the bridge carries packets; the port's state then. Throws a CniError if it never does. */
export function waitForPort(socket: NetlinkSocket, { index, name }: LinkState): LinkState {
  let port: LinkState | undefined;
  const carries = () => (port = findLink(socket, index))?.operUp === true;
  if (waitForKernel(carries, PORT_TIMEOUT_MS)) return port!;
  throw new CniError(
    CNI_CODE.kernel,
    `${name} is not up after ${PORT_TIMEOUT_MS} ms: the bridge would not carry the pod's packets`,
  );
}

/** Removes a device, if it is there. */
export function removeLink(socket: NetlinkSocket, name: string): void {
  const link = findLink(socket, name);
  if (link === undefined) return;
  // The kernel may remove it at the same moment, with the namespace of its other end.
  tolerate(
    "ENODEV",
    () => apply(socket, [[`remove ${name}`, (w) => writeRemovedLink(w, link.index)]]),
  );
}

/**
 * Removes devices, those that are there and that the kernel lets go, in the time that one takes. Says nothing of what is
 * left: who removes them one by one hears why.
 */
export function removeLinks(names: readonly string[]): void {
  const batch = new MessageWriter();
  writeRemovedLinks(batch, names);
  using socket = new NetlinkSocket();
  try {
    socket.send(batch);
  } catch (error) {
    throwDefect(error);
  }
}

/** Runs a function; false if it throws the LinuxError with this code. Throws every other error. */
function tolerate(code: string, run: () => void): boolean {
  try {
    run();
    return true;
  } catch (error) {
    if (error instanceof LinuxError && error.code === code) return false;
    throw error;
  }
}
