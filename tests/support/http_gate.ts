/**
 * A reverse proxy before a server, in which a test can answer in the server's place, and see what is asked.
 *
 * @module
 */

import type { NetworkNamespace } from "@denim/core/linux/namespace";

/** Carries requests to a server, until it is told otherwise. */
export class HttpGate implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #client: Deno.HttpClient;
  /** What was asked so far: `GET /path?query`. */
  readonly requests: string[] = [];
  /** Answers in the server's place if it returns something. */
  answer: (request: Request) => Response | undefined | Promise<undefined> = () => undefined;

  /**
   * Listens on a port of its own for requests to the server at this URL, whose CA is in a file.
   *
   * @param place the address to listen at, and the namespace that has it; 127.0.0.1 here unless given
   */
  constructor(
    url: string,
    caFile: string,
    place?: { readonly namespace: NetworkNamespace; readonly host: string },
  ) {
    this.#client = Deno.createHttpClient({ caCerts: [Deno.readTextFileSync(caFile)] });
    const serve = () =>
      Deno.serve({ hostname: place?.host ?? "127.0.0.1", port: 0, onListen() {} }, async (
        request,
      ) => {
        const { pathname, search } = new URL(request.url);
        this.requests.push(`${request.method} ${pathname}${search}`);
        const own = await this.answer(request);
        if (own !== undefined) return own;
        const headers = new Headers(request.headers);
        headers.delete("host");
        return await fetch(url + pathname + search, {
          method: request.method,
          headers,
          body: request.body === null ? null : await request.bytes(),
          client: this.#client,
        });
      });
    this.#server = place === undefined ? serve() : place.namespace.run(serve);
  }

  /** Where to connect to instead of the server. */
  get url(): string {
    const { hostname, port } = this.#server.addr;
    return `http://${hostname}:${port}`;
  }

  /** Closes it; to be called when nobody asks anything any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
    this.#client.close();
  }
}
