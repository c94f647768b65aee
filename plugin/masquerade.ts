/**
 * Pods whose packets to the outside leave under the node's address, for a node whose agent does not see to that. Loaded
 * only when it is used.
 *
 * @module
 */

import { PodMasquerade } from "@denim/core/linux/pod-masquerade";
import { CNI_CODE, CniError } from "./cni_error.ts";

/** The masquerade of pods on the node of the thread that uses it, opened when it is first used. */
export class NodeMasquerade implements Disposable {
  #open: PodMasquerade | undefined;

  /** It, if the kernel has nftables. Throws a LinuxError without CAP_NET_ADMIN. */
  get found(): PodMasquerade | undefined {
    return this.#open ??= PodMasquerade.open();
  }

  /** It. Throws a CniError if the kernel has no nftables. */
  get required(): PodMasquerade {
    if (this.found !== undefined) return this.found;
    throw new CniError(
      CNI_CODE.kernel,
      "the plugin is to masquerade the pod (ipMasq in the configuration, or FLANNEL_IPMASQ=false in subnet.env), and " +
        "the kernel has no nftables: load its module nf_tables, start the agent with --ip-masq, set " +
        'delegate.ipMasqBackend to "iptables" with the bridge plugin in CNI_PATH, or set delegate.ipMasq to false',
    );
  }

  /** What CHECK says of a pod's addresses that are no longer masqueraded. */
  problems(device: string, addresses: readonly string[]): string[] {
    const found = this.found?.addressesOf(device) ?? [];
    return addresses.filter((address) => !found.includes(address))
      .map((address) => `${address} is no longer masqueraded: the node's nftables lack its rule`);
  }

  /** Closes it, which waits until the kernel has forgotten the rules that were removed. The others stay. */
  [Symbol.dispose](): void {
    this.#open?.[Symbol.dispose]();
  }
}
