/**
 * What the agent says of itself over HTTP.
 *
 * @module
 */

import { isDefect, type Logger, messageOf, RuntimeError } from "@denim/core";

/** Answers requests for one path. */
export type Route = (request: Request) => Response | Promise<Response>;

/** Routes by their paths: `/healthz`. */
export type Routes = Readonly<Record<string, Route>>;

/** Serves routes until it is disposed of. */
export class StatusServer implements AsyncDisposable {
  readonly #server: Deno.HttpServer;

  private constructor(
    hostname: string,
    port: number,
    routes: Routes,
    log: Logger,
    onDefect: (error: unknown) => void,
  ) {
    this.#server = Deno.serve({
      hostname,
      port,
      onListen: (address) =>
        log.info("status-served", `serving status on ${address.hostname} port ${address.port}`, {
          paths: Object.keys(routes).join(" "),
        }),
      onError: (error) => {
        if (isDefect(error)) onDefect(error);
        else log.warn("status-failed", `cannot answer a request: ${messageOf(error)}`);
        return new Response(messageOf(error), { status: 500 });
      },
    }, (request) => {
      const { pathname } = new URL(request.url);
      return Object.hasOwn(routes, pathname)
        ? routes[pathname]!(request)
        : new Response("not found", { status: 404 });
    });
  }

  /**
   * Starts to serve. Throws a RuntimeError if the address can't be had.
   *
   * @param hostname the IP address to listen on
   * @param onDefect takes a defect of a route; unless given it is left uncaught, which ends the process
   */
  static serve(
    hostname: string,
    port: number,
    routes: Routes,
    log: Logger,
    onDefect: (error: unknown) => void = reportError,
  ): StatusServer {
    try {
      return new StatusServer(hostname, port, routes, log, onDefect);
    } catch (error) {
      throw new RuntimeError(
        `--healthz-ip ${hostname} --healthz-port ${port}: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  /** Stops serving. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

/** Whether the node is ready: subnet.env is written, and packets find their way. */
export interface Readiness {
  /** Why the node is not ready; `undefined` if it is. */
  unready: string | undefined;
}

/** `/healthz` and `/readyz`, as flannel serves them: 503 says in its body why the node is not ready. */
export function healthRoutes(readiness: Readonly<Readiness>): Routes {
  return {
    "/healthz": () => new Response("denim is running"),
    "/readyz": () =>
      readiness.unready === undefined
        ? new Response("denim is ready")
        : new Response(`denim is not ready: ${readiness.unready}`, { status: 503 }),
  };
}
