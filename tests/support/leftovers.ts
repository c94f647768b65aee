/**
 * What a laboratory left on the machine.
 *
 * @module
 */

/** The namespaces, directories and processes on this machine that bear a laboratory's prefix. */
export function leftovers(prefix: string): string[] {
  const names = (directory: string) => [...Deno.readDirSync(directory)].map(({ name }) => name);
  const processes = names("/proc").filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
    try {
      const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      return words.some((word) => word.includes(prefix)) ? [`process ${words.join(" ")}`] : [];
    } catch {
      return [];
    }
  });
  return [
    ...names("/run/netns").filter((name) => name.startsWith(prefix)).map((name) =>
      `namespace ${name}`
    ),
    ...names("/tmp").filter((name) => name.startsWith(prefix))
      .map((name) => `directory ${name}`),
    ...processes,
  ].sort();
}
