/**
 * The part of `core/linux` that attaches a pod: what the CNI plugin, which starts for each pod anew, loads in
 * place of the whole.
 *
 * @module
 */

export {
  type AddressState,
  listAddresses,
  writeNewAddress,
  writeRemovedAddress,
} from "./address.ts";
export { InheritedLock } from "./inherited_lock.ts";
export { FileDescriptor, LinuxError } from "./libc.ts";
export { findLink, type LinkState, type TunState, writeRemovedLink } from "./link.ts";
export { NetworkNamespace } from "./namespace.ts";
export { MessageWriter } from "./netlink_codec.ts";
export { NetlinkSocket, type RequestFailure } from "./netlink_socket.ts";
export {
  type LinkSettings,
  type VethEnd,
  writeHairpin,
  writeLinkSettings,
  writeNewBridge,
  writeNewVeth,
} from "./pod_link.ts";
export { isLocal, listRoutes, type PlainRoute, type RouteState, writeNewRoute } from "./route.ts";
export { FORWARDING, readSysctl, trySysctl, writeSysctl } from "./sysctl.ts";
export { waitForKernel } from "./wait_for_kernel.ts";
