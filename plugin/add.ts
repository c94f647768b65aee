/**
 * ADD: gives a container an interface in the node's network (CNI spec 1.1.0, section 2, "ADD").
 *
 * @module
 */

import { Cidr, IpAddress } from "@denim/core/ip";
import { findLink, NetlinkSocket } from "@denim/core/linux/pod";
import { parseSubnetEnv, type SubnetEnv } from "@denim/core/subnet-env";
import { AddressStore, type HeldAddress } from "./address_store.ts";
import {
  configurePod,
  ensureBridge,
  ensureGateway,
  makeVeth,
  PodNamespace,
  removeLink,
  waitForPort,
} from "./bridge.ts";
import { CNI_CODE, CniError, toCniError } from "./cni_error.ts";
import { type BridgeConf, readBridgeConf, renderDelegate } from "./delegate_conf.ts";
import { type CniVariables, readArgs } from "./environment.ts";
import { type Dns, parseResolvConf, type RouteConf } from "./host_local_conf.ts";
import { openNamespace } from "./namespace.ts";
import type { NetworkConf } from "./network_conf.ts";
import { type AttachmentResult, formatResult } from "./result.ts";
import { saveConf } from "./saved_conf.ts";

/**
 * Attaches a container and answers with the result. Everything is checked before anything is made; where
 * something fails later, all that this call made is taken back, but for the bridge, which others may use by
 * then.
 */
export function add(conf: NetworkConf, variables: CniVariables): string {
  const args = readArgs(variables.args);
  const delegate = renderDelegate(conf, readSubnetEnv(conf.subnetFile));
  const bridgeConf = readBridgeConf(delegate, args);
  const dns = readPodDns(bridgeConf);
  using pod = openPod(variables);
  using socket = new NetlinkSocket();
  using undo = new DisposableStack();

  const held = reserve(variables, bridgeConf);
  undo.defer(() => giveBack(bridgeConf, held));
  const routes = podRoutes(bridgeConf, held);
  const bridge = ensureBridge(socket, bridgeConf);
  if (bridgeConf.isGateway) ensureGateway(socket, bridgeConf, bridge, held);
  const veth = makeVeth(socket, pod, variables, bridgeConf, bridge);
  undo.defer(() => removeLink(socket, veth.host.name));
  configurePod(pod, veth.pod, bridgeConf, held, routes);
  const host = waitForPort(socket, veth.host);
  saveConf(conf.dataDir, variables, delegate);
  undo.move();

  // Read again: somebody else's bridge may have taken the new port's address.
  const { name, mac, mtuBytes } = findLink(socket, bridge.index) ?? bridge;
  const result: AttachmentResult = {
    interfaces: [
      { name, mac, mtuBytes },
      { name: host.name, mac: host.mac, mtuBytes: host.mtuBytes },
      {
        name: veth.pod.name,
        mac: veth.pod.mac,
        mtuBytes: veth.pod.mtuBytes,
        sandbox: variables.netns,
      },
    ],
    addresses: held,
    routes,
    dns,
  };
  return formatResult(conf.cniVersion, result);
}

/** Reads the agent's file. It is not there before the agent has a lease, which is worth waiting for. */
function readSubnetEnv(path: string): SubnetEnv {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new CniError(
      CNI_CODE.tryAgainLater,
      `there is no ${path}: the agent writes it once the node has its subnet; see the agent's log`,
    );
  }
  try {
    return parseSubnetEnv(text, path);
  } catch (error) {
    throw new CniError(CNI_CODE.decodingFailure, toCniError(error).message);
  }
}

function readPodDns({ dns, ipam: { resolvConf } }: BridgeConf): Dns | undefined {
  if (dns !== undefined || resolvConf === undefined) return dns;
  return parseResolvConf(Deno.readTextFileSync(resolvConf));
}

function openPod(variables: CniVariables): PodNamespace {
  const { netns, ifName } = variables;
  const namespace = openNamespace(variables);
  if (namespace instanceof CniError) throw namespace;
  const pod = new PodNamespace(namespace);
  if (findLink(pod.socket, ifName) === undefined) return pod;
  pod[Symbol.dispose]();
  throw new CniError(
    CNI_CODE.conflict,
    `${netns} has an interface ${ifName} already: a second ADD needs a DEL first`,
  );
}

function reserve(variables: CniVariables, { addressDirectory, ipam }: BridgeConf): HeldAddress[] {
  using store = AddressStore.open(addressDirectory);
  return store.reserve(variables, ipam.ranges, ipam.requested);
}

function giveBack({ addressDirectory }: BridgeConf, held: readonly HeldAddress[]): void {
  using store = AddressStore.open(addressDirectory);
  store.remove(held.map(({ address }) => address));
}

/** The configuration's routes, and the default ones where they are asked for and not among them. */
function podRoutes(conf: BridgeConf, held: readonly HeldAddress[]): RouteConf[] {
  const routes = [...conf.ipam.routes];
  if (!conf.isDefaultGateway) return routes;
  for (const { range: { gateway: gw } } of held) {
    const everywhere = new Cidr(new IpAddress(gw.family, 0n), 0);
    if (!routes.some(({ dst }) => dst.equals(everywhere))) routes.push({ dst: everywhere, gw });
  }
  return routes;
}
