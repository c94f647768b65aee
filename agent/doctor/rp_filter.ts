/**
 * The reverse path filter.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** The strict mode (RFC 3704, Linux's ip-sysctl): a packet must come by the device that leads back to its source. */
const STRICT = "1";

/** `rp-filter-strict`: a device by which pods' packets come in drops those whose way back is another. */
export function rpFilter(host: Host): readonly Finding[] {
  return host.links.filter(({ name }) => /^(flannel|fl-?[0-9v.]|cni0$)/.test(name)).flatMap(
    ({ name }) => {
      const of = (device: string) =>
        host.read(`/proc/sys/net/ipv4/conf/${device}/rp_filter`)?.trim();
      // The larger of the two counts, and loose mode is larger than strict.
      const mode = [of("all"), of(name)].sort().at(-1);
      return mode !== STRICT ? [] : [{
        name: "rp-filter-strict",
        evidence:
          `rp_filter of ${name} is strict, which drops pods' packets that come another way than they go`,
        remedy: `set net.ipv4.conf.${name}.rp_filter to 2 (loose) or 0, in /etc/sysctl.d too`,
      }];
    },
  );
}
