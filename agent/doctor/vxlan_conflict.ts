/**
 * Other programs' VXLAN devices.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** flannel's defaults. */
const DEFAULT = { port: 8472, vni: 1 } as const;

/** `vxlan-conflict`: another program's VXLAN device has the port and VNI that denim's has, or would have. */
export function vxlanConflict(host: Host): readonly Finding[] {
  const all = host.links.filter(({ vxlan }) => vxlan !== undefined);
  const own = all.find(({ name }) => /^(flannel|fl)(-v6)?\.\d+$/.test(name));
  const { port, vni } = own?.vxlan ?? DEFAULT;
  return all.filter(({ name, vxlan }) =>
    !/^(flannel|fl)(-v6)?\.\d+$/.test(name) && vxlan!.port === port && vxlan!.vni === vni
  ).map(({ name }) => ({
    name: "vxlan-conflict",
    evidence: `device ${name} has VNI ${vni} on UDP port ${port}, which ${
      own?.name ?? "flannel.1"
    } needs`,
    remedy:
      `remove it (ip link delete ${name}) with the program that makes it, or choose another VNI or Port ` +
      "in net-conf's Backend",
  }));
}
