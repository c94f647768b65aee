/**
 * A way for a browser, which opens no UNIX sockets, to the page of an agent that serves it there.
 *
 * @module
 */

import { messageOf } from "@denim/core";
import { AGENT_ORIGIN } from "../agent_client.ts";
import { endServer } from "../status_server.ts";
import { isAskedLocally } from "./same_site.ts";

/** Hands requests that come to a port of loopback on to an agent's socket, until it is disposed of. */
export class PageGate implements AsyncDisposable {
  readonly #client: Deno.HttpClient;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #closing = new AbortController();

  /** Opens a port that the kernel chooses, to the agent of a socket, whether it runs or not. */
  constructor(socket: string) {
    this.#client = Deno.createHttpClient({ proxy: { transport: "unix", path: socket } });
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      (request) =>
        isAskedLocally(request)
          ? this.#pass(request)
          : new Response("ask for this page as localhost or 127.0.0.1", { status: 403 }),
    );
  }

  /** Where the page is: `http://127.0.0.1:PORT/`. */
  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/`;
  }

  async #pass(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    try {
      const { status, headers, body } = await fetch(`${AGENT_ORIGIN}${pathname}${search}`, {
        client: this.#client,
        method: request.method,
        signal: this.#closing.signal,
      });
      return new Response(body, { status, headers });
    } catch (error) {
      // Whatever keeps fetch from an answer, a TypeError says it.
      return new Response(`the agent does not answer: ${messageOf(error)}`, { status: 502 });
    }
  }

  /** Closes the port, and ends what goes by it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await endServer(this.#server);
    this.#client.close();
  }
}
