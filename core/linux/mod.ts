/**
 * The Linux kernel, seen from TypeScript: namespaces, rtnetlink, and the reconciler.
 *
 * @module
 */

export * from "./address.ts";
export * from "./kernel_reader.ts";
export { LinuxError } from "./libc.ts";
export * from "./link.ts";
export * from "./namespace.ts";
export { NetlinkSocket } from "./netlink_socket.ts";
export { RTPROT_DENIM } from "./object_kind.ts";
export * from "./packet_socket.ts";
export * from "./ping.ts";
export * from "./pod_link.ts";
export * from "./reconciler.ts";
export * from "./route.ts";
export * from "./sysctl.ts";
