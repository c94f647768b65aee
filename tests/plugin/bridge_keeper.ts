/**
 * What an agent does for the pods' bridge, without the rest of an agent.
 *
 * @module
 */

import { Reconciler } from "@denim/core/linux";
import type { KernelState } from "@denim/core/kernel-state";
import { RecordingLog } from "../support/recording_log.ts";
import { NETWORK, NETWORK6, type PluginNode, SUBNET, SUBNET6 } from "./plugin_node.ts";

/** The gateways of a {@link PluginNode} with both families, as an agent wants them. */
const GATEWAYS: KernelState = [SUBNET, SUBNET6].map((subnet) => ({
  kind: "podGateway",
  address: subnet.at(1n),
  prefixLength: subnet.prefixLength,
}));

/** A reconciler that keeps the pods' bridge of a node. */
export class BridgeKeeper implements AsyncDisposable {
  readonly #node: PluginNode;
  #reconciler!: Reconciler;
  #stop!: AbortController;
  #running!: Promise<void>;

  /** Starts it. */
  constructor(node: PluginNode) {
    this.#node = node;
    this.#start();
  }

  #start(): void {
    this.#reconciler = this.#node.namespace.run(() => new Reconciler({ log: new RecordingLog() }));
    this.#reconciler.networks = [
      { network: NETWORK, subnetLength: SUBNET.prefixLength },
      { network: NETWORK6, subnetLength: SUBNET6.prefixLength },
    ];
    this.#reconciler.set("host", GATEWAYS);
    this.#reconciler.check();
    this.#stop = new AbortController();
    this.#running = this.#reconciler.run(this.#stop.signal);
  }

  /** Looks at everything now. */
  check(): void {
    this.#reconciler.check();
  }

  /** Ends it, and starts another. */
  async restart(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#start();
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.#reconciler[Symbol.dispose]();
  }
}
