/**
 * `/healthz` and `/readyz`, as flannel serves them.
 *
 * @module
 */

import { type Logger, messageOf, RuntimeError } from "@denim/core";

/** Serves health until it is disposed of. */
export class Health implements AsyncDisposable {
  readonly #server: Deno.HttpServer;
  #unready: string | undefined = "it is starting";

  private constructor(address: { hostname: string; port: number }, log: Logger) {
    this.#server = Deno.serve({
      ...address,
      onListen: ({ hostname, port }) =>
        log.info("health-served", `health is served on ${hostname} port ${port}`),
    }, (request) => this.#answer(new URL(request.url).pathname));
  }

  /** Starts to serve. Throws a RuntimeError where the port can't be had. */
  static serve(address: { hostname: string; port: number }, log: Logger): Health {
    try {
      return new Health(address, log);
    } catch (error) {
      throw new RuntimeError(
        `--healthz-ip ${address.hostname} --healthz-port ${address.port}: ${messageOf(error)}`,
      );
    }
  }

  /** Why the node is not ready; `undefined` once subnet.env is written and packets find their way. */
  tell(unready: string | undefined): void {
    this.#unready = unready;
  }

  #answer(path: string): Response {
    if (path === "/healthz") return new Response("denim is running");
    if (path !== "/readyz") return new Response("not found", { status: 404 });
    return this.#unready === undefined
      ? new Response("denim is ready")
      : new Response(`denim is not ready: ${this.#unready}`, { status: 503 });
  }

  /** Stops serving. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
