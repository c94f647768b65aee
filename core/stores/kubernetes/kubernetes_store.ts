/**
 * Leases in Kubernetes: a node's subnets are its podCIDRs, which Kubernetes gives it, and what others have to
 * know of it are its annotations, flannel's. Nothing has to be renewed: a lease ends with its node.
 *
 * @module
 */

import {
  type Cidr,
  Complaints,
  ConfigError,
  type Family,
  holdsHost,
  hostWithin,
  type IpAddress,
  type Lease,
  type LeaseEvent,
  leaseKey,
  LeaseLostError,
  LeaseMovedError,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  type Metrics,
  type NetworkConfig,
  networksOf,
  NO_METRICS,
  type NodeIdentity,
  type Note,
  requestedLease,
  RuntimeError,
  type StoreMetrics,
  storeMetrics,
} from "../../mod.ts";
import { AnnotationNames, leaseOf, type NodeRecord, podSubnets } from "./annotations.ts";
import { KubernetesClient } from "./client.ts";
import { findAccess } from "./find_access.ts";
import { LeaseTable } from "./lease_table.ts";
import { NetConfFile } from "./net_conf_file.ts";
import { NodeApi } from "./node_api.ts";
import { NodeNotes } from "./node_notes.ts";
import { NodeFollower, type PodCidrs } from "./node_follower.ts";
import type { Resolve } from "./open_transport.ts";
import { OwnNode } from "./own_node.ts";

/** How a store is opened. */
export interface KubernetesStoreOptions {
  /** `--kubeconfig-file`: a kubeconfig, whose current context counts; a pod's service account unless given. */
  readonly kubeconfigFile?: string | undefined;
  /** `--kube-api-url`: the API server's URL, in place of the kubeconfig's or the pod's. */
  readonly apiUrl?: string | undefined;
  /** `--kube-annotation-prefix`: what flannel's annotations begin with, `flannel.alpha.coreos.com`. */
  readonly annotationPrefix: string;
  /** `--net-config-path`: the file with net-conf, which is followed. */
  readonly netConfFile: string;
  /** `--set-node-network-unavailable`: whether the node's condition NetworkUnavailable is denim's to set. */
  readonly setNetworkUnavailable: boolean;
  /** Which node this is: its name, as `NODE_NAME` has it, or the agent's own pod, whose node it is. */
  readonly node: { readonly name: string } | {
    /** `POD_NAMESPACE` and `POD_NAME`. */
    readonly pod: { readonly namespace: string; readonly name: string };
  };
  /** Hears what the store waits for, and of nodes that can't be followed. */
  readonly log: Logger;
  /** Counts requests, failures, outages and watches begun again; nothing unless given. */
  readonly metrics?: Metrics | undefined;
  /** The process's environment unless given: where a pod's API server is. */
  readonly environment?: (name: string) => string | undefined;
  /** Where a pod's service account is; Kubernetes' place unless given. */
  readonly serviceAccountDirectory?: string | undefined;
  /** Finds the addresses of a server's name; the system's way unless given. */
  readonly resolve?: Resolve | undefined;
}

/** Leases in a Kubernetes cluster. */
export class KubernetesStore implements LeaseStore {
  /** `kubernetes:` with the node's name and what the way to the server is read from. */
  readonly description: string;
  readonly #client: KubernetesClient;
  readonly #api: NodeApi;
  readonly #names: AnnotationNames;
  readonly #netConf: NetConfFile;
  readonly #own: OwnNode;
  readonly #notes: NodeNotes;
  readonly #setsCondition: boolean;
  readonly #log: Logger;
  readonly #metrics: StoreMetrics;
  readonly #complaints = new Complaints();
  /** Outlives a watch, so that the next one need not read them again. */
  readonly #podCidrs: PodCidrs = new Map();

  private constructor(
    options: KubernetesStoreOptions,
    parts: {
      readonly description: string;
      readonly client: KubernetesClient;
      readonly names: AnnotationNames;
      readonly api: NodeApi;
      readonly metrics: StoreMetrics;
      readonly nodeName: string;
    },
  ) {
    const { client, names, api, nodeName } = parts;
    const { log } = options;
    this.description = parts.description;
    this.#client = client;
    this.#names = names;
    this.#api = api;
    this.#netConf = new NetConfFile(options.netConfFile, log);
    this.#own = new OwnNode(nodeName, { api, names, log, closed: client.closed });
    this.#notes = new NodeNotes(this.#own, client, names);
    this.#setsCondition = options.setNetworkUnavailable;
    this.#log = log;
    this.#metrics = parts.metrics;
  }

  /**
   * Opens a store; the API server is asked with the first call, but for the node of a pod, which is asked for at
   * once. Rejects with a ConfigError if an option can't be used.
   */
  static async open(
    options: KubernetesStoreOptions,
    signal: AbortSignal,
  ): Promise<KubernetesStore> {
    const { node, log } = options;
    if ("name" in node && node.name === "") {
      throw new ConfigError("NODE_NAME is empty: name the node");
    }
    const names = new AnnotationNames(options.annotationPrefix);
    const environment = options.environment ?? ((name) => Deno.env.get(name));
    const access = findAccess({ ...options, environment });
    await using opening = new AsyncDisposableStack();
    const metrics = storeMetrics(options.metrics ?? NO_METRICS, "kubernetes");
    const { resolve } = options;
    const client = opening.use(new KubernetesClient({ access, log, metrics, resolve }));
    const api = new NodeApi(client, names);
    const nodeName = "name" in node
      ? node.name
      : await api.nodeOfPod(node.pod.namespace, node.pod.name, signal);
    const description = `kubernetes: node ${nodeName}, ${access.description}`;
    const store = new KubernetesStore(options, {
      description,
      client,
      names,
      api,
      metrics,
      nodeName,
    });
    opening.move();
    return store;
  }

  /** The net-conf, waited for; see {@link LeaseStore.networkConfig}. */
  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    return await this.#netConf.read(signal);
  }

  /** The net-conf, then each other one that the file has; see {@link LeaseStore.watchNetworkConfig}. */
  watchNetworkConfig(signal: AbortSignal): AsyncGenerator<NetworkConfig, void, void> {
    return this.#netConf.watch(signal);
  }

  /** The lease that the node's annotations say, denim's or flannel's; see {@link LeaseStore.held}. */
  async held(_node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined> {
    const node = await this.#own.read(signal);
    return node && this.#readOwn(node);
  }

  #readOwn(node: NodeRecord): Lease | undefined {
    try {
      return leaseOf(this.#names, node);
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      this.#log.warn("node-unreadable", `node ${node.name} holds no lease: ${error.message}`);
      return undefined;
    }
  }

  /**
   * Gives the node its podCIDRs, waited for, and writes its annotations. A lease of one family alone comes of a
   * node that has only that family's podCIDR. Rejects with a ConfigError if net-conf does not allow the
   * podCIDRs or they hold a host's address, and with a LeaseMovedError if no other subnets will do than the node has now.
   */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    for (;;) {
      const config = await this.#netConf.read(signal);
      const networks = networksOf(config).join();
      const node = await this.#own.withPodCidr(networks, signal);
      const subnets = this.#chooseSubnets(config, node);
      const host = hostWithin(subnets, request.hostNetwork?.hosts ?? []);
      if (host !== undefined && !request.only) {
        throw new ConfigError(
          `node ${node.name}: its podCIDR ${
            holdsHost(subnets, host)
          }; name a network in which no host has an ` +
            "address with --cluster-cidr (kubeadm's podSubnet) and in net-conf, and have the node registered again",
        );
      }
      const key = leaseKey(subnets);
      if (request.only && key !== leaseKey(request.previousSubnets)) {
        throw new LeaseMovedError(
          `node ${node.name} was made again in Kubernetes and has the podCIDR ${key} now, not ` +
            leaseKey(request.previousSubnets),
        );
      }
      const { backendType, halves } = requestedLease(request, subnets, "never");
      const lease = await this.#own.publish({ backendType, halves }, node, signal);
      if (lease !== undefined) return lease;
    }
  }

  /** Those of the node's podCIDRs whose family net-conf enables. */
  #chooseSubnets(config: NetworkConfig, node: NodeRecord): readonly Cidr[] {
    const refuse = (what: string): never => {
      throw new ConfigError(`node ${node.name}: ${what}`);
    };
    let subnets: readonly Cidr[] = [];
    try {
      subnets = podSubnets(node);
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      refuse(error.message);
    }
    const wanted = config.families.flatMap(({ family, network }) => {
      const subnet = subnets.find((one) => one.family === family);
      if (subnet === undefined || network.contains(subnet)) return subnet ?? [];
      return refuse(
        `its podCIDR ${subnet} is outside net-conf's ${
          family === 6 ? "IPv6" : ""
        }Network ${network}; the ` +
          "cluster's --cluster-cidr (kubeadm's podSubnet) and net-conf have to name the same network",
      );
    });
    const missing = config.families.filter(({ family }) =>
      !subnets.some((one) => one.family === family)
    ).map(({ family }) => `IPv${family}`);
    if (missing.length === 0) return wanted;
    const advice =
      `net-conf enables ${missing.join(" and ")}, for which the node has no podCIDR: set Enable` +
      `${
        missing[0]
      } to false, or name networks of both families with --cluster-cidr and have the node ` +
      "registered again, since a node's podCIDRs never change";
    if (wanted.length === 0) refuse(`${advice} (it has ${subnets.join()})`);
    if (this.#complaints.isNew(advice)) {
      this.#log.warn(
        "pod-cidr-family-missing",
        `node ${node.name} goes on with ${wanted.join()} alone: ${advice}`,
      );
    }
    return wanted;
  }

  /** The lease as it is; it never ends. Rejects as {@link LeaseStore.renew} does if it is not the node's any more. */
  async renew(lease: Lease, signal: AbortSignal): Promise<Lease> {
    const node = await this.#own.read(signal);
    const held = node && this.#readOwn(node);
    if (held?.key === lease.key) return held;
    throw new LeaseLostError(
      `node ${this.#own.name} does not hold the lease ${lease.key} any more`,
    );
  }

  /** Takes the annotations of this node's own lease away; other nodes' are theirs. See {@link LeaseStore.release}. */
  async release(key: string, signal: AbortSignal): Promise<boolean> {
    const node = await this.#own.read(signal);
    if (node === undefined || this.#readOwn(node)?.key !== key) return false;
    return await this.#own.withdraw(signal);
  }

  /** All leases, then each change; see {@link LeaseStore.watch}. What others make of this node's is put right. */
  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    const ending = AbortSignal.any([signal, this.#client.closed]);
    const follower = new NodeFollower({
      api: this.#api,
      names: this.#names,
      known: this.#podCidrs,
      metrics: this.#metrics,
      log: this.#log,
    });
    const table = new LeaseTable(this.#names, this.#log);
    for await (const news of follower.follow(ending)) {
      const event = table.apply(news);
      this.#client.nodes = table.size;
      if (event !== undefined) yield event;
      const nodes = news.kind === "snapshot" ? news.nodes : news.put;
      for (const node of nodes) if (node.name === this.#own.name) this.#own.saw(node);
    }
  }

  /** See {@link LeaseStore.servers}. */
  get servers(): readonly string[] {
    const { server } = this.#client;
    return server === undefined ? [] : [new URL(server).hostname];
  }

  /** Connects again, since the node's addresses are others; see {@link LeaseStore.reconnect}. */
  reconnect(): void {
    this.#client.reconnect();
  }

  /**
   * Tells Kubernetes whether pods on this node have a network, unless that is not denim's to tell: to be called
   * when packets find their way, and when they have not for long. Waits as the other calls do.
   */
  async setNetworkUnavailable(unavailable: boolean, signal: AbortSignal): Promise<void> {
    if (this.#setsCondition) await this.#own.setNetworkUnavailable(unavailable, signal);
  }

  /**
   * The addresses that the annotations `node-public-ip` and `node-public-ipv6` name: they go before
   * `--public-ip`, as flannel has it. Rejects with a RuntimeError if one is not an address.
   */
  async publicIps(signal: AbortSignal): Promise<ReadonlyMap<Family, IpAddress>> {
    return await this.#own.publicIps(signal);
  }

  /** See {@link LeaseStore.clockAheadMs}. */
  async clockAheadMs(signal: AbortSignal): Promise<number | undefined> {
    // Any answer tells.
    await this.#own.read(signal);
    return this.#client.clockAheadMs;
  }

  /**
   * See {@link LeaseStore.writeNote}: a note is an Event of the node, which people see too. Rejects with a RefusedError
   * if denim may not write any.
   */
  async writeNote(key: string, note: Note | undefined, signal: AbortSignal): Promise<void> {
    await this.#notes.write(key, note, signal);
  }

  /** See {@link LeaseStore.notes}. */
  async notes(signal: AbortSignal): Promise<ReadonlyMap<string, string> | undefined> {
    return await this.#notes.read(signal);
  }

  /** Ends all calls and watches. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }
}
