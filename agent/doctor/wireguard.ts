/**
 * What WireGuard needs of a host, where pods' packets go by it.
 *
 * @module
 */

import { wireguardKeyPath } from "@denim/backends";
import { basename, dirname } from "node:path";
import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";
import { hasModule } from "./kernel_modules.ts";

/** The devices, each with the port that it has unless net-conf says otherwise. */
const PORTS = { "flannel-wg": 51_820, "flannel-wg-v6": 51_821 } as const;
const PROGRAM = "wireguard-go";
const OWNER_ALONE = "600";

/**
 * `wireguard-missing`: neither the kernel nor a program has WireGuard. `wireguard-key-open`: others than its owner can
 * read the node's key, or write it. `wireguard-port-taken`: the port belongs to another program or device. Said only
 * where an agent made a key, which is what it begins with.
 */
export function wireguard(host: Host): readonly Finding[] {
  const keyFile = wireguardKeyPath();
  if (!host.list(dirname(keyFile)).includes(basename(keyFile))) return [];
  return [...missing(host), ...openKey(host, keyFile), ...takenPorts(host)];
}

function missing(host: Host): readonly Finding[] {
  const isThere = hasModule(host, "wireguard") !== false ||
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
      .some((folder) => host.list(folder).includes(PROGRAM));
  return isThere ? [] : [{
    name: "wireguard-missing",
    evidence:
      `this host has a key of WireGuard's, its kernel no module wireguard, and there is no ${PROGRAM}`,
    remedy: `install the kernel's modules (modprobe wireguard then works), or ${PROGRAM}`,
  }];
}

function openKey(host: Host, keyFile: string): readonly Finding[] {
  const mode = host.run("stat", "-c", "%a", keyFile)?.trim();
  return mode === undefined || mode === OWNER_ALONE ? [] : [{
    name: "wireguard-key-open",
    evidence: `${keyFile} has mode ${mode}, so others than its owner may read this node's key`,
    remedy:
      `chmod ${OWNER_ALONE} ${keyFile}; if somebody may have read it, remove it and start the agent again, ` +
      "which makes new keys",
  }];
}

function takenPorts(host: Host): readonly Finding[] {
  return Object.entries(PORTS).flatMap(([device, port]) => {
    const user = host.portUser(port);
    // What can't be told apart is not wrong.
    if (user === undefined || user === "kernel" || user in PORTS || user === PROGRAM) return [];
    return [{
      name: "wireguard-port-taken",
      evidence: `${user} has UDP port ${port}, which is ${device}'s unless net-conf says otherwise`,
      remedy: `stop it, or choose another ${
        device === "flannel-wg" ? "ListenPort" : "ListenPortV6"
      } in net-conf's Backend`,
    }];
  });
}
