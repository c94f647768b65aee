/**
 * What a backend may ask of the kernel: a list of objects, each a plain value under the kernel's
 * own names. A backend lists them; the reconciler (`core/linux`) makes the kernel match the list.
 *
 * @module
 */

import { Cidr, type Family, IpAddress } from "./ip.ts";
import type { MacAddress } from "./mac.ts";
import type { WireguardSecret } from "./wireguard_key.ts";

/** What a VXLAN device is made with (`IFLA_VXLAN_*` in linux/if_link.h). */
export interface VxlanInfo {
  /** Which kind of device this is. */
  readonly type: "vxlan";
  /** The VXLAN network identifier, 24 bits (RFC 7348). */
  readonly vni: number;
  /** The UDP port that the tunnel's packets are sent to. */
  readonly port: number;
  /** The name of the device that the tunnel's packets leave by. */
  readonly outerDevice: string;
  /** The source address of the tunnel's packets. */
  readonly local: IpAddress;
  /** Whether the kernel learns MACs from the packets that arrive. */
  readonly learning: boolean;
  /** Whether packets carry a Group Based Policy mark. */
  readonly gbp: boolean;
}

/** What a TUN device is made with (`IFLA_TUN_*` in linux/if_link.h). */
export interface TunInfo {
  /** Which kind of device this is. */
  readonly type: "tun";
  /** How many packets may wait for the program that reads them; the kernel drops what exceeds it. */
  readonly queueLength: number;
}

/** What a WireGuard device is made with; its keys and peers are objects of their own. */
export interface WireguardInfo {
  /** Which kind of device this is. */
  readonly type: "wireguard";
  /**
   * The program that makes the device where the kernel has no WireGuard: called with the device's name, it makes a TUN
   * device, listens at `/var/run/wireguard/NAME.sock`, and goes on in the background (wireguard-go(1)).
   */
  readonly program: string;
}

/** What an IPIP device is made with (`IFLA_IPTUN_*` in linux/if_tunnel.h): packets go to their route's gateway. */
export interface IpipInfo {
  /** Which kind of device this is. */
  readonly type: "ipip";
  /** The source address of the tunnel's packets. */
  readonly local: IpAddress;
}

/** What every network device that denim makes has. denim keeps them all up. */
export interface LinkBase {
  /** Tells the kinds of object apart. */
  readonly kind: "link";
  /** The device's name, at most 15 octets. */
  readonly name: string;
  /** The largest packet that the device takes, in bytes. */
  readonly mtuBytes: number;
}

/** A VXLAN device. */
export interface VxlanLink extends LinkBase {
  /** The device's own Ethernet address. */
  readonly mac: MacAddress;
  /** What the device is made with. */
  readonly info: VxlanInfo;
}

/**
 * A TUN device that several programs, or several queues of one, may open (`IFF_MULTI_QUEUE`), and that
 * stays while no program has it open.
 */
export interface TunLink extends LinkBase {
  /** It carries IP packets: it has no Ethernet address. */
  readonly mac?: undefined;
  /** What the device is made with. */
  readonly info: TunInfo;
}

/** A device of a tunnel that carries IP packets alone: it has no Ethernet address. */
export interface PlainTunnelLink extends LinkBase {
  /** It has none. */
  readonly mac?: undefined;
  /** What the device is made with. */
  readonly info: WireguardInfo | IpipInfo;
}

/** A network device that denim makes. */
export type Link = VxlanLink | TunLink | PlainTunnelLink;

/** An address of a device of ours. */
export interface DeviceAddress {
  /** Tells the kinds of object apart. */
  readonly kind: "address";
  /** The device's name. */
  readonly device: string;
  /** The address. */
  readonly address: IpAddress;
  /** How many leading bits are the network's. With 32 or 128 the kernel makes no route. */
  readonly prefixLength: number;
}

/** A permanent entry of a device's neighbour table (`NUD_PERMANENT`). */
export interface Neighbour {
  /** Tells the kinds of object apart. */
  readonly kind: "neighbour";
  /** The device's name. */
  readonly device: string;
  /** The neighbour's IP address. */
  readonly address: IpAddress;
  /** The Ethernet address that answers to it. */
  readonly mac: MacAddress;
}

/** A permanent entry of a VXLAN device's forwarding database (`NTF_SELF`). */
export interface FdbEntry {
  /** Tells the kinds of object apart. */
  readonly kind: "fdb";
  /** The VXLAN device's name. */
  readonly device: string;
  /** The Ethernet address that frames are sent to. */
  readonly mac: MacAddress;
  /** The address of the VTEP that they are tunnelled to. */
  readonly remote: IpAddress;
}

/** What a WireGuard device is, to its peers. */
export interface WireguardDevice {
  /** Tells the kinds of object apart. */
  readonly kind: "wireguard";
  /** The device's name. */
  readonly device: string;
  /** The node's private key. */
  readonly privateKey: WireguardSecret;
  /** The UDP port that it listens on. */
  readonly listenPort: number;
}

/** A peer of a WireGuard device. Its key tells it apart: of two with the same the device has one. */
export interface WireguardPeer {
  /** Tells the kinds of object apart. */
  readonly kind: "wireguardPeer";
  /** The device's name. */
  readonly device: string;
  /** The peer's public key, as base64. */
  readonly publicKey: string;
  /** A secret that both sides share beside their keys; `undefined` for none. */
  readonly presharedKey: WireguardSecret | undefined;
  /** Where its packets go until one of its own, which only it can make, comes from elsewhere. */
  readonly endpoint: WireguardEndpoint;
  /** How often it is sent a packet if there is nothing else to send, in seconds; 0 for never. */
  readonly keepaliveSeconds: number;
  /** The networks whose packets go to it, and may come from it. */
  readonly allowedIps: readonly Cidr[];
  /**
   * Whether it is this node that begins when the two meet for the first time. If both did at the same moment, neither
   * would take the other's answer, and they would try again after 5 s.
   */
  readonly begins: boolean;
}

/** The UDP address of a WireGuard device. */
export interface WireguardEndpoint {
  /** Its host. */
  readonly address: IpAddress;
  /** Its UDP port. */
  readonly port: number;
}

/**
 * A nexthop object (`RTM_NEWNEXTHOP`). Routes through objects install in linear time, where N plain
 * routes with gateways on one device cost N².
 */
export interface Nexthop {
  /** Tells the kinds of object apart. */
  readonly kind: "nexthop";
  /** The object's number in its network namespace; see {@link nexthopId}. */
  readonly id: number;
  /** The name of the device that packets leave by. */
  readonly device: string;
  /** The gateway. The kernel takes it to be on the link (`RTNH_F_ONLINK`), whatever the routes say. */
  readonly via: IpAddress;
}

/** A route of the main table by a nexthop object. */
export interface NexthopRoute {
  /** Tells the kinds of object apart. */
  readonly kind: "route";
  /** The network that the route leads to. */
  readonly destination: Cidr;
  /** The number of the nexthop object that packets go by. */
  readonly nexthopId: number;
}

/** A route of the main table straight to a device, without a gateway. */
export interface DeviceRoute {
  /** Tells the kinds of object apart. */
  readonly kind: "route";
  /** The network that the route leads to. */
  readonly destination: Cidr;
  /** The name of the device that packets leave by. */
  readonly device: string;
  /** The source address of the packets that this host itself sends there. */
  readonly source: IpAddress;
}

/**
 * A route of the main table whose packets the kernel drops, without a word to their senders. Any other route to the
 * same network goes before it.
 */
export interface BlackholeRoute {
  /** Tells the kinds of object apart. */
  readonly kind: "route";
  /** What becomes of its packets, in the words of `ip route`. */
  readonly type: "blackhole";
  /** The network whose packets are dropped. */
  readonly destination: Cidr;
  /** {@link LAST_METRIC}: part of what tells routes apart. */
  readonly metric: typeof LAST_METRIC;
}

/** The highest metric that a route can have: all others to the same network go before it. */
export const LAST_METRIC = 0xffff_ffff;

/** A route of the main table. */
export type Route = NexthopRoute | DeviceRoute | BlackholeRoute;

/** The device that stands for all of them, under the kernel's name for it in `net.ipv4.conf`. */
export const ALL_DEVICES = "all";

/**
 * A switch for forwarding, on. IPv6 asks the switch for all devices; IPv4 the one of the device by which a packet
 * comes in. When IPv4's switch for all devices changes, the kernel changes every device's too.
 */
export interface Forwarding {
  /** Tells the kinds of object apart. */
  readonly kind: "forwarding";
  /** Whose packets are forwarded. */
  readonly family: Family;
  /** The device that they come in by, or {@link ALL_DEVICES}. A device that does not exist needs nothing. */
  readonly device: string;
}

/**
 * An address of the pod bridge, through which pods reach everyone else. The CNI plugin makes the bridge: while there is
 * none, nothing is missing; while there is one, it is up, forwards, and has the address.
 */
export interface PodGateway {
  /** Tells the kinds of object apart. */
  readonly kind: "podGateway";
  /** The address: the first of the node's subnet. */
  readonly address: IpAddress;
  /** That subnet's prefix length. */
  readonly prefixLength: number;
}

/** Which part of the kernel masquerades: nftables, or one of the two iptables. */
export type MasqueradeEngine = "nftables" | "iptables";

/**
 * Packets of pods leave the node under the node's own address, as those of the node to pods elsewhere do (NAT). Who is
 * masqueraded is said by masquerade.ts of core/linux/netfilter.
 */
export interface Masquerade {
  /** Tells the kinds of object apart. */
  readonly kind: "masquerade";
  /** Whose packets. */
  readonly family: Family;
  /** The cluster's networks of this family: addresses of pods on any node. */
  readonly networks: readonly Cidr[];
  /** This node's subnets of these networks: addresses of its own pods. */
  readonly subnets: readonly Cidr[];
  /** Addresses in the cluster's networks that are hosts' and not pods'; none unless given. */
  readonly hosts?: readonly IpAddress[];
  /** Whether source ports are drawn at random (`--random-fully`), which is flannel's default. */
  readonly fullyRandom: boolean;
  /** What does it; unless given nftables where the kernel has it, else iptables. */
  readonly engine?: MasqueradeEngine | undefined;
}

/** Packets of pods pass where the policy of iptables' chain FORWARD drops what nobody lets pass, as Docker has it. */
export interface PodForward {
  /** Tells the kinds of object apart. */
  readonly kind: "podForward";
  /** Whose packets. */
  readonly family: Family;
  /** The cluster's networks of this family. */
  readonly networks: readonly Cidr[];
}

/** One thing that the kernel should have. */
export type KernelObject =
  | Link
  | DeviceAddress
  | Neighbour
  | FdbEntry
  | WireguardDevice
  | WireguardPeer
  | Nexthop
  | Route
  | Forwarding
  | PodGateway
  | Masquerade
  | PodForward;

/** All that an owner wants in the kernel, in any order. */
export type KernelState = readonly KernelObject[];

/** A network of pods, and the size of each node's part. */
export interface PodNetwork {
  /** The address space of a whole cluster, in one family. */
  readonly network: Cidr;
  /** The prefix length of each node's subnet. */
  readonly subnetLength: number;
}

/**
 * The number of the nexthop object of a peer's subnet: the same after each restart, and different for
 * each subnet of a network, so that a later run recognises an earlier run's objects.
 *
 * IPv4: the subnet's address as a number. IPv6: a number in the range of IPv4 multicast and above, which no
 * IPv4 subnet uses and which no routing daemon counts up to: the low 29 bits of the subnet's index, XORed with a
 * Fibonacci hash of the bits above, so that two clusters' numbers rarely collide.
 */
export function nexthopId(subnet: Cidr): number {
  if (subnet.family === 4) return Number(subnet.address.value);
  const index = subnet.address.value >> BigInt(128 - subnet.prefixLength);
  const hash = BigInt.asUintN(64, (index >> IPV6_ID_BITS) * 0x9e37_79b9_7f4a_7c15n);
  return FIRST_IPV6_ID + Number(BigInt.asUintN(29, index ^ (hash >> 35n)));
}

const FIRST_IPV6_ID = 0xe000_0000;
const IPV6_ID_BITS = 29n;

/** Whether a nexthop object's number is that of a subnet of a network. */
export function isNexthopIdOf(id: number, { network, subnetLength }: PodNetwork): boolean {
  if (network.family === 4) return network.contains(new IpAddress(4, BigInt(id)));
  const placeBits = BigInt(subnetLength - network.prefixLength);
  if (placeBits >= IPV6_ID_BITS) return id >= FIRST_IPV6_ID;
  // Numbers of one network differ in the bits that tell its subnets apart, and in no others.
  const first = nexthopId(new Cidr(network.address, subnetLength));
  return (id ^ first) >>> Number(placeBits) === 0;
}
