/**
 * iproute2 on a laboratory's nodes: a witness that shares no code with denim.
 *
 * @module
 */

import type { LabNode } from "@denim/agent/lab";

/** Runs `ip` inside a node, and returns what it prints. Throws what it complains of. */
export function ip(node: LabNode, command: string): string {
  const args = ["-n", node.namespaceName, ...command.split(" ")];
  const { success, stdout, stderr } = new Deno.Command("ip", { args }).outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`ip ${args.join(" ")}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** The addresses to which a node sends VXLAN packets, as iproute2's `bridge` tells. */
export function vxlanRemotes(node: LabNode): string[] {
  const args = ["-n", node.namespaceName, "-j", "fdb", "show", "dev", "flannel.1"];
  const { stdout } = new Deno.Command("bridge", { args }).outputSync();
  return JSON.parse(new TextDecoder().decode(stdout)).map(({ dst }: { dst: string }) => dst);
}

/** Runs `ip` inside a node, and reads the JSON that it prints. */
// deno-lint-ignore no-explicit-any -- iproute2's JSON has a shape for each object
export function ipJson(node: LabNode, command: string): any[] {
  return JSON.parse(ip(node, `-j ${command}`) || "[]");
}
