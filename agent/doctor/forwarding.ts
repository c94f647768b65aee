/**
 * Whether the host forwards packets.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** `forwarding-off`: a node that was ready does not forward pods' packets. */
export function forwarding(host: Host): readonly Finding[] {
  return (host.subnetEnv?.halves ?? []).flatMap(({ subnet: { family } }) => {
    const path = `net/ipv${family}/${family === 4 ? "ip_forward" : "conf/all/forwarding"}`;
    return host.read(`/proc/sys/${path}`)?.trim() !== "0" ? [] : [{
      name: "forwarding-off",
      evidence: `${path.replaceAll("/", ".")} is 0, so pods' IPv${family} packets go nowhere`,
      remedy:
        "start the agent, which keeps it on; if it runs, find the program that switches it off",
    }];
  });
}
