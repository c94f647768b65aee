/**
 * DEL: removes what an ADD made, as far as it is still there (CNI spec 1.1.0, section 2, "DEL").
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { FAMILIES } from "@denim/core/ip";
import { findLink, type LinkState, listAddresses, NetlinkSocket } from "@denim/core/linux/attach";
import { AddressStore } from "./address_store.ts";
import { hostInterfaceName, removeLink } from "./bridge.ts";
import { CniError, Failures } from "./cni_error.ts";
import type { ConfObject } from "./conf_object.ts";
import {
  askedOf,
  BUILT_IN,
  isDelegated,
  isMasqueradedBy,
  readSubnetEnv,
  typeOf,
  wantsMasquerade,
} from "./delegate_conf.ts";
import { type CniVariables, isCniName } from "./environment.ts";
import { addressDirectory } from "./host_local_conf.ts";
import { withOwnMasquerade } from "./load_masquerade.ts";
import type { Helpers, LaterWork, Removal } from "./work.ts";
import type { NodeMasquerade } from "./masquerade.ts";
import { openNamespace, PodNamespace } from "./namespace.ts";
import type { NetworkConf } from "./network_conf.ts";
import { readSavedConf, removeDraft, removeSavedConf } from "./saved_conf.ts";

/**
 * Detaches a container. It needs neither the agent's subnet.env nor the record of the ADD: it finds the interface
 * and its addresses by the container's id and the interface's name. flannel's record, one file a container, is that
 * of the container's last ADD: it says where else to look, and stays as long as another interface of the container
 * may need it. If a file can't be read or deleted, DEL still removes everything else, the interface first, and then
 * fails with that error; the next DEL, or GC, does what is left.
 */
export function del(
  conf: NetworkConf,
  variables: CniVariables,
  { masquerade }: Helpers,
): Removal | LaterWork {
  const failures = new Failures();
  removeDraft(conf.dataDir, variables);
  const saved = failures.attempt(() => readSavedConf(conf.dataDir, variables));
  const own = saved?.get("name") === conf.name ? saved : undefined;
  const delegate = own ?? askedOf(conf);
  const takeDown = (masquerade?: NodeMasquerade) =>
    takeDownPod(conf, variables, saved, failures, masquerade);
  if (!isDelegated(delegate)) {
    const isMasqueraded = mayBeMasqueraded(conf, own);
    if (isMasqueraded && masquerade === undefined) return withOwnMasquerade(takeDown);
    return {
      device: hostInterfaceName(variables),
      finish: () => takeDown(isMasqueraded ? masquerade : undefined),
    };
  }
  failures.rethrow();
  return async () => {
    const { delegateDel, hasPlugin } = await import("./delegate.ts");
    // If the bridge plugin is no longer installed, denim removes what that plugin made.
    return typeOf(delegate) !== BUILT_IN || hasPlugin(delegate, variables)
      ? await delegateDel(conf, variables, own)
      : takeDown();
  };
}

/** Whether denim may masquerade the pod: as its record says, or else as an ADD would do it now. */
function mayBeMasqueraded(conf: NetworkConf, record: ConfObject | undefined): boolean {
  if (record !== undefined) return isMasqueradedBy(record);
  try {
    return wantsMasquerade(conf, readSubnetEnv(conf.subnetFile)) === true;
  } catch (error) {
    throwDefect(error);
    return wantsMasquerade(conf, undefined) !== false;
  }
}

/** DEL of what denim's own bridge made, or flannel's chain of bridge and host-local. */
function takeDownPod(
  conf: NetworkConf,
  variables: CniVariables,
  saved: ConfObject | undefined,
  failures: Failures,
  masquerade: NodeMasquerade | undefined,
): string {
  const savedDirectory = saved && savedAddressDirectory(saved);
  const directories = new Set([addressDirectory(conf.json), savedDirectory]);
  removeInterface(variables, directories);
  failures.attempt(() =>
    masquerade?.found?.remove((device) => device === hostInterfaceName(variables))
  );
  let needed = false;
  for (const directory of directories) {
    failures.attempt(() => {
      using store = directory === undefined ? undefined : AddressStore.openExisting(directory);
      const others = store?.release(variables) ?? false;
      if (directory === savedDirectory) needed = others;
    });
  }
  if (!needed && !failures.some) removeSavedConf(conf.dataDir, variables);
  failures.rethrow();
  return "";
}

/** The folder of addresses that a record names; `undefined` if it is not the record of a network with a bridge. */
function savedAddressDirectory(saved: ConfObject): string | undefined {
  const name = saved.get("name");
  const ours = typeof name === "string" && isCniName(name) && typeOf(saved) === BUILT_IN;
  return ours ? addressDirectory(saved) : undefined;
}

/**
 * Removes the interface: first by the name of the node's end, with which the container's end goes too; then by its
 * name in the container, because flannel's chain gives the node's end another name. If the path leads to another
 * container by now, that container keeps its interface.
 */
function removeInterface(
  variables: CniVariables,
  directories: Iterable<string | undefined>,
): void {
  {
    using socket = new NetlinkSocket();
    removeLink(socket, hostInterfaceName(variables));
  }
  const namespace = openNamespace(variables);
  if (namespace instanceof CniError) return;
  using pod = new PodNamespace(namespace);
  const link = findLink(pod.socket, variables.ifName);
  if (link === undefined || isAnothers(pod, link, variables, directories)) return;
  removeLink(pod.socket, variables.ifName);
}

/** Whether a device has an address that another container holds. */
function isAnothers(
  { socket }: PodNamespace,
  { index }: LinkState,
  { containerId }: CniVariables,
  directories: Iterable<string | undefined>,
): boolean {
  const addresses = FAMILIES.flatMap((family) => listAddresses(socket, family, index));
  for (const directory of directories) {
    using store = directory === undefined ? undefined : AddressStore.openExisting(directory);
    const others = (store?.holders() ?? []).filter((holder) =>
      holder.containerId !== undefined && holder.containerId !== containerId
    );
    const isHeld = addresses.some(({ address }) => others.some((it) => it.address.equals(address)));
    if (isHeld) return true;
  }
  return false;
}
