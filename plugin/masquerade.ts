/**
 * Pods whose packets to the outside leave under the node's address, for a node whose agent does not see to that. Loaded
 * only when it is used.
 *
 * @module
 */

import { PodMasquerade } from "@denim/core/linux/pod-masquerade";
import { CNI_CODE, CniError } from "./cni_error.ts";

/** Opens the masquerade of pods on the node. Throws a CniError if the kernel has no nftables. */
export function openMasquerade(): PodMasquerade {
  const masquerade = PodMasquerade.open();
  if (masquerade !== undefined) return masquerade;
  throw new CniError(
    CNI_CODE.kernel,
    "the plugin is to masquerade the pod (ipMasq in the configuration, or FLANNEL_IPMASQ=false in subnet.env), and " +
      "the kernel has no nftables: load its module nf_tables, start the agent with --ip-masq, set " +
      'delegate.ipMasqBackend to "iptables" with the bridge plugin in CNI_PATH, or set delegate.ipMasq to false',
  );
}

/** Stops to masquerade the pods of the devices that `isGone` says, if there are any. */
export function stopMasquerade(isGone: (device: string) => boolean): void {
  using masquerade = PodMasquerade.open();
  masquerade?.remove(isGone);
}

/** What CHECK says of a pod's addresses that are no longer masqueraded. */
export function masqueradeProblems(device: string, addresses: readonly string[]): string[] {
  using masquerade = PodMasquerade.open();
  const found = masquerade?.addressesOf(device) ?? [];
  return addresses.filter((address) => !found.includes(address))
    .map((address) => `${address} is no longer masqueraded: the node's nftables lack its rule`);
}
