/** Options for {@linkcode getAvailablePort}. */
export interface GetAvailablePortOptions {
  /** The TCP port to take if it is free; 0 leaves the choice to the kernel. */
  preferredPort?: number;
}

/**
 * A TCP port that nothing listens on now: the preferred one, or else one of the kernel's choice.
 *
 * ```ts
 * import { getAvailablePort } from "@std/net/get-available-port";
 * console.log(getAvailablePort({ preferredPort: 2379 }));
 * ```
 */
export function getAvailablePort(options: GetAvailablePortOptions = {}): number {
  for (const port of [options.preferredPort ?? 0, 0]) {
    try {
      using listener = Deno.listen({ port });
      return listener.addr.port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new Deno.errors.AddrInUse("no TCP port is free");
}
