/**
 * The host-gw backend: each peer's subnet is routed by the peer's own address. There is no tunnel and no overhead,
 * but every node has to be on the same link as every other.
 *
 * @module
 */

import {
  type Backend,
  type BackendSession,
  Complaints,
  ConfigError,
  directRoute,
  type Family,
  type KernelState,
  type NodeContext,
  type Peer,
  type PeerHalf,
} from "@denim/core";
import * as z from "zod";

/** The backend, for `runAgent`. It has no options, and publishes nothing. */
export const hostGw: Backend<unknown, unknown> = {
  type: "host-gw",
  leaseType: "host-gw",
  options: z.unknown(),
  peerData: z.unknown(),
  needs: (node) => ({ state: new HostGwSession(node).nodeState() }),
  open: (node) => Promise.try(() => new HostGwSession(node)),
};

class HostGwSession implements BackendSession<unknown> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, unknown> = new Map();
  readonly followsUnderlay = true;
  readonly #node: NodeContext;
  /** Of each peer that can't be reached, why. */
  readonly #complaints = new Complaints();

  constructor(node: NodeContext) {
    const { name, addresses, publicIps, mtuBytes } = node.outer;
    for (const [family, publicIp] of publicIps) {
      const own = addresses.get(family);
      if (own?.equals(publicIp)) continue;
      throw new ConfigError(
        `host-gw: the public IP ${publicIp} is not the address of ${name}, ${own}: peers can't route by an ` +
          "address behind NAT; use another Backend, or leave out --public-ip",
      );
    }
    this.#node = node;
    this.mtuBytes = mtuBytes;
  }

  nodeState(): KernelState {
    return [];
  }

  peerState({ key, halves }: Peer<unknown>): KernelState {
    const routes = halves.map((half) => directRoute(this.#node, half));
    const refused = halves.filter((_, index) => routes[index] === undefined);
    this.#logComplaint(key, refused.map((half) => this.#complaint(half)).join("; "));
    return routes.flatMap((route) => route ?? []);
  }

  /** Logs why a peer can't be reached, each time that the reason is another; empty if it can. */
  #logComplaint(key: string, complaint: string): void {
    const { log } = this.#node;
    if (complaint === "") {
      if (this.#complaints.resolve(key)) {
        log.info("peer-on-link", `peer ${key} is on the link now`);
      }
    } else if (this.#complaints.isNew(complaint, key)) {
      log.error("peer-unreachable", `peer ${key} is left out: ${complaint}`);
    }
  }

  #complaint({ publicIp }: PeerHalf<unknown>): string {
    const { kernel, outer } = this.#node;
    const route = kernel.routeTo(publicIp);
    const how = route === undefined
      ? "has no route"
      : route.gateway === undefined
      ? `is reached by ${route.device}`
      : `is reached through the router ${route.gateway}`;
    return `${publicIp} ${how}; host-gw needs it on the link of ${outer.name}, vxlan does not`;
  }

  peersChanged(_put: Iterable<Peer<unknown>>, removed: Iterable<string>): void {
    for (const key of removed) this.#complaints.resolve(key);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
