/**
 * Firewalls that hosts come with.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** The ports of other backends' devices, unless net-conf says otherwise. */
const DEFAULT_PORTS: Readonly<Record<string, number>> = {
  "flannel0": 8285,
  "flannel-wg": 51_820,
  "flannel-wg-v6": 51_821,
};

/** `firewall-active`: firewalld or ufw runs, and has no rule for the backend's port. */
export function firewalls(host: Host): readonly Finding[] {
  // Without a device of a backend nothing says which port it would be.
  const port = host.links.find(({ name, vxlan }) => vxlan && /^fl/.test(name))?.vxlan?.port ??
    host.links.map(({ name }) => DEFAULT_PORTS[name]).find((port) => port !== undefined);
  if (port === undefined) return [];
  const found: Finding[] = [];
  if (host.processes.has("firewalld")) {
    const zones = host.run("firewall-cmd", "--list-all-zones") ?? "";
    if (!zones.includes(`${port}/udp`)) {
      found.push({
        name: "firewall-active",
        evidence: `firewalld runs, and no zone has port ${port}/udp`,
        remedy:
          `firewall-cmd --permanent --add-port=${port}/udp, and put cni0 and the backend's device into ` +
          "the zone trusted; then firewall-cmd --reload",
      });
    }
  }
  const isOn = /^ENABLED=yes/m.test(host.read("/etc/ufw/ufw.conf") ?? "");
  if (isOn && !(host.read("/etc/ufw/user.rules") ?? "").includes(`--dport ${port} `)) {
    found.push({
      name: "firewall-active",
      evidence: `ufw is on, and has no rule for UDP port ${port}`,
      remedy: `ufw allow ${port}/udp, and ufw route allow for the pods' network`,
    });
  }
  return found;
}
