/**
 * The Linux kernel, seen from TypeScript: namespaces, rtnetlink, and the reconciler.
 *
 * @module
 */

export * from "./attach.ts";
export { kernelReader } from "./objects/kernel_reader.ts";
export { listLinks } from "./objects/link.ts";
export { NETNS_RUN_DIR } from "./sys/namespace.ts";
export { MessageReader } from "./netlink/netlink_codec.ts";
export { RTPROT_DENIM } from "./objects/object_kind.ts";
export { PacketSocket } from "./sys/packet_socket.ts";
export { Pinger } from "./sys/ping.ts";
export { replaceFile, type ReplaceFileOptions } from "./sys/replace_file.ts";
export { Reconciler, type ReconcileResult, type UnderlayNews } from "./reconciler/reconciler.ts";
export {
  type DefaultRoute,
  listDefaultRoutes,
  listRoutes,
  type RouteState,
  routeTo,
} from "./objects/route.ts";
export { TunPackets } from "./tunnel/tun_packets.ts";
