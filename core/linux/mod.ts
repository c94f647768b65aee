/**
 * The Linux kernel, seen from TypeScript: namespaces, rtnetlink, and the reconciler.
 *
 * @module
 */

export * from "./pod.ts";
export { kernelReader } from "./kernel_reader.ts";
export { listLinks } from "./link.ts";
export { NETNS_RUN_DIR } from "./namespace.ts";
export { MessageReader } from "./netlink_codec.ts";
export { RTPROT_DENIM } from "./object_kind.ts";
export { PacketSocket } from "./packet_socket.ts";
export { Pinger } from "./ping.ts";
export { Reconciler, type ReconcileResult, type UnderlayNews } from "./reconciler.ts";
export { listRoutes, type RouteState, routeTo } from "./route.ts";
export { TunPackets } from "./tun_packets.ts";
export { tunSession, type TunSessionOptions } from "./tun_session.ts";
