/**
 * Programs in a process of their own: what is measured of a process, or taken from it, is no other test's there.
 *
 * @module
 */

/**
 * Runs a JavaScript program, and returns what it prints. Throws with what it says of its errors if it fails.
 *
 * @param args what it finds in `Deno.args`
 * @param under a command that runs it, as `setpriv` does with fewer rights
 */
export function inOwnProcess(
  program: string,
  args: readonly string[] = [],
  under: readonly string[] = [],
): string {
  const [command, ...words] = [...under, Deno.execPath(), "eval", program, ...args];
  const { success, stdout, stderr } = new Deno.Command(command!, { args: words }).outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(decoder.decode(stderr));
  return decoder.decode(stdout);
}

/** Runs a program without any capability. */
export const WITHOUT_CAPABILITIES: readonly string[] = [
  "setpriv",
  "--bounding-set=-all",
  "--inh-caps=-all",
];
