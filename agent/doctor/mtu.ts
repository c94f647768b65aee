/**
 * The devices' MTUs.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** What VXLAN puts around a packet: Ethernet, VXLAN and UDP, and IPv4 or IPv6 (RFC 7348). */
const OVERHEAD_BYTES = { 4: 50, 6: 70 } as const;

/** `mtu-too-large`: a VXLAN device takes larger packets than its outer device has room for. */
export function mtu(host: Host): readonly Finding[] {
  return host.links.flatMap(({ name, vxlan, mtuBytes }) => {
    const outer = host.links.find(({ index }) => index === vxlan?.outerIndex);
    if (outer === undefined || !/^(flannel|fl)(-v6)?\./.test(name)) return [];
    const room = outer.mtuBytes - OVERHEAD_BYTES[/-v6/.test(name) ? 6 : 4];
    return mtuBytes <= room ? [] : [{
      name: "mtu-too-large",
      evidence:
        `${name} has an MTU of ${mtuBytes}, and ${outer.name}, of ${outer.mtuBytes}, leaves room for ` +
        `${room} bytes`,
      remedy:
        `set net-conf's Backend.MTU to ${room}, or leave it out; or raise the MTU of ${outer.name}`,
    }];
  });
}
