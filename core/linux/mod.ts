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
export { listLinks } from "./objects/link.ts";
export { MessageReader } from "./netlink/netlink_codec.ts";
export { PacketSocket } from "./sys/packet_socket.ts";
export {
  Reconciler,
  type ReconcileResult,
  type ReconcilerOptions,
} from "./reconciler/reconciler.ts";
export type { UnderlayNews } from "./reconciler/linux_tables.ts";
export { readProcFile } from "./sys/proc_files.ts";
export { replaceFile, type ReplaceFileOptions } from "./sys/replace_file.ts";
export { type DefaultRoute, listDefaultRoutes, type RouteState, routeTo } from "./objects/route.ts";
export { sendToServiceManager } from "./sys/service_socket.ts";
export { TunPackets } from "./tunnel/tun_packets.ts";
