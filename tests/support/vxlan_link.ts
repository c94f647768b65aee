/**
 * A VXLAN device as a backend asks for it.
 *
 * @module
 */

import { IpAddress, MacAddress, type VxlanInfo, type VxlanLink } from "@denim/core";

/** flannel.1 over eth0 at 10.99.0.1, with VNI 1 and Linux's port 8472, but for what a test has otherwise. */
export function vxlanLink(
  info: Partial<VxlanInfo> = {},
  changes: Partial<VxlanLink> = {},
): VxlanLink {
  return {
    kind: "link",
    name: "flannel.1",
    mtuBytes: 1450,
    mac: MacAddress.parse("02:0a:05:00:00:01"),
    info: {
      type: "vxlan",
      vni: 1,
      port: 8472,
      outerDevice: "eth0",
      local: IpAddress.parse("10.99.0.1"),
      learning: false,
      gbp: false,
      ...info,
    },
    ...changes,
  };
}
