/**
 * The WireGuard backend, as flannel has it: packets between nodes are encrypted, and a node takes none but its peers'.
 * The kernel's WireGuard carries them, or a program's such as wireguard-go where the kernel has none.
 *
 * @module
 */

import {
  anyCase,
  type Backend,
  type BackendSession,
  ConfigError,
  type Family,
  type KernelState,
  type Lease,
  MAX_PACKET_BYTES,
  type NodeContext,
  outerMtuBytes,
  parseWireguardKey,
  type Peer,
  type PeerHalf,
  tunnelMtuBytes,
  tunPeerState,
  wholeNetworkState,
  WireguardSecret,
} from "@denim/core";
import * as z from "zod";
import { type KeyPair, readKeyFile } from "./key_file.ts";

/**
 * What WireGuard adds to a packet: the outer IP header (IPv6's, whatever the family, as flannel reckons), UDP's, type,
 * index, counter, and the tag.
 */
const OVERHEAD_BYTES = 40 + 8 + 4 + 4 + 8 + 16;
const DEVICE = "flannel-wg", DEVICE_V6 = "flannel-wg-v6";
const DEFAULT_PORT: Readonly<Record<Family, number>> = { 4: 51_820, 6: 51_821 };
const DEFAULT_KEY_FILE = "/run/flannel/wgkey";
const DEFAULT_PROGRAM = "wireguard-go";

/** net-conf's `Backend` object, with flannel's names and defaults. */
export interface WireguardOptions {
  /** A secret that all nodes share beside their keys, as `wg genpsk` makes it; none unless given. */
  readonly PSK: WireguardSecret | undefined;
  /** The UDP port of `flannel-wg` (51820, which 0 stands for as well). */
  readonly ListenPort: number;
  /** The UDP port of `flannel-wg-v6` (51821, which 0 stands for as well). */
  readonly ListenPortV6: number;
  /** The MTU of the outer network, in bytes, at most the outer device's, which 0 stands for (0). */
  readonly MTU: number;
  /**
   * "separate": a device for each family of pods' packets, over the outer network of the same family. Otherwise one
   * device carries both: over IPv4 ("ipv4"), over IPv6 ("ipv6"), or to each peer over the one that is more likely to
   * reach it ("auto").
   */
  readonly Mode: "separate" | "auto" | "ipv4" | "ipv6";
  /** How often a peer is sent a packet if there is nothing else to send, in seconds; 0 for never (0). */
  readonly PersistentKeepaliveInterval: number;
}

const port = z.int().min(0).max(65_535).default(0);
const options: z.ZodType<WireguardOptions> = anyCase(z.object({
  PSK: z.unknown().default("").transform((text, context) => {
    if (text === "") return undefined;
    const bytes = typeof text === "string" ? parseWireguardKey(text) : undefined;
    if (bytes !== undefined) return new WireguardSecret(bytes);
    const message = "expected 32 octets in base64, as `wg genpsk` makes them";
    context.addIssue({ code: "custom", message, input: "(a secret)" });
    return z.NEVER;
  }),
  ListenPort: port,
  ListenPortV6: port,
  MTU: z.int().min(0).max(MAX_PACKET_BYTES).default(0),
  Mode: z.enum(["separate", "auto", "ipv4", "ipv6"]).default("separate"),
  PersistentKeepaliveInterval: z.int().min(0).max(65_535).default(0),
}));

/** What a node publishes for each family. */
export interface WireguardPeerData {
  /** Its public key, as base64; the same for both families. */
  readonly PublicKey: string;
  /** The UDP port on which it is reached over this family; leases of old flannel lack it, or have 0: this node's own then. */
  readonly Port: number;
}

const peerData: z.ZodType<WireguardPeerData> = anyCase(z.object({
  PublicKey: z.string().transform((text, context) => {
    const bytes = parseWireguardKey(text);
    if (bytes !== undefined) return bytes.toBase64();
    context.addIssue({ code: "custom", message: "expected 32 octets in base64" });
    return z.NEVER;
  }),
  Port: port,
}));

/** The backend, for `runAgent`. */
export const wireguard: Backend<WireguardOptions, WireguardPeerData> = {
  type: "wireguard",
  leaseType: "wireguard",
  options,
  peerData,
  sharesPublicIp: true,
  // The devices need the node's key, which is made at the first start.
  needs: (node, options) => {
    requireFamily(node, options);
    mtuOf(node, options);
    return { state: [] };
  },
  open: async (node, options) => {
    requireFamily(node, options);
    return new WireguardSession(node, options, await readKeyFile(wireguardKeyPath(), node.log));
  },
};

/** Where a node's private key is. */
export function wireguardKeyPath(): string {
  return Deno.env.get("WIREGUARD_KEY_FILE") || DEFAULT_KEY_FILE;
}

/** What a packet of WireGuard's leaves for a pod's, whichever family carries it. */
function mtuOf(node: NodeContext, { MTU }: WireguardOptions): number {
  const outerBytes = outerMtuBytes(node, MTU);
  return Math.min(
    ...node.config.families.map(({ family }) =>
      tunnelMtuBytes("wireguard", outerBytes, OVERHEAD_BYTES, family)
    ),
  );
}

/** One device over the outer network of one family needs that family. */
function requireFamily({ config }: NodeContext, { Mode }: WireguardOptions): void {
  const needed = Mode === "ipv4" ? 4 : Mode === "ipv6" ? 6 : undefined;
  if (needed === undefined || config.families.some(({ family }) => family === needed)) return;
  throw new ConfigError(
    `wireguard: Backend.Mode "${Mode}" is over IPv${needed}, which net-conf does not enable; choose "separate" or "auto"`,
  );
}

class WireguardSession implements BackendSession<WireguardPeerData> {
  readonly refusesStrangers = true;
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, WireguardPeerData>;
  readonly #node: NodeContext;
  readonly #options: WireguardOptions;
  readonly #keys: KeyPair;
  readonly #ports: Readonly<Record<Family, number>>;
  /** The device that carries each family of pods' packets. */
  readonly #devices: ReadonlyMap<Family, string>;

  constructor(node: NodeContext, options: WireguardOptions, keys: KeyPair) {
    const { ListenPort, ListenPortV6, Mode } = options;
    this.#node = node;
    this.#options = options;
    this.#keys = keys;
    const separate = Mode === "separate";
    const port = ListenPort || DEFAULT_PORT[4];
    // flannel publishes the second port even where it does not listen there.
    this.#ports = { 4: port, 6: separate ? ListenPortV6 || DEFAULT_PORT[6] : port };
    const families = node.config.families.map(({ family }) => family);
    this.#devices = new Map(
      families.map((family) => [family, separate && family === 6 ? DEVICE_V6 : DEVICE]),
    );
    this.mtuBytes = mtuOf(node, options);
    const { publicKey: PublicKey } = keys;
    this.publishes = new Map(
      families.map((family) => [family, { PublicKey, Port: this.#ports[family] }]),
    );
  }

  nodeState(own: Lease | undefined): KernelState {
    const program = Deno.env.get("WG_QUICK_USERSPACE_IMPLEMENTATION") || DEFAULT_PROGRAM;
    const { privateKey } = this.#keys;
    const devices = [...new Set(this.#devices.values())].flatMap((name): KernelState => [
      { kind: "link", name, mtuBytes: this.mtuBytes, info: { type: "wireguard", program } },
      {
        kind: "wireguard",
        device: name,
        privateKey,
        listenPort: this.#ports[name === DEVICE ? 4 : 6],
      },
    ]);
    return [
      ...devices,
      ...wholeNetworkState(this.#node, (family) => this.#devices.get(family)!, own),
    ];
  }

  peerState(peer: Peer<WireguardPeerData>): KernelState {
    const own = peer.halves.filter(({ subnet }) => this.#devices.has(subnet.family));
    const byDevice = Map.groupBy(own, ({ subnet }) => this.#devices.get(subnet.family)!);
    const routes = tunPeerState(this.#node, (family) => this.#devices.get(family)!, {
      ...peer,
      halves: own,
    });
    const peers = [...byDevice].map(([device, carried]) => {
      const outer = this.#outerHalf(carried);
      return {
        kind: "wireguardPeer",
        device,
        publicKey: outer.data.PublicKey,
        presharedKey: this.#options.PSK,
        endpoint: {
          address: outer.publicIp,
          // A node with one device listens on the port that it publishes for IPv4.
          port: carried[0]!.data.Port || this.#ports[carried[0]!.subnet.family],
        },
        keepaliveSeconds: this.#options.PersistentKeepaliveInterval,
        allowedIps: carried.map(({ subnet }) => subnet),
        begins: this.#keys.publicKey < outer.data.PublicKey,
      } as const;
    });
    return [...peers, ...routes];
  }

  /** The half over whose family a peer is reached by one device. */
  #outerHalf(halves: readonly PeerHalf<WireguardPeerData>[]): PeerHalf<WireguardPeerData> {
    const half = (family: Family) => halves.find(({ subnet }) => subnet.family === family);
    const ipv4 = half(4), ipv6 = half(6);
    if (ipv4 === undefined || ipv6 === undefined) return halves[0]!;
    const { Mode } = this.#options;
    return Mode === "ipv6" || Mode === "auto" && this.#prefersIpv6(ipv4, ipv6) ? ipv6 : ipv4;
  }

  /** flannel's choice: IPv4, unless its address is one behind NAT and IPv6's on both sides are not. */
  #prefersIpv6(ipv4: PeerHalf<unknown>, ipv6: PeerHalf<unknown>): boolean {
    const own = this.#node.outer.publicIps.get(6);
    return ipv4.publicIp.isPrivate && !ipv6.publicIp.isPrivate && own?.isPrivate === false;
  }

  conflict({ halves }: Peer<WireguardPeerData>): string | undefined {
    const { publicKey } = this.#keys;
    return halves.some(({ data }) => data.PublicKey === publicKey)
      ? `WireGuard key ${publicKey}`
      : undefined;
  }

  /** The devices stay. */
  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
