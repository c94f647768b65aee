/**
 * One way in which this node's packets reach its peers.
 *
 * @module
 */

import {
  type BackendSession,
  type Lease,
  type NetworkConfig,
  type NodeContext,
  type OuterInterface,
  type Peer,
  PeerTable,
} from "@denim/core";
import { type AnyBackend, findBackend, readBackendOptions } from "./net_conf.ts";

/** What stands around a data path, as it is when one is opened. */
export interface Surroundings {
  /** The outer interface. */
  readonly outer: { readonly current: OuterInterface };
  /** The network between the hosts. */
  readonly hostNetwork: { overlaps(config: NetworkConfig): boolean };
}

/** What data paths are made from, beside net-conf: what `Backend.open` is given, and by whom it is opened. */
export interface DataPathContext
  extends
    Surroundings,
    Pick<NodeContext, "kernel" | "log" | "metrics" | "scope" | "signal" | "fail"> {
  /** The backends that net-conf may name. */
  readonly backends: readonly AnyBackend[];
}

/** A backend at work, with the peers that it reaches. */
export class DataPath implements AsyncDisposable {
  static #opened = 0;

  /** The reconciler's name for what the node itself needs for this data path. No two data paths share one. */
  readonly owner: string;
  /** See {@link fingerprintOf}. */
  readonly fingerprint: string;
  /** The kind of network. */
  readonly backend: AnyBackend;
  /** The backend at work. */
  readonly session: BackendSession;
  /** The peers that it reaches. */
  readonly peers: PeerTable<unknown>;
  #closed = false;

  private constructor(fields: Pick<DataPath, "fingerprint" | "backend" | "session" | "peers">) {
    this.owner = `data path ${++DataPath.#opened}`;
    this.fingerprint = fields.fingerprint;
    this.backend = fields.backend;
    this.session = fields.session;
    this.peers = fields.peers;
  }

  /**
   * Opens the data path that a net-conf asks for. Changes nothing in the kernel. Rejects with a ConfigError if
   * no backend has that name or the backend refuses its options, and as `Backend.open` does.
   *
   * @param held the lease that this node has, from this run or the last one
   */
  static async open(
    config: NetworkConfig,
    held: Lease | undefined,
    context: DataPathContext,
  ): Promise<DataPath> {
    const { backends, outer: { current: outer }, hostNetwork, ...node } = context;
    const backend = findBackend(config, backends);
    const fingerprint = fingerprintOf(config, context);
    const session = await backend.open(
      { ...node, config, outer, overlapsHosts: hostNetwork.overlaps(config), held },
      readBackendOptions(backend, config),
    );
    const conflict = (peer: Peer<unknown>) =>
      (backend.sharesPublicIp ? undefined : sharedPublicIp(peer, outer.publicIps)) ??
        session.conflict?.(peer);
    const keep = session.followsUnderlay ?? false;
    const peers = new PeerTable<unknown>(backend, config, node.log, { keep, conflict });
    return new DataPath({ fingerprint, backend, session, peers });
  }

  /** Whether it carries packets no more. Its backend must not be told of peers then. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Ends its backend; a second call does nothing. What the kernel has for it stays: that is the reconciler's.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.session[Symbol.asyncDispose]();
  }

  /** Closes it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The names of the devices that it has on this node. */
  devices(own: Lease | undefined): string[] {
    return this.session.nodeState(own).flatMap((object) =>
      object.kind === "link" ? [object.name] : []
    );
  }
}

/** Everything that a data path is made from, as text: another text asks for another data path. */
export function fingerprintOf(
  config: NetworkConfig,
  { outer: { current }, hostNetwork }: Surroundings,
): string {
  const { backend, families } = config;
  const { name, mtuBytes, addresses, publicIps } = current;
  const overlaps = hostNetwork.overlaps(config);
  return JSON.stringify([
    backend,
    families,
    name,
    mtuBytes,
    [...addresses],
    [...publicIps],
    overlaps,
  ]);
}

/** The public IP that a peer shares with this node, as only a cloned machine's does. */
function sharedPublicIp(
  { halves }: Peer<unknown>,
  publicIps: OuterInterface["publicIps"],
): string | undefined {
  const half = halves.find(({ publicIp }) => publicIps.get(publicIp.family)?.equals(publicIp));
  return half && `public IP ${half.publicIp}`;
}
