/**
 * The server of what the agent says of itself over HTTP. It has listeners on TCP and on UNIX sockets; what is
 * answered is in status_routes.ts.
 *
 * @module
 */

import { isDefect, type Logger, messageOf, RuntimeError, sleep, throwDefect } from "@denim/core";
import { listenLocally, removeSocket } from "./local_socket.ts";

/** Answers requests for one path, from who asks. */
export type Route = (request: Request, from?: Deno.Addr) => Response | Promise<Response>;

/** Routes by their paths: `/healthz`. */
export type Routes = Readonly<Record<string, Route>>;

/** What a listener serves, and with whom it speaks of trouble. */
export interface ServeOptions {
  /** What is answered. */
  readonly routes: Routes;
  /** Takes what goes wrong. */
  readonly log: Logger;
  /** Takes a defect of a route; unless given it is left uncaught, which ends the process. */
  readonly onDefect?: (error: unknown) => void;
}

/** How long answers that are under way may take when a server ends, in milliseconds. */
const END_PATIENCE_MS = 1_000;

/**
 * Ends a server. It waits a little for answers that are under way, but for no client that neither sends the rest of its
 * request nor reads its answer, as a browser on a machine that sleeps.
 */
export async function endServer(server: Deno.HttpServer): Promise<void> {
  const ended = new AbortController();
  const end = server.shutdown().finally(() => ended.abort());
  await Promise.race([end, sleep(END_PATIENCE_MS, ended.signal)]);
}

/** Serves routes until it is disposed of. */
export class StatusServer implements AsyncDisposable {
  readonly #server: Deno.HttpServer;
  readonly #path: string | undefined;

  private constructor(
    listener: { readonly hostname: string; readonly port: number } | { readonly path: string },
    { routes, log, onDefect = reportError }: ServeOptions,
  ) {
    const paths = Object.keys(routes).join(" ");
    const answer = (request: Request, { remoteAddr }: Deno.ServeHandlerInfo) => {
      const { pathname } = new URL(request.url);
      return Object.hasOwn(routes, pathname)
        ? routes[pathname]!(request, remoteAddr)
        : new Response("not found", { status: 404 });
    };
    const onError = (error: unknown) => {
      if (isDefect(error)) onDefect(error);
      else log.warn("status-failed", `cannot answer a request: ${messageOf(error)}`);
      return new Response(messageOf(error), { status: 500 });
    };
    this.#path = "path" in listener ? listener.path : undefined;
    this.#server = "path" in listener
      ? Deno.serve({
        path: listener.path,
        onListen: ({ path }) => log.info("api-served", `serving the API at ${path}`, { paths }),
        onError,
      }, answer)
      : Deno.serve({
        ...listener,
        onListen: ({ hostname, port }) =>
          log.info("status-served", `serving status on ${hostname} port ${port}`, { paths }),
        onError,
      }, answer);
  }

  /**
   * Starts to serve on an IP address and port. Throws a RuntimeError if they can't be had.
   */
  static serve(hostname: string, port: number, options: ServeOptions): StatusServer {
    try {
      return new StatusServer({ hostname, port }, options);
    } catch (error) {
      throw new RuntimeError(
        `--healthz-ip ${hostname} --healthz-port ${port}: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  /**
   * Starts to serve on a UNIX socket that its owner alone may open. Takes the place of a socket that an earlier run
   * left. If the path can't be had the log says so, and `undefined` is returned: a node does its work all the same.
   */
  static async serveLocally(
    path: string,
    options: ServeOptions,
  ): Promise<StatusServer | undefined> {
    try {
      return await listenLocally(path, () => new StatusServer({ path }, options));
    } catch (error) {
      throwDefect(error);
      options.log.warn(
        "api-not-served",
        `cannot serve the API at ${path} (--api-socket), so denim status and denim peers do not work: ` +
          messageOf(error),
      );
      return undefined;
    }
  }

  /** Stops serving. */
  async [Symbol.asyncDispose](): Promise<void> {
    await endServer(this.#server);
    if (this.#path !== undefined) await removeSocket(this.#path);
  }
}
