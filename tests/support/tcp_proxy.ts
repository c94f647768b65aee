/**
 * A wire to a server that a test can cut, and let fall silent.
 *
 * @module
 */

import type { NetworkNamespace } from "@denim/core/linux/namespace";

/** Carries TCP connections to a server, until it is told otherwise. */
export class TcpProxy implements Disposable {
  readonly #listener: Deno.Listener;
  readonly #target: Deno.ConnectOptions;
  readonly #connections = new Set<Deno.Conn>();
  /** How many connections were made to it. */
  made = 0;
  /** How many octets came from clients. */
  received = 0;
  #refuses = false;
  #silence: PromiseWithResolvers<void> | undefined;

  /**
   * Listens on a port of its own for connections to the server at this URL.
   *
   * @param place the address to listen at, and the namespace that has it; 127.0.0.1 here unless given
   */
  constructor(
    url: string,
    place?: { readonly namespace: NetworkNamespace; readonly host: string },
  ) {
    const { hostname, port } = new URL(url);
    this.#target = { hostname, port: Number(port) };
    const listen = () => Deno.listen({ hostname: place?.host ?? "127.0.0.1", port: 0 });
    this.#listener = place === undefined ? listen() : place.namespace.run(listen);
    this.#serve();
  }

  /** Where to connect to instead of the server: `10.0.0.1:4711`. */
  get host(): string {
    const { hostname, port } = this.#listener.addr as Deno.NetAddr;
    return `${hostname}:${port}`;
  }

  /** {@link TcpProxy.host} as a URL, if the server speaks HTTP. */
  get url(): string {
    return `http://${this.host}`;
  }

  /** Breaks all connections, and new ones at once, until {@link TcpProxy.mend}. */
  cut(): void {
    this.#refuses = true;
    for (const connection of this.#connections) close(connection);
  }

  /** Carries nothing any more, without a word, until {@link TcpProxy.mend}. */
  silence(): void {
    this.#silence ??= Promise.withResolvers();
  }

  /** Carries on: what had been silenced comes through now. */
  mend(): void {
    this.#refuses = false;
    this.#silence?.resolve();
    this.#silence = undefined;
  }

  /** Closes it, and all connections. */
  [Symbol.dispose](): void {
    this.cut();
    this.mend();
    this.#listener.close();
  }

  async #serve(): Promise<void> {
    for await (const client of this.#listener) {
      this.made++;
      this.#connections.add(client);
      if (this.#refuses) close(client);
      else this.#join(client);
    }
  }

  async #join(client: Deno.Conn): Promise<void> {
    let server: Deno.Conn | undefined;
    try {
      server = await Deno.connect(this.#target);
      this.#connections.add(server);
      await Promise.race([
        this.#carry(client, server, (octets) => this.received += octets),
        this.#carry(server, client),
      ]);
    } catch {
      // One side is gone: so is the other.
    } finally {
      for (const connection of [client, server]) {
        if (connection === undefined) continue;
        close(connection);
        this.#connections.delete(connection);
      }
    }
  }

  async #carry(
    from: Deno.Conn,
    to: Deno.Conn,
    count: (octets: number) => void = () => {},
  ): Promise<void> {
    const buffer = new Uint8Array(65_536);
    for (let length = await from.read(buffer); length !== null; length = await from.read(buffer)) {
      await this.#silence?.promise;
      count(length);
      for (let at = 0; at < length;) at += await to.write(buffer.subarray(at, length));
    }
  }
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // It is closed already.
  }
}
