/**
 * denim's own backends. Each is a folder that imports no other.
 *
 * @module
 */

import type { Backend } from "@denim/core";
import { alloc } from "./alloc/mod.ts";
import { extension } from "./extension/mod.ts";
import { hostGw } from "./host_gw/mod.ts";
import { ipip } from "./ipip/mod.ts";
import { udp } from "./udp/mod.ts";
import { vxlan } from "./vxlan/mod.ts";
import { wireguard } from "./wireguard/mod.ts";

export { alloc } from "./alloc/mod.ts";
export { extension, type ExtensionOptions } from "./extension/mod.ts";
export { hostGw } from "./host_gw/mod.ts";
export { ipip, type IpipOptions } from "./ipip/mod.ts";
export { udp, type UdpOptions, type UdpPeerData } from "./udp/mod.ts";
export { vxlan, type VxlanOptions, type VxlanPeerData } from "./vxlan/mod.ts";
export {
  wireguard,
  wireguardKeyPath,
  type WireguardOptions,
  type WireguardPeerData,
} from "./wireguard/mod.ts";

/** All of them, for `runAgent`. */
// deno-lint-ignore no-explicit-any -- each has options and peer data of its own
export const builtin: readonly Backend<any, any>[] = [
  vxlan,
  hostGw,
  wireguard,
  ipip,
  udp,
  alloc,
  extension,
];
