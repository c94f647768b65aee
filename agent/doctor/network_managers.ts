/**
 * Programs that manage a host's network.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/**
 * `network-manager-interferes`: NetworkManager is not told to leave denim's devices alone.
 * `networkd-interferes`: systemd-networkd deletes routes and rules that are not its own when it starts again.
 */
export function networkManagers(host: Host): readonly Finding[] {
  const found: Finding[] = [];
  if (host.processes.has("NetworkManager")) {
    const conf = confs(host, "/etc/NetworkManager/NetworkManager.conf", [
      "/etc/NetworkManager/conf.d",
      "/usr/lib/NetworkManager/conf.d",
    ]);
    if (!/^\s*unmanaged-devices\s*=.*(flannel|fl\*|cni)/m.test(conf)) {
      found.push({
        name: "network-manager-interferes",
        evidence:
          "NetworkManager runs, and no unmanaged-devices of its configuration names flannel or cni",
        remedy:
          "write [keyfile] and unmanaged-devices=interface-name:flannel*;interface-name:cni0;" +
          "interface-name:veth* to /etc/NetworkManager/conf.d/denim.conf, and reload it",
      });
    }
  }
  // A process's name has 15 octets.
  if (host.processes.has("systemd-network")) {
    const conf = confs(host, "/etc/systemd/networkd.conf", [
      "/etc/systemd/networkd.conf.d",
      "/usr/lib/systemd/networkd.conf.d",
    ]);
    const missing = ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"]
      .filter((key) => !new RegExp(`^\\s*${key}\\s*=\\s*(no|false|0|off)`, "mi").test(conf));
    if (missing.length > 0) {
      found.push({
        name: "networkd-interferes",
        evidence: `systemd-networkd runs, and its configuration has no ${
          missing.join("=no, no ")
        }=no`,
        remedy: `write [Network] and ${missing.map((key) => `${key}=no`).join(" and ")} to ` +
          "/etc/systemd/networkd.conf.d/denim.conf, and restart it",
      });
    }
  }
  return found;
}

/** The text of a configuration and of the files that add to it. */
function confs(host: Host, main: string, folders: readonly string[]): string {
  const parts = folders.flatMap((folder) =>
    host.list(folder).filter((name) => name.endsWith(".conf")).map((name) => `${folder}/${name}`)
  );
  return [main, ...parts].map((path) => host.read(path) ?? "").join("\n");
}
