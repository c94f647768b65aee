/**
 * `denim config check --node`: what an agent on this node would say of a net-conf, and nothing is changed.
 *
 * @module
 */

import {
  ALL_DEVICES,
  Cidr,
  type KernelState,
  messageOf,
  type NetworkConfig,
  networksOf,
  NO_METRICS,
  type NodeContext,
  NodeScope,
  RuntimeError,
  throwDefect,
} from "@denim/core";
import {
  findDeviceObstacle,
  kernelReader,
  listAddresses,
  listLinks,
  listRoutes,
  NetlinkSocket,
  portTaken,
  readProcLink,
  readSysctl,
  requireSwitchable,
  requireWritable,
  RTPROT_DENIM,
  udpPortHolder,
} from "@denim/core/linux";
import type { Findings } from "./findings.ts";
import { type MasqueradeChoice, masqueradeState } from "./host_state.ts";
import { tryInKernel } from "./kernel_trial.ts";
import { type AnyBackend, findBackend, readBackendOptions } from "./net_conf.ts";
import type { InterfaceChoice } from "./outer_interface.ts";
import { requireRoot } from "./privileges.ts";
import { type LastRun, SubnetFile } from "./subnet_file.ts";
import { findSurroundings, type FoundSurroundings } from "./surroundings.ts";

/** What a node is asked with: what an agent is started with. */
export interface NodeCheckOptions {
  /** The net-conf, which is right by itself. */
  readonly config: NetworkConfig;
  /** The backends that net-conf may name. */
  readonly backends: readonly AnyBackend[];
  /** How to choose the outer interface. */
  readonly choice: InterfaceChoice;
  /** Where subnet.env is. */
  readonly subnetFile: string;
  /** How pods' packets to the outside are masqueraded; `undefined` if the agent does not do it. */
  readonly masquerade: MasqueradeChoice | undefined;
  /** The hosts of the store's servers, as far as they are known. */
  readonly servers: readonly string[];
  /** Takes what is found. */
  readonly findings: Findings;
}

/** Checks this node, in the network namespace of this thread. Rejects with a defect alone. */
export async function checkNode(options: NodeCheckOptions): Promise<void> {
  const { config, choice, subnetFile, servers, findings } = options;
  const { log } = findings;
  await findings.attempt(() => requireRoot("denim agent"));
  const isPrivileged = findings.errors.length === 0;
  using socket = new NetlinkSocket();
  const lastRun = new SubnetFile(subnetFile, log).lastRun();
  const found = await findings.attempt(() =>
    findSurroundings({ socket, config, choice, lastRun, store: { servers }, log })
  );
  for (const { family } of config.families) {
    await findings.attempt(() =>
      requireSwitchable({ kind: "forwarding", family, device: ALL_DEVICES })
    );
  }
  if (config.families.some(({ family }) => family === 6)) {
    await findings.attempt(requireIpv6OnNewDevices);
  }
  if (found === undefined) return;
  const { name, addresses, mtuBytes } = found.outer.current;
  findings.note(
    `this node reaches the others by device ${name} (${
      [...addresses.values()].join(" ")
    }, MTU ${mtuBytes})`,
  );
  const state = await checkBackend(socket, found, options);
  reportOverlaps(socket, state, found, lastRun, options);
  if (isPrivileged) tryState(state, found, options);
}

/** A backend's devices and port: what would be refused, and what is in their way. */
async function checkBackend(
  socket: NetlinkSocket,
  found: FoundSurroundings,
  { config, backends, findings }: NodeCheckOptions,
): Promise<KernelState> {
  const backend = findBackend(config, backends);
  if (backend.needs === undefined) {
    findings.note(`what the ${backend.type} backend needs of a node is not known beforehand`);
    return [];
  }
  const context: NodeContext = {
    config,
    outer: found.outer.current,
    overlapsHosts: found.hostNetwork.overlaps(config),
    held: undefined,
    kernel: kernelReader(socket),
    log: findings.log,
    metrics: NO_METRICS,
    scope: new NodeScope(),
    signal: new AbortController().signal,
    fail: (error) => throwDefect(error),
  };
  const needs = await findings.attempt(() =>
    backend.needs!(context, readBackendOptions(backend, config))
  );
  if (needs === undefined) return [];
  for (const object of needs.state) {
    if (object.kind !== "link") continue;
    const obstacle = findDeviceObstacle(socket, object);
    if (obstacle?.goes) findings.warn(obstacle.text);
    else if (obstacle !== undefined) findings.fail(obstacle.text);
  }
  if (needs.udpPort !== undefined) checkPort(needs.udpPort, findings);
  return needs.state;
}

/** An agent that runs here has its port already. */
function checkPort(port: number, findings: Findings): void {
  const holder = udpPortHolder(port);
  if (holder === undefined) return;
  if (holder !== "kernel" && isThisProgram(holder.pid)) {
    findings.note(`an agent runs here (process ${holder.pid}) and has UDP port ${port}`);
  } else findings.fail(portTaken(port, holder === "kernel" ? undefined : holder));
}

function isThisProgram(pid: number): boolean {
  try {
    return readProcLink(`/proc/${pid}/exe`) === readProcLink("/proc/self/exe");
  } catch (error) {
    throwDefect(error);
    return false;
  }
}

/** Says what of this host, beside the outer interface, lies in the pods' networks. */
function reportOverlaps(
  socket: NetlinkSocket,
  state: KernelState,
  { outer }: FoundSurroundings,
  { previousSubnets }: LastRun,
  { config, findings }: NodeCheckOptions,
): void {
  const links = listLinks(socket);
  const networks = networksOf(config);
  const own = new Set(state.flatMap((object) => object.kind === "link" ? object.name : []));
  const addresses = config.families.flatMap(({ family }) => listAddresses(socket, family));
  // What an agent or flanneld of this cluster has here: its devices, and the pods' bridge with its gateway's address.
  const expected = new Set(
    links.filter(({ name, index }) =>
      own.has(name) || name === POD_BRIDGE || name === outer.current.name ||
      addresses.some((state) =>
        state.index === index &&
        previousSubnets.some((subnet) => subnet.at(1n).equals(state.address))
      )
    ).map(({ index }) => index),
  );
  const nameOf = (index: number) => links.find((link) => link.index === index)?.name ?? "?";
  for (const { index, address, prefixLength } of addresses) {
    const network = networks.find((one) => one.contains(address));
    if (expected.has(index) || network === undefined) continue;
    findings.warn(
      `device ${
        nameOf(index)
      } has ${address}/${prefixLength}, which is in the pod network ${network}: choose ` +
        "another one of the two, or pods and what is behind that device may not reach each other",
    );
  }
  for (const { family } of config.families) {
    for (const { destination, index, protocol } of listRoutes(socket, family)) {
      const network = networks.find((one) => one.contains(destination));
      if (network === undefined || protocol === RTPROT_DENIM || expected.has(index)) continue;
      if (addresses.some((state) => linkOf(state).equals(destination) && state.index === index)) {
        continue;
      }
      findings.warn(
        `a route to ${destination} by device ${
          nameOf(index)
        } is in the pod network ${network}: pods may be ` +
          "sent there; remove it (ip route del), or choose another pod network",
      );
    }
  }
}

/** The pods' bridge, unless the CNI configuration names another. */
const POD_BRIDGE = "cni0";

function linkOf(
  { address, prefixLength }: ReturnType<typeof listAddresses>[number],
): Cidr {
  return new Cidr(address, prefixLength);
}

/** Has the kernel make what an agent would, in a namespace of its own. */
function tryState(
  state: KernelState,
  { outer, hostNetwork }: FoundSurroundings,
  { config, masquerade, findings }: NodeCheckOptions,
): void {
  const { families } = config;
  const subnets = families.map(({ subnetMin, subnetLength }) => new Cidr(subnetMin, subnetLength));
  const wanted = [
    ...state,
    ...masqueradeState(config, subnets, masquerade, hostNetwork.current),
  ];
  try {
    for (const failure of tryInKernel(wanted, outer.current.name, findings.log)) {
      findings.fail(failure);
    }
  } catch (error) {
    throwDefect(error);
    findings.warn(`what the kernel can do was not tried: ${messageOf(error)}`);
  }
}

/** New devices may have IPv6 switched off: denim switches it on for its own, if it can. Throws a RuntimeError. */
function requireIpv6OnNewDevices(): void {
  const name = "net/ipv6/conf/default/disable_ipv6";
  if (readSysctl(name) !== "1") return;
  try {
    requireWritable(name, "0");
  } catch (error) {
    throwDefect(error);
    throw new RuntimeError(
      `net.ipv6.conf.default.disable_ipv6 is 1, and /proc/sys can't be written (${
        messageOf(error)
      }): set it ` +
        "to 0, so that denim's devices and pods have IPv6",
      { cause: error },
    );
  }
}
