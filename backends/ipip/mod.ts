/**
 * The IPIP backend (RFC 2003), as flannel has it: one device, by which each peer's subnet is routed with the peer's own
 * address as gateway, which is where the tunnel's packet goes. It carries IPv4 alone, with the least overhead.
 *
 * @module
 */

import {
  addressBits,
  anyCase,
  type Backend,
  type BackendSession,
  ConfigError,
  directRoute,
  type Family,
  type KernelState,
  type Lease,
  leaseHalf,
  type NodeContext,
  type Peer,
  type PeerHalf,
  type PlainTunnelLink,
  subnetRoute,
  tunnelMtuBytes,
} from "@denim/core";
import * as z from "zod";

/** flannel's name for the device. The kernel's own `tunl0`, which comes with the first, is left alone. */
const DEVICE = "flannel.ipip";
/** An IPv4 header. */
const OVERHEAD_BYTES = 20;

/** net-conf's `Backend` object, with flannel's name and default. */
export interface IpipOptions {
  /** Whether peers on the same link are reached without a tunnel (false). */
  readonly DirectRouting: boolean;
}

const options: z.ZodType<IpipOptions> = anyCase(z.object({
  DirectRouting: z.boolean().default(false),
}));

/** The backend, for `runAgent`. It publishes nothing. */
export const ipip: Backend<IpipOptions, unknown> = {
  type: "ipip",
  leaseType: "ipip",
  options,
  peerData: z.unknown(),
  needs: (node, options) => ({ state: new IpipSession(node, options).nodeState(undefined) }),
  open: (node, options) => Promise.try(() => new IpipSession(node, options)),
};

class IpipSession implements BackendSession<unknown> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, unknown> = new Map();
  readonly followsUnderlay: boolean;
  readonly #node: NodeContext;
  readonly #link: PlainTunnelLink;

  constructor(node: NodeContext, { DirectRouting }: IpipOptions) {
    const { config, outer } = node;
    if (config.families.some(({ family }) => family === 6)) {
      throw new ConfigError(
        "ipip: it carries IPv4 alone, and net-conf enables IPv6; leave IPv6 out, or choose another Backend",
      );
    }
    this.#node = node;
    this.followsUnderlay = DirectRouting;
    this.mtuBytes = tunnelMtuBytes("ipip", outer.mtuBytes, OVERHEAD_BYTES, 4);
    this.#link = {
      kind: "link",
      name: DEVICE,
      mtuBytes: this.mtuBytes,
      info: { type: "ipip", local: outer.addresses.get(4)! },
    };
  }

  nodeState(own: Lease | undefined): KernelState {
    const address = own && leaseHalf(own, 4)?.subnet.address;
    if (address === undefined) return [this.#link];
    // A host's prefix: it names a source for the node's own packets, and makes no route.
    return [this.#link, { kind: "address", device: DEVICE, address, prefixLength: addressBits(4) }];
  }

  peerState({ halves }: Peer<unknown>): KernelState {
    return halves.filter(({ subnet }) => subnet.family === 4)
      .flatMap((half) => this.#direct(half) ?? throughTunnel(half));
  }

  /** DirectRouting: a peer on the same link needs no tunnel. */
  #direct(half: PeerHalf<unknown>): KernelState | undefined {
    return this.followsUnderlay ? directRoute(this.#node, half) : undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** The kernel sends a tunnel's packet to the gateway of the route that led there. */
function throughTunnel({ subnet, publicIp }: PeerHalf<unknown>): KernelState {
  return subnetRoute(subnet, DEVICE, publicIp);
}
