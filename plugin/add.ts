/**
 * ADD: gives a container an interface in the node's network (CNI spec 1.1.0, section 2, "ADD").
 *
 * @module
 */

import type { Cidr } from "@denim/core/ip";
import { findLink, NetlinkSocket } from "@denim/core/linux/attach";
import type { PodMasquerade } from "@denim/core/linux/pod-masquerade";
import { AddressStore, type HeldAddress } from "./address_store.ts";
import {
  configurePod,
  ensureBridge,
  ensureGateway,
  hostInterfaceName,
  makeVeth,
  markGateway,
  removeLink,
  requireIpv6,
  waitForPort,
} from "./bridge.ts";
import {
  type BridgeConf,
  isDelegated,
  MAX_MTU_BYTES,
  podRoutes,
  readBridgeConf,
  readSubnetEnv,
  renderDelegate,
} from "./delegate_conf.ts";
import type { ConfObject } from "./conf_object.ts";
import { type CniVariables, readArgs } from "./environment.ts";
import { type Dns, parseResolvConf } from "./host_local_conf.ts";
import { withOwnMasquerade } from "./load_masquerade.ts";
import type { Helpers, LaterWork } from "./work.ts";
import { openPod, refuseSecondAdd } from "./namespace.ts";
import type { NetworkConf } from "./network_conf.ts";
import { type AttachmentResult, formatResult } from "./result.ts";
import {
  hasBridge,
  hasGateway,
  hasRecords,
  lockRecords,
  readSavedConf,
  saveConf,
} from "./saved_conf.ts";

/**
 * Attaches a container and returns the result as JSON. Checks everything before it makes anything. If a later step
 * fails, it removes all that this call made, except the bridge, which other pods may use by then. First it removes
 * what an earlier ADD of the attachment left that was killed.
 */
export function add(
  conf: NetworkConf,
  variables: CniVariables,
  { warn, masquerade }: Helpers,
): string | LaterWork {
  const env = readSubnetEnv(conf.subnetFile);
  const delegate = renderDelegate(conf, env);
  // The first pod's ADD says it: each ADD is a process of its own, and there may be thousands.
  if (env.mtuBytes > MAX_MTU_BYTES && !hasRecords(conf.dataDir)) {
    warn(
      `${conf.subnetFile}: FLANNEL_MTU is ${env.mtuBytes}, more than a pod's device can have; ` +
        `pods get ${MAX_MTU_BYTES}`,
    );
  }
  if (isDelegated(delegate)) {
    return async () => (await import("./delegate.ts")).delegateAdd(conf, variables, delegate);
  }
  const bridgeConf = readBridgeConf(delegate, readArgs(variables.args));
  requireIpv6(bridgeConf);
  const networks = env.halves.flatMap(({ networks }) => networks);
  const work: Work = { conf, variables, delegate, bridgeConf, networks };
  if (!bridgeConf.isMasqueraded) return attach(work);
  return masquerade === undefined
    ? withOwnMasquerade((masquerade) => attach(work, masquerade.required))
    : attach(work, masquerade.required);
}

/** What an ADD by denim's own bridge goes by. */
interface Work {
  readonly conf: NetworkConf;
  readonly variables: CniVariables;
  /** The record for the pod's DEL. */
  readonly delegate: ConfObject;
  readonly bridgeConf: BridgeConf;
  /** The cluster's networks. */
  readonly networks: readonly Cidr[];
}

/**
 * Attaches a container by denim's own bridge.
 *
 * @param masquerade what is to masquerade it, if the plugin has to see to that
 */
function attach(
  { conf, variables, delegate, bridgeConf, networks }: Work,
  masquerade?: PodMasquerade,
): string {
  const dns = readPodDns(bridgeConf);
  using pod = openPod(variables);
  using socket = new NetlinkSocket();
  using _lock = lockRecords(conf.dataDir, "shared");
  using undo = new DisposableStack();

  const attached = isAttached(socket, conf, variables);
  refuseSecondAdd(pod, variables);
  const held = reserve(variables, bridgeConf, attached);
  undo.defer(() => giveBack(bridgeConf, held));
  const routes = podRoutes(bridgeConf);
  const bridge = ensureBridge(socket, bridgeConf);
  // Before the bridge has its first port: from then on the agent would take it for one that lost its address.
  markGateway(socket, bridge, hasGateway(conf.dataDir, delegate));
  if (bridgeConf.isGateway) {
    const isKnown = (name: string) => hasBridge(conf.dataDir, name);
    ensureGateway(socket, bridgeConf, bridge, networks, isKnown);
  }
  const veth = makeVeth(socket, pod, variables, bridgeConf, bridge);
  undo.defer(() => removeLink(socket, veth.host.name));
  configurePod(pod, veth.pod, bridgeConf, held, routes);
  if (masquerade !== undefined) {
    const device = veth.host.name, addresses = held.map(({ address }) => address);
    // After the device is there: to GC, rules for a device that is not there are left from one that was.
    masquerade.add({ device, addresses, networks });
    undo.defer(() => masquerade.remove((other) => other === device));
  }
  const host = waitForPort(socket, veth.host);
  saveConf(conf.dataDir, variables, delegate);
  undo.move();

  // Read again: a bridge that denim did not make may have taken the new port's Ethernet address.
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

function readPodDns({ dns, ipam: { resolvConf } }: BridgeConf): Dns | undefined {
  if (dns !== undefined || resolvConf === undefined) return dns;
  return parseResolvConf(Deno.readTextFileSync(resolvConf));
}

/**
 * Whether an earlier ADD attached the container. An ADD writes the record last: an interface without a record was
 * left by an ADD that was killed, and is removed here.
 */
function isAttached(
  socket: NetlinkSocket,
  { dataDir }: NetworkConf,
  variables: CniVariables,
): boolean {
  const name = hostInterfaceName(variables);
  if (readSavedConf(dataDir, variables) !== undefined) return findLink(socket, name) !== undefined;
  removeLink(socket, name);
  return false;
}

function reserve(
  variables: CniVariables,
  { addressDirectory, ipam }: BridgeConf,
  attached: boolean,
): HeldAddress[] {
  using store = AddressStore.open(addressDirectory);
  return store.reserve(variables, ipam, attached);
}

function giveBack({ addressDirectory }: BridgeConf, held: readonly HeldAddress[]): void {
  using store = AddressStore.open(addressDirectory);
  store.remove(held.map(({ address }) => address));
}
