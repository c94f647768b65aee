/**
 * What is in the way of a device that denim is to make: said when the kernel refuses it, and beforehand.
 *
 * @module
 */

import type { Link } from "../../kernel_state.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { linkAdoptable, type LinkState, listLinks } from "../objects/link.ts";
import { type Holder, tunHolder } from "./tun_holder.ts";
import { udpPortHolder } from "./udp_port_holder.ts";

/** Another VXLAN device has the port, and perhaps the VNI. */
export function rivalTunnel({ name, vxlan }: LinkState): string {
  return `device ${name} has VNI ${vxlan!.vni} and UDP port ${
    vxlan!.port
  }; remove it (ip link del ${name}) if ` +
    "nothing needs it, or choose another VNI and Port in net-conf's Backend";
}

/**
 * Another program has a UDP port.
 *
 * @param holder the program, if it is known
 */
export function portTaken(port: number, holder?: Holder): string {
  const who = holder === undefined
    ? "another program has"
    : `${holder.name} (process ${holder.pid}) has`;
  const look = holder === undefined ? " (ss -ulnp shows which)" : "";
  return `${who} UDP port ${port}${look}; stop it, or choose another Port in net-conf's Backend`;
}

/** A TUN device is held by a program. */
export function heldDevice(device: string, { name, pid }: Holder): string {
  return `device ${device} belongs to ${name} (process ${pid}); stop that program, or choose another ` +
    "Backend in net-conf";
}

/** What a device finds in its way. */
export interface DeviceObstacle {
  /** Whether denim removes it by itself, which costs what is there its packets. */
  readonly goes: boolean;
  /** What it is and what to do, as a sentence. */
  readonly text: string;
}

/**
 * What is in the way of a device in the namespace of this thread and of the socket, before anything is changed.
 * `undefined` if nothing is, as far as one can see.
 */
export function findDeviceObstacle(socket: NetlinkSocket, link: Link): DeviceObstacle | undefined {
  const links = listLinks(socket);
  const found = links.find(({ name }) => name === link.name);
  if (found !== undefined && !linkAdoptable(link, found)) {
    const holder = found.tun === undefined ? undefined : tunHolder(link.name);
    return holder === undefined
      ? {
        goes: true,
        text:
          `device ${link.name} is there and can't be changed to what net-conf asks for: the agent deletes ` +
          "it and makes its own; rename it if it is another program's",
      }
      : { goes: false, text: heldDevice(link.name, holder) };
  }
  if (link.mac === undefined) return undefined;
  const { vni, port } = link.info;
  const tunnels = links.filter(({ vxlan }) => vxlan?.port === port);
  const rival = tunnels.find(({ name, vxlan }) => name !== link.name && vxlan!.vni === vni);
  if (rival !== undefined) return { goes: false, text: rivalTunnel(rival) };
  // The kernel's own tunnels share a port.
  const holder = tunnels.length > 0 ? undefined : udpPortHolder(port);
  return holder && { goes: false, text: portTaken(port, holder === "kernel" ? undefined : holder) };
}
