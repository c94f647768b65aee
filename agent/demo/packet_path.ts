/**
 * Follows one packet from pod to pod: captures it on each device that it passes, and reads its headers.
 *
 * @module
 */

import { IpAddress, MacAddress } from "@denim/core";
import {
  findLink,
  listLinks,
  NetlinkSocket,
  type NetworkNamespace,
  PacketSocket,
} from "@denim/core/linux";

/** A device that the packet passes. */
export interface Hop {
  /** The pod or node that has the device: `pod1`. */
  readonly host: string;
  /** The device's name. */
  readonly device: string;
}

/** The packet at one hop. */
export interface Sighting extends Hop {
  /** Its headers from the outermost, one line each: `Ethernet …`, `IPv4 …`, `UDP …`, `VXLAN …`, `ICMP …`. */
  readonly headers: readonly string[];
}

/** Captures packets on devices of several namespaces until it is disposed of. */
export class PacketPath implements Disposable {
  readonly #hops: {
    readonly hop: Hop;
    readonly socket: PacketSocket;
    readonly read: (packet: Uint8Array<ArrayBuffer>) => string[];
  }[] = [];

  /**
   * Starts to capture on devices of a namespace, in the order in which a packet passes them. Devices that do not
   * exist are left out.
   */
  listen(host: string, namespace: NetworkNamespace, devices: readonly string[]): void {
    namespace.run(() => {
      using netlink = new NetlinkSocket();
      for (const device of devices) {
        const link = findLink(netlink, device);
        if (link === undefined) continue;
        // A TUN device has no Ethernet: its packets begin with IP.
        const read = link.mac === undefined ? readIpv4 : readFrame;
        this.#hops.push({ hop: { host, device }, socket: new PacketSocket(link.index), read });
      }
    });
  }

  /** The echo request with this identifier, at each hop that saw it; encrypted, the first packet that may be it. */
  sightings(echoId: number): Sighting[] {
    return this.#hops.flatMap(({ hop, socket, read }) => {
      const packets = socket.frames().map(read);
      const seen = packets.find((headers) =>
        headers.at(-1)?.startsWith(`ICMP echo request ${echoId}/`)
      ) ?? packets.find((headers) => headers.at(-1)?.startsWith(ENCRYPTED));
      return seen === undefined ? [] : [{ ...hop, headers: seen }];
    });
  }

  /** Stops capturing. */
  [Symbol.dispose](): void {
    for (const { socket } of this.#hops) socket[Symbol.dispose]();
  }
}

/** What carries packets to other nodes inside others. */
const TUNNEL_TYPES: readonly (string | undefined)[] = ["vxlan", "tun", "wireguard", "ipip"];

/**
 * The names of a namespace's devices that encapsulate packets to other nodes. The kernel's own `tunl0`, which each
 * namespace has once the module for IPIP is loaded, is down.
 */
export function overlayDevices(namespace: NetworkNamespace): string[] {
  return namespace.run(() => {
    using netlink = new NetlinkSocket();
    return listLinks(netlink).filter(({ type, up }) => up && TUNNEL_TYPES.includes(type))
      .map(({ name }) => name);
  });
}

// linux/if_ether.h, linux/in.h
const ETH_HLEN = 14;
const ETH_P_IP = 0x0800;
const IPPROTO_ICMP = 1;
const IPPROTO_IPIP = 4;
const IPPROTO_UDP = 17;
const UDP_HLEN = 8;
/** The last of a tunnel's own headers; those of the packet that it carries follow. */
export const TUNNEL_HEADER: RegExp = /^(VXLAN|IP in UDP|IP in IP|WireGuard)/;

/** VXLAN's ports: Linux's default and IANA's. */
const VXLAN_PORTS: readonly number[] = [8472, 4789];
const VXLAN_HLEN = 8;
/** The default port of flannel's UDP backend, whose datagrams are IP packets. */
const FLANNEL_UDP_PORT = 8285;
/** The default port of flannel's WireGuard, the type of a message with a packet in it, and what it adds to that. */
const FLANNEL_WG_PORT = 51820, WG_DATA = 4, WG_OVERHEAD = 32;
const ENCRYPTED = "WireGuard, encrypted";
const ICMP_ECHO = 8;

/** Reads an Ethernet frame's headers, and those of the packet inside a VXLAN packet. */
function readFrame(frame: Uint8Array<ArrayBuffer>): string[] {
  if (frame.length < ETH_HLEN) return [];
  const mac = (offset: number) => MacAddress.fromBytes(frame.subarray(offset, offset + 6));
  const line = `Ethernet ${mac(6)} → ${mac(0)}`;
  const type = (frame[12]! << 8) | frame[13]!;
  return [line, ...type === ETH_P_IP ? readIpv4(frame.subarray(ETH_HLEN)) : []];
}

function readIpv4(packet: Uint8Array<ArrayBuffer>): string[] {
  if (packet.length < 20) return [];
  const address = (offset: number) => IpAddress.fromBytes(packet.subarray(offset, offset + 4));
  const line = `IPv4 ${address(12)} → ${address(16)} ttl ${packet[8]}`;
  const payload = packet.subarray((packet[0]! & 15) * 4);
  switch (packet[9]) {
    case IPPROTO_UDP:
      return [line, ...readUdp(payload)];
    case IPPROTO_IPIP:
      return [line, "IP in IP", ...readIpv4(payload)];
    case IPPROTO_ICMP:
      return [line, ...readIcmp(payload)];
    default:
      return [line];
  }
}

function readUdp(datagram: Uint8Array<ArrayBuffer>): string[] {
  if (datagram.length < UDP_HLEN + VXLAN_HLEN) return [];
  const view = new DataView(datagram.buffer, datagram.byteOffset);
  const port = view.getUint16(2);
  const line = `UDP ${view.getUint16(0)} → ${port}`;
  if (port === FLANNEL_UDP_PORT) {
    return [line, "IP in UDP", ...readIpv4(datagram.subarray(UDP_HLEN))];
  }
  const bytes = datagram.length - UDP_HLEN - WG_OVERHEAD;
  // A message without a packet keeps a connection alive.
  if (port === FLANNEL_WG_PORT && datagram[UDP_HLEN] === WG_DATA && bytes > 0) {
    return [line, `${ENCRYPTED}: ${bytes} bytes`];
  }
  if (!VXLAN_PORTS.includes(port)) return [line];
  const vni = view.getUint32(UDP_HLEN + 4) >>> 8;
  return [line, `VXLAN VNI ${vni}`, ...readFrame(datagram.subarray(UDP_HLEN + VXLAN_HLEN))];
}

function readIcmp(message: Uint8Array<ArrayBuffer>): string[] {
  if (message.length < 8 || message[0] !== ICMP_ECHO) return [];
  const view = new DataView(message.buffer, message.byteOffset);
  return [`ICMP echo request ${view.getUint16(4)}/${view.getUint16(6)}`];
}
