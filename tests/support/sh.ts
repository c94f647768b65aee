/**
 * Shell scripts, such as a person would type.
 *
 * @module
 */

import type { LabNode } from "@denim/agent/lab";

/** Runs a shell script with arguments; what it prints. Throws what it complains of. */
export function sh(script: string, args: readonly string[] = []): string {
  const command = new Deno.Command("sh", { args: ["-ec", script, "sh", ...args] });
  const { success, stdout, stderr } = command.outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`${script}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** Runs a shell script in a node, as root there would. Throws what it complains of. */
export function shIn(node: LabNode, script: string): string {
  using namespace = node.open();
  return namespace.run(() => sh(script));
}
