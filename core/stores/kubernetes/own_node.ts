/**
 * This node in Kubernetes: what it is given there, and what it tells of itself.
 *
 * @module
 */

import {
  Backoff,
  Complaints,
  type Family,
  type IpAddress,
  type Lease,
  type LeaseHalf,
  type Logger,
  RuntimeError,
  sleep,
  throwDefect,
  throwUnlessAborted,
} from "../../mod.ts";
import {
  address,
  type AnnotationNames,
  type Annotations,
  annotationsOf,
  leaseOf,
  type NodeRecord,
  sameAnnotations,
} from "./annotations.ts";
import type { Condition, NodeApi } from "./node_api.ts";

/** Waits before a watch for this node is begun again. */
const REWATCH_MS = 200;
/** The waits before what others wrote over is written again, in milliseconds. */
const REWRITE = { minMs: 100, maxMs: 60_000 } as const;
/** Who writes over it again within so long keeps the wait growing. */
const CALM_MS = 120_000;

const NETWORK_UNAVAILABLE = "NetworkUnavailable";
/** What the condition says: flannel's words while there is a network, denim's while there is none. */
const REASONS = {
  False: { reason: "FlannelIsUp", message: "Flannel is running on this node" },
  True: { reason: "DenimIsNotReady", message: "denim has not been ready on this node for long" },
} as const;

/** What a node tells of itself, before its annotations have their say. */
export type Published = Pick<Lease, "backendType" | "halves">;

/** The node with one name, and what is written to it. */
export class OwnNode {
  readonly #api: NodeApi;
  readonly #names: AnnotationNames;
  readonly #log: Logger;
  /** Ends the writing again of what others wrote over. */
  readonly #closed: AbortSignal;
  /** Its name. */
  readonly name: string;
  /** What was written last, and to which of the nodes that had the name. */
  #published: { readonly what: Published; readonly uid: string } | undefined;
  /** How its annotations were before the last write, until the watch tells of that write. */
  #before: Annotations | undefined;
  /** As it was heard of last while it is to be written again. */
  #strayed: NodeRecord | undefined;
  #rewriting = false;
  readonly #backoff = new Backoff(REWRITE);
  #rewrittenAtMs = -Infinity;
  readonly #complaints = new Complaints();

  /** Nothing is asked yet. */
  constructor(
    name: string,
    options: {
      readonly api: NodeApi;
      readonly names: AnnotationNames;
      readonly log: Logger;
      readonly closed: AbortSignal;
    },
  ) {
    this.name = name;
    this.#api = options.api;
    this.#names = options.names;
    this.#log = options.log;
    this.#closed = options.closed;
  }

  /** The node as it is now; `undefined` if there is none. */
  async read(signal: AbortSignal): Promise<NodeRecord | undefined> {
    return (await this.#api.read(this.name, undefined, signal)).node;
  }

  /**
   * The node, once it is there and has a podCIDR. Says once what is missing.
   *
   * @param networks how the message names what the podCIDR should be in
   */
  async withPodCidr(networks: string, signal: AbortSignal): Promise<NodeRecord> {
    let told = "";
    for (;;) {
      const { node, resourceVersion } = await this.#api.read(this.name, undefined, signal);
      if (node !== undefined && node.podCidrs.length > 0) {
        if (told !== "") {
          this.#log.info(
            "pod-cidr-assigned",
            `node ${this.name} has a podCIDR: ${node.podCidrs.join()}`,
          );
        }
        return node;
      }
      const missing = node === undefined
        ? `waiting for node ${this.name}: Kubernetes has no node of that name (NODE_NAME says it); a kubelet ` +
          "registers its own"
        : `waiting for a podCIDR for node ${this.name}: kube-controller-manager gives it one if it runs with ` +
          `--allocate-node-cidrs=true and --cluster-cidr=${networks} (kubeadm: kubeadm init ` +
          `--pod-network-cidr=${networks}, k3s: --cluster-cidr=${networks})`;
      if (missing !== told) this.#log.warn("pod-cidr-awaited", missing);
      told = missing;
      await this.#change(resourceVersion, signal);
    }
  }

  /** Waits until something happens to the node, or the watch for it breaks. */
  async #change(resourceVersion: string, signal: AbortSignal): Promise<void> {
    try {
      const { name } = this;
      for await (const { events } of this.#api.watch({ resourceVersion, name }, signal)) {
        if (events.length > 0) return;
      }
    } catch (error) {
      if (error !== signal.reason) throwDefect(error);
      signal.throwIfAborted();
      if (!(error instanceof RuntimeError)) throw error;
    }
    await sleep(REWATCH_MS, signal);
  }

  /**
   * Writes to the node what it tells of itself, and from then on again if somebody else changes it. Resolves to
   * the lease that its annotations say then; `undefined` if the node is not that one any more.
   */
  async publish(
    what: Published,
    node: NodeRecord,
    signal: AbortSignal,
  ): Promise<Lease | undefined> {
    // Before it is written: the watch may tell of the write sooner than the answer does.
    this.#published = { what, uid: node.uid };
    const annotations = await this.#write(what, node, signal);
    if (annotations === undefined) return undefined;
    return leaseOf(this.#names, { ...node, annotations });
  }

  /** Takes what it tells of itself away from the node. Tells whether there was anything. */
  async withdraw(signal: AbortSignal): Promise<boolean> {
    this.#published = undefined;
    const node = await this.read(signal);
    if (node === undefined) return false;
    const gone = Object.fromEntries(this.#names.published.map((name) => [name, undefined]));
    return await this.#patch(node, gone, signal) !== undefined &&
      node.annotations[this.#names.managed] !== undefined;
  }

  /** Hears how the node is, so that what somebody else made of it is put right. */
  saw(node: NodeRecord): void {
    const published = this.#published;
    // A node that was made again is not ours before its lease is acquired.
    if (published === undefined || published.uid !== node.uid) return;
    const differs = differing(node.annotations, this.#wanted(published.what, node));
    if (Object.keys(differs).length === 0) {
      this.#before = this.#strayed = undefined;
      return;
    }
    // The watch is behind the write.
    if (this.#before && sameAnnotations(node.annotations, this.#before)) return;
    this.#strayed = node;
    if (!this.#rewriting) void this.#rewrite(Object.keys(differs));
  }

  async #rewrite(names: readonly string[]): Promise<void> {
    this.#rewriting = true;
    try {
      const calm = performance.now() - this.#rewrittenAtMs > CALM_MS;
      if (calm) this.#backoff.reset();
      this.#log.warn(
        "annotations-changed",
        `somebody else changed the annotations ${
          names.join(", ")
        } of node ${this.name}; they are written ` +
          "again. If it happens again and again, look for a flanneld or another agent on the node",
      );
      while (this.#strayed !== undefined && this.#published !== undefined) {
        if (!await sleep(this.#backoff.next(), this.#closed)) return;
        const strayed: NodeRecord | undefined = this.#strayed;
        this.#strayed = undefined;
        const published = this.#published;
        if (strayed === undefined || published === undefined) return;
        await this.#write(published.what, strayed, this.#closed);
        this.#rewrittenAtMs = performance.now();
      }
    } catch (error) {
      if (this.#closed.aborted) return throwUnlessAborted(error, this.#closed);
      if (!(error instanceof RuntimeError)) throw error;
      this.#log.error(
        "annotations-unwritten",
        `the annotations of node ${this.name} are not written: ${error.message}`,
      );
    } finally {
      this.#rewriting = false;
    }
  }

  async #write(
    what: Published,
    node: NodeRecord,
    signal: AbortSignal,
  ): Promise<Annotations | undefined> {
    this.#before = node.annotations;
    return await this.#patch(node, this.#wanted(what, node), signal);
  }

  /** The annotations that the node is to have. */
  #wanted({ backendType, halves }: Published, { annotations }: NodeRecord) {
    const overwritten = halves.map((half): LeaseHalf => {
      const publicIp = this.#overwrite(annotations, half.subnet.family);
      return publicIp === undefined ? half : { ...half, publicIp };
    });
    return annotationsOf(this.#names, { backendType, halves: overwritten });
  }

  /** The address that a person wants others to reach this node at, whether a device has it or not. */
  #overwrite(annotations: Annotations, family: Family): IpAddress | undefined {
    try {
      return address(annotations, this.#names.family[family].publicIpOverwrite, family);
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      const complaint = `node ${this.name}: ${error.message}; the node's own address stays`;
      if (this.#complaints.isNew(complaint)) this.#log.warn("overwrite-unusable", complaint);
      return undefined;
    }
  }

  /** Writes what differs. Tells the annotations then; `undefined` if the node was made again, or is gone. */
  async #patch(
    node: NodeRecord,
    wanted: Readonly<Record<string, string | undefined>>,
    signal: AbortSignal,
  ): Promise<Annotations | undefined> {
    const annotations = differing(node.annotations, wanted);
    if (Object.keys(annotations).length === 0) return node.annotations;
    return await this.#api.patch(this.name, { uid: node.uid, annotations }, signal);
  }

  /**
   * Tells the scheduler whether pods on this node have a network, with the condition NetworkUnavailable. Does
   * nothing if it says so already.
   */
  async setNetworkUnavailable(unavailable: boolean, signal: AbortSignal): Promise<void> {
    const status = unavailable ? "True" : "False";
    const wanted = { type: NETWORK_UNAVAILABLE, status, ...REASONS[status] } as const;
    for (let done = false; !done;) {
      const node = await this.read(signal);
      if (node === undefined) return;
      const found = (await this.#api.conditions(this.name, signal))
        .find(({ type }) => type === NETWORK_UNAVAILABLE);
      if (found?.status === status && found.reason === wanted.reason) return;
      const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
      const since = found?.status === status ? found.lastTransitionTime : undefined;
      const condition: Condition = {
        ...wanted,
        lastHeartbeatTime: now,
        lastTransitionTime: since ?? now,
      };
      const patch = { uid: node.uid, conditions: [condition] };
      done = await this.#api.patch(this.name, patch, signal) !== undefined;
    }
  }

  /** The addresses that `node-public-ip` and `node-public-ipv6` name, for the choice of the outer interface. */
  async publicIps(signal: AbortSignal): Promise<ReadonlyMap<Family, IpAddress>> {
    const annotations = (await this.read(signal))?.annotations ?? {};
    return new Map(([4, 6] as const).flatMap((family): [Family, IpAddress][] => {
      const named = address(annotations, this.#names.family[family].nodePublicIp, family);
      return named === undefined ? [] : [[family, named]];
    }));
  }
}

/** What of the wanted annotations is not as it should be: the value to set, `null` for one that has to go. */
function differing(
  annotations: Annotations,
  wanted: Readonly<Record<string, string | undefined>>,
): Record<string, string | null> {
  return Object.fromEntries(
    Object.entries(wanted)
      .filter(([name, value]) => annotations[name] !== value)
      .map(([name, value]) => [name, value ?? null]),
  );
}
