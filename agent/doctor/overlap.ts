/**
 * The pods' network beside the host's own.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** `networks-overlap`: a device that is not denim's is in the pods' network: packets to there go astray. */
export function overlap(host: Host): readonly Finding[] {
  const networks = host.subnetEnv?.halves.flatMap(({ networks }) => networks) ?? [];
  return host.networks.filter(({ device }) => !/^(lo$|cni|flannel|fl-?[v0-9.]|veth)/.test(device))
    .flatMap(({ device, network }) => {
      const pods = networks.find((candidate) => candidate.overlaps(network));
      return pods === undefined ? [] : [{
        name: "networks-overlap",
        evidence: `device ${device} is in ${network}, which overlaps the pods' network ${pods}`,
        remedy:
          "choose another Network in net-conf, or SubnetMin and SubnetMax beside the hosts' addresses",
      }];
    });
}
