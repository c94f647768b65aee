/**
 * Room on disks.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

const LEAST_BYTES = 16 * 1024 * 1024;
const LEAST_SHARE = 0.01;

/** `disk-full`: where denim or its plugin writes there is no room. */
export function disk(host: Host): readonly Finding[] {
  return ["/run", "/var/lib/cni", "/var/lib/denim"].flatMap((path) => {
    const free = host.free(path);
    return free === undefined || free.bytes >= LEAST_BYTES && free.share >= LEAST_SHARE ? [] : [{
      name: "disk-full",
      evidence: `${path} has ${Math.floor(free.bytes / 1024 / 1024)} MiB left`,
      remedy: "make room: without, pods get no addresses and leases are not renewed",
    }];
  });
}
