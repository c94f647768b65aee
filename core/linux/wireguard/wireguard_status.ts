/**
 * How WireGuard is with its peers, for those who only look.
 *
 * @module
 */

import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { findLink } from "../objects/link.ts";
import { KernelHand } from "./kernel_hand.ts";
import { formatEndpoint, programHand } from "./program_hand.ts";

/** How a peer is spoken to. */
export interface WireguardPeerStatus {
  /** Where its packets go now, `10.99.0.2:51820` or `[fd99::2]:51820`; `undefined` if the device does not know. */
  readonly endpoint: string | undefined;
  /** When it made the latest handshake, in milliseconds since 1970; `undefined` before the first one. */
  readonly handshakeAtMs: number | undefined;
  /** How much came from it, headers included, in bytes. */
  readonly receivedBytes: number;
  /** How much went to it, headers included, in bytes. */
  readonly sentBytes: number;
}

/** A device as it is. */
export interface WireguardStatus {
  /** Whether it is the kernel's own; if not it is a program's. */
  readonly isKernel: boolean;
  /** The UDP port on which it listens; 0 if on none. */
  listenPort(): number;
  /** Its peers, by each network whose packets they may send: `10.5.2.0/24`. */
  peers(): ReadonlyMap<string, WireguardPeerStatus>;
}

/**
 * Looks at a device in this thread's network namespace; `undefined` if there is none. What is asked of it then is read
 * anew each time, which takes the longer the more peers there are, and may throw a LinuxError.
 */
export function wireguardStatus(device: string): WireguardStatus | undefined {
  using socket = new NetlinkSocket();
  const link = findLink(socket, device);
  if (link === undefined) return undefined;
  const isKernel = link.tun === undefined;
  const read = () => {
    if (!isKernel) return programHand.read(device);
    using kernel = new KernelHand();
    return kernel.read(device);
  };
  return {
    isKernel,
    listenPort: () => read().find((found) => found.kind === "wireguard")?.listenPort ?? 0,
    peers: () =>
      new Map(
        read().flatMap((found) => {
          if (found.kind !== "wireguardPeer") return [];
          const { handshakeAtMs, receivedBytes = 0, sentBytes = 0, allowedIps } = found;
          const endpoint = found.endpoint && formatEndpoint(found.endpoint);
          const status = { endpoint, handshakeAtMs, receivedBytes, sentBytes };
          return allowedIps.map((network) => [`${network}`, status] as const);
        }),
      ),
  };
}
