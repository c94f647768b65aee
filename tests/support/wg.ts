/**
 * wg(8): a witness that shares no code with denim.
 *
 * @module
 */

import type { LabNode } from "@denim/agent/lab";
import { shIn } from "./sh.ts";

/** Runs a shell script in a node, where WireGuard programs' sockets are the node's own. Throws what it complains of. */
export function inNode(node: LabNode, script: string): string {
  const sockets = node.wireguardSockets;
  return shIn(
    node,
    `mkdir -p /run/wireguard ${sockets}; exec unshare --mount sh -ec ` +
      `'mount --bind ${sockets} /run/wireguard; ${script}'`,
  );
}

/** Runs `wg` in a node, and returns what it prints. */
export function wg(node: LabNode, command: string): string {
  return inNode(node, `wg ${command}`);
}
