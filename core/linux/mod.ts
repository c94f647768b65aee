/**
 * The Linux kernel, seen from TypeScript: namespaces, rtnetlink, and the reconciler.
 *
 * @module
 */

export * from "./attach.ts";
export {
  clearNode,
  type ClearNodeOptions,
  type PodDevices,
  podDevices,
} from "./reconciler/clear_node.ts";
export { kernelReader } from "./objects/kernel_reader.ts";
export { type ForwardDrop, letPass } from "./netfilter/forward_drops.ts";
export { forwardDrops } from "./netfilter/forward_report.ts";
export { IncomingDrop, type Unwanted } from "./netfilter/incoming_drop.ts";
export { listLinks } from "./objects/link.ts";
export { neighbourMac } from "./objects/neighbour.ts";
export { MessageReader } from "./netlink/netlink_codec.ts";
export { PacketSocket } from "./sys/packet_socket.ts";
export {
  Reconciler,
  type ReconcileResult,
  type ReconcilerOptions,
} from "./reconciler/reconciler.ts";
export type { UnderlayNews } from "./reconciler/linux_tables.ts";
export {
  type DeviceObstacle,
  findDeviceObstacle,
  portTaken,
} from "./reconciler/device_obstacles.ts";
export type { Holder } from "./reconciler/tun_holder.ts";
export { udpPortHolder } from "./reconciler/udp_port_holder.ts";
export { requireSwitchable } from "./objects/forwarding.ts";
export { requireWritable } from "./sys/sysctl.ts";
export { RTPROT_DENIM } from "./objects/object_kind.ts";
export { listProcFolder, readProcFile, readProcLink, readProcStat } from "./sys/proc_files.ts";
export { allowNoFreeMemory, giveBackFreeMemory } from "./sys/free_memory.ts";
export { withUmask } from "./sys/umask.ts";
export { replaceFile, type ReplaceFileOptions } from "./sys/replace_file.ts";
export {
  type DefaultRoute,
  listDefaultRoutes,
  listOthersRoutes,
  type RouteState,
  routeTo,
} from "./objects/route.ts";
export { sendToServiceManager } from "./sys/service_socket.ts";
export { TunPackets } from "./tunnel/tun_packets.ts";
export {
  type WireguardPeerStatus,
  type WireguardStatus,
  wireguardStatus,
} from "./wireguard/wireguard_status.ts";
