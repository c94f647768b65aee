/**
 * The part of `core/linux` that attaches a pod. The CNI plugin, a new process for each pod, loads it in place of the
 * whole.
 *
 * @module
 */

export {
  type AddressState,
  listAddresses,
  writeNewAddress,
  writeRemovedAddress,
} from "./objects/address.ts";
export { FileDescriptor } from "./sys/libc.ts";
export { LinuxError } from "./sys/linux_error.ts";
export {
  findLink,
  type IpipState,
  type LinkState,
  type TunState,
  writeRemovedLink,
} from "./objects/link.ts";
export { NetworkNamespace } from "./sys/namespace.ts";
export { MessageWriter } from "./netlink/netlink_codec.ts";
export { NetlinkSocket, type RequestFailure } from "./netlink/netlink_socket.ts";
export {
  type LinkSettings,
  NO_GATEWAY_ALIAS,
  type VethEnd,
  writeHairpin,
  writeLinkSettings,
  writeNewBridge,
  writeNewVeth,
  writeRemovedLinks,
} from "./objects/pod_link.ts";
export {
  isLocal,
  listRoutes,
  type PlainRoute,
  type RouteState,
  writeNewRoute,
} from "./objects/route.ts";
export { readProcFile, readProcLink } from "./sys/proc_files.ts";
export { replaceFile, type ReplaceFileOptions } from "./sys/replace_file.ts";
export { FORWARDING, readSysctl, trySysctl, writeSysctl } from "./sys/sysctl.ts";
export { waitForKernel } from "./netlink/wait_for_kernel.ts";
