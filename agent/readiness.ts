/**
 * Whether pods may be attached to this node: subnet.env, and what `/readyz` answers.
 *
 * @module
 */

import {
  type Logger,
  messageOf,
  type Metrics,
  type NodeIdentity,
  type SubnetEnv,
  throwDefect,
} from "@denim/core";
import type { SubnetFile } from "./subnet_file.ts";

/** What a node's readiness works with. */
export interface ReadinessOptions {
  /** subnet.env on disk. */
  readonly subnetFile: Pick<SubnetFile, "write" | "remove">;
  /** What subnet.env has to say now. */
  readonly env: () => SubnetEnv;
  /** The addresses under which the node holds its lease now. */
  readonly publicIps: () => NodeIdentity["publicIps"];
  /** The names of the devices that are denim's own now. */
  readonly devices: () => readonly string[];
  /** Told `undefined` when the node is ready, and why when it is not any more. */
  readonly onReadiness: (unready: string | undefined) => void;
  /** Told when subnet.env cannot be written. */
  readonly log: Logger;
  /** Takes the gauge `denim_ready`. */
  readonly metrics: Metrics;
}

/** Keeps subnet.env there while the node is ready, and only then: without it the plugin attaches no pod. */
export class Readiness {
  readonly #options: ReadinessOptions;
  #wasReady = false;
  #taken = false;

  /** A node that is not ready yet. */
  constructor(options: ReadinessOptions) {
    this.#options = options;
    options.metrics.gauge(
      "denim_ready",
      "1 while pods can be attached to this node, else 0.",
      () => Number(this.ready),
    );
  }

  /** Whether pods can be attached now. */
  get ready(): boolean {
    return this.#wasReady && !this.#taken;
  }

  /** Whether the node was ready at some time: pods may live on it. */
  get wasReady(): boolean {
    return this.#wasReady;
  }

  /** Whether the node's subnet is another node's: a pod's address would be a stranger's too. */
  get taken(): boolean {
    return this.#taken;
  }

  /** The node's subnet is another node's now, or is its own again. */
  setTaken(taken: boolean): void {
    this.#taken = taken;
    if (taken || this.#wasReady) this.#publish();
  }

  /** Everything that pods need is there. Throws a RuntimeError if subnet.env cannot be written. */
  start(): void {
    this.#publish();
    this.#wasReady = true;
  }

  /** Writes subnet.env again, if the node is ready: what it says may be different now. */
  update(): void {
    if (this.ready) this.#write();
  }

  #publish(): void {
    if (this.#taken) this.#options.subnetFile.remove();
    else this.#write();
    this.#options.onReadiness(this.#taken ? "another node has its subnet" : undefined);
  }

  #write(): void {
    const { subnetFile, env, publicIps, devices, log } = this.#options;
    try {
      subnetFile.write(env(), publicIps(), devices());
    } catch (error) {
      throwDefect(error);
      if (!this.#wasReady) throw error;
      // SubnetFile.keep tries it again for as long as it takes.
      log.error("subnet-file-failed", messageOf(error));
    }
  }
}
