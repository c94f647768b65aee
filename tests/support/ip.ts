/**
 * iproute2 on a laboratory's nodes.
 *
 * @module
 */

import type { LabNode } from "@denim/agent/lab";
import { iproute } from "./iproute.ts";

/** Runs `ip` inside a node, and returns what it prints. Throws what it complains of. */
export function ip(node: LabNode, command: string): string {
  return iproute("ip", node.namespaceName, command);
}

/** The addresses to which a node sends VXLAN packets, as iproute2's `bridge` tells. */
export function vxlanRemotes(node: LabNode): string[] {
  const entries = iproute("bridge", node.namespaceName, "-j fdb show dev flannel.1");
  return JSON.parse(entries).map(({ dst }: { dst: string }) => dst);
}

/** Runs `ip` inside a node, and reads the JSON that it prints. */
// deno-lint-ignore no-explicit-any -- iproute2's JSON has a shape for each object
export function ipJson(node: LabNode, command: string): any[] {
  return JSON.parse(ip(node, `-j ${command}`) || "[]");
}
