/**
 * The VXLAN backend (RFC 7348), as flannel has it: one device a family, no learning; each peer's VTEP is
 * written into the neighbour table and the forwarding database, and its subnet routed there.
 *
 * @module
 */

import {
  addressBits,
  anyCase,
  type Backend,
  type BackendSession,
  directRoute,
  type Family,
  type KernelState,
  type Lease,
  leaseHalf,
  MacAddress,
  MAX_PACKET_BYTES,
  type NodeContext,
  outerMtuBytes,
  type Peer,
  type PeerHalf,
  subnetRoute,
  tunnelMtuBytes,
  usually,
  type VxlanLink,
} from "@denim/core";
import * as z from "zod";

/** What VXLAN adds to a packet: outer IP, UDP and VXLAN headers, and the inner Ethernet header. */
const OVERHEAD_BYTES: Record<Family, number> = { 4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14 };
/** Linux's own port for VXLAN, which is older than IANA's 4789. flannel lets the kernel choose it. */
const DEFAULT_PORT = 8472;
/** The longest name of a device (`IFNAMSIZ`, less the zero at its end). */
const MAX_NAME_LENGTH = 15;

/** net-conf's `Backend` object, with flannel's names and defaults. */
export interface VxlanOptions {
  /** The VXLAN network identifier, 1 to 2²⁴ − 1 (1); part of the device's name. */
  readonly VNI: number;
  /** The UDP port (8472, which 0 stands for as well). */
  readonly Port: number;
  /** The MTU of the outer network, in bytes, at most the outer device's, which 0 stands for (0). */
  readonly MTU: number;
  /** Whether packets carry a Group Based Policy mark (false). */
  readonly GBP: boolean;
  /** Whether the kernel learns MACs from packets (false). */
  readonly Learning: boolean;
  /** Whether peers on the same link are reached without a tunnel (false). */
  readonly DirectRouting: boolean;
}

const options: z.ZodType<VxlanOptions> = anyCase(z.object({
  VNI: z.int().min(1).max(0xff_ffff).default(1),
  Port: z.int().min(0).max(65_535).default(0),
  MTU: z.int().min(0).max(MAX_PACKET_BYTES).default(0),
  GBP: z.boolean().default(false),
  Learning: z.boolean().default(false),
  DirectRouting: z.boolean().default(false),
}));

/** What a node publishes for each family. */
export interface VxlanPeerData {
  /** The VXLAN network identifier that the node uses. Leases of old flannel lack it; neither flannel nor denim reads it. */
  readonly VNI?: number | undefined;
  /** The Ethernet address of its VTEP. */
  readonly VtepMAC: MacAddress;
}

/** Reads what flannel and denim publish, if it is as it should be. */
function readUsual(value: unknown): VxlanPeerData | undefined {
  // Another key may be one of these in another case.
  if (typeof value !== "object" || value === null || Object.keys(value).length !== 2) {
    return undefined;
  }
  const { VNI, VtepMAC } = value as { readonly [Key in keyof VxlanPeerData]: unknown };
  const mac = typeof VtepMAC === "string" ? MacAddress.tryParse(VtepMAC) : undefined;
  return typeof VNI === "number" && Number.isSafeInteger(VNI) && mac?.isUnicast
    ? { VNI, VtepMAC: mac }
    : undefined;
}

const peerData = usually(
  readUsual,
  anyCase(z.object({
    VNI: z.int().optional().catch(undefined),
    VtepMAC: z.string().transform((text, context) => {
      const mac = MacAddress.tryParse(text);
      if (mac?.isUnicast) return mac;
      const message = `${JSON.stringify(text)} is not one device's Ethernet address`;
      context.addIssue({ code: "custom", message });
      return z.NEVER;
    }),
  })),
);

/** The backend, for `runAgent`. */
export const vxlan: Backend<VxlanOptions, VxlanPeerData> = {
  type: "vxlan",
  leaseType: "vxlan",
  options,
  peerData,
  needs: (node, options) => ({ state: new VxlanSession(node, options).nodeState(undefined) }),
  open: (node, options) => Promise.try(() => new VxlanSession(node, options)),
};

class VxlanSession implements BackendSession<VxlanPeerData> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, VxlanPeerData>;
  readonly followsUnderlay: boolean;
  readonly #node: NodeContext;
  readonly #options: VxlanOptions;
  readonly #links: ReadonlyMap<Family, VxlanLink>;

  constructor(node: NodeContext, options: VxlanOptions) {
    this.#node = node;
    this.#options = options;
    this.followsUnderlay = options.DirectRouting;
    const families = node.config.families.map(({ family }) => family);
    const outerBytes = outerMtuBytes(node, options.MTU);
    this.#links = new Map(families.map((family) => [family, this.#link(family, outerBytes)]));
    this.mtuBytes = Math.min(...[...this.#links.values()].map(({ mtuBytes }) => mtuBytes));
    this.publishes = new Map(
      [...this.#links].map(([family, { mac }]) => [family, { VNI: options.VNI, VtepMAC: mac }]),
    );
  }

  #link(family: Family, outerBytes: number): VxlanLink {
    const { VNI, Port, Learning, GBP } = this.#options;
    const name = deviceName(family, VNI);
    return {
      kind: "link",
      name,
      mtuBytes: tunnelMtuBytes("vxlan", outerBytes, OVERHEAD_BYTES[family], family),
      mac: this.#mac(name, family),
      info: {
        type: "vxlan",
        vni: VNI,
        port: Port || DEFAULT_PORT,
        outerDevice: this.#node.outer.name,
        local: this.#node.outer.addresses.get(family)!,
        learning: Learning,
        gbp: GBP,
      },
    };
  }

  /** Keeps the address that peers know: the device's; if there is no device, that of this node's lease. */
  #mac(device: string, family: Family): MacAddress {
    const { held, kernel } = this.#node;
    const published = peerData.safeParse(held && leaseHalf(held, family)?.backendData);
    return kernel.macOf(device) ?? published.data?.VtepMAC ?? MacAddress.random();
  }

  nodeState(own: Lease | undefined): KernelState {
    return [...this.#links].flatMap(([family, link]) => {
      const address = own && leaseHalf(own, family)?.subnet.address;
      // A host's prefix: it names a source for the node's own packets, and makes no route.
      const prefixLength = addressBits(family);
      return address
        ? [link, { kind: "address", device: link.name, address, prefixLength }] as const
        : [link];
    });
  }

  peerState({ halves }: Peer<VxlanPeerData>): KernelState {
    return halves.flatMap((half) => {
      const link = this.#links.get(half.subnet.family);
      return link === undefined ? [] : this.#direct(half) ?? throughVtep(link.name, half);
    });
  }

  conflict({ halves }: Peer<VxlanPeerData>): string | undefined {
    const half = halves.find(({ subnet, data }) =>
      this.#links.get(subnet.family)?.mac.equals(data.VtepMAC)
    );
    return half && `VTEP MAC ${half.data.VtepMAC}`;
  }

  /** DirectRouting: a peer on the same link needs no tunnel. */
  #direct(half: PeerHalf<VxlanPeerData>): KernelState | undefined {
    return this.followsUnderlay ? directRoute(this.#node, half) : undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** flannel's name for the device, or a shorter one if that is too long for a device. */
function deviceName(family: Family, vni: number): string {
  const [name, short] = family === 4
    ? [`flannel.${vni}`, `fl.${vni}`]
    : [`flannel-v6.${vni}`, `fl-v6.${vni}`];
  return name.length <= MAX_NAME_LENGTH ? name : short;
}

/**
 * The route to the peer's subnet has the subnet's first address as its gateway, which stands for the
 * peer's VTEP: the neighbour gives its Ethernet address, the FDB entry the node where it is.
 */
function throughVtep(
  device: string,
  { subnet, publicIp, data }: PeerHalf<VxlanPeerData>,
): KernelState {
  return [
    { kind: "fdb", device, mac: data.VtepMAC, remote: publicIp },
    { kind: "neighbour", device, address: subnet.address, mac: data.VtepMAC },
    ...subnetRoute(subnet, device),
  ];
}
