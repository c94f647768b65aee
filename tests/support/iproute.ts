/**
 * iproute2: a witness that shares no code with denim.
 *
 * @module
 */

/** Runs `ip` or `bridge` in a named network namespace, and returns what it prints. Throws what it complains of. */
export function iproute(program: "ip" | "bridge", namespace: string, command: string): string {
  const args = ["-n", namespace, ...command.split(" ")];
  const { success, stdout, stderr } = new Deno.Command(program, { args }).outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`${program} ${args.join(" ")}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}
