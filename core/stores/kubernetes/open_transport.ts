/**
 * Chooses what carries requests to an API server: Deno's `fetch`, or, for what it can't do, node:http2.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { ConfigError, FAMILIES, type Family, IpAddress, messageOf } from "../../mod.ts";
import type { Access } from "./access.ts";
import { openHttp2Transport } from "./http2_transport.ts";
import { explain, type Transport, TransportError } from "./transport.ts";

/** Finds all addresses of a host's name. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/**
 * Opens a transport; the server is asked with the first request. Rejects with a ConfigError if a certificate or a
 * key can't be used, and with a TransportError if the server's name leads nowhere.
 *
 * @param turn how many were opened before: each takes another of a name's addresses
 */
export async function openTransport(
  access: Access,
  turn: number,
  resolve: Resolve = resolveHost,
): Promise<Transport> {
  const { serverName, insecure } = access.tls;
  const { protocol, hostname } = new URL(access.server);
  if (protocol === "http:") return fetchTransport(access);
  const address = access.proxyUrl === undefined
    ? await addressInTurn(hostname, turn, resolve)
    : undefined;
  if (serverName === undefined && !insecure && address === undefined) return fetchTransport(access);
  if (access.proxyUrl !== undefined) {
    throw new ConfigError(
      "a proxy-url does not go together with tls-server-name or insecure-skip-tls-verify: give the server's " +
        "certificate the name that its URL has, and its CA as certificate-authority",
    );
  }
  return await openHttp2Transport(access, address);
}

/**
 * The address to take of a name that has several; `undefined` for a name or an address that `fetch` can be left
 * alone with. `fetch` always begins with a name's first address, and waits for minutes if it is silent.
 */
async function addressInTurn(
  host: string,
  turn: number,
  resolve: Resolve,
): Promise<string | undefined> {
  if (familyOf(host.replace(/^\[|\]$/g, "")) !== undefined) return undefined;
  const addresses = await resolve(host);
  // One of each family is no matter: fetch tries both at a time.
  const several = FAMILIES.some((family) =>
    addresses.filter((one) => familyOf(one) === family).length > 1
  );
  return several ? addresses[turn % addresses.length] : undefined;
}

/** `undefined` for a name. */
function familyOf(host: string): Family | undefined {
  return IpAddress.tryParse(host)?.family;
}

async function resolveHost(host: string): Promise<readonly string[]> {
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address);
  } catch (error) {
    throw new TransportError(`its name ${host} has no address: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function fetchTransport({ server, tls, proxyUrl }: Access): Transport {
  const { ca, cert, key } = tls;
  const client = createClient({
    ...ca === undefined ? {} : { caCerts: [ca] },
    ...cert === undefined || key === undefined ? {} : { cert, key },
    ...proxyUrl === undefined ? {} : { proxy: { url: proxyUrl } },
  });
  return {
    async send({ method, path, headers, body, signal }) {
      const init = { method, headers, body: body ?? null, signal, redirect: "manual" as const };
      try {
        return await fetch(server + path, { ...init, client });
      } catch (error) {
        const [, port] = /port (\d+) are blocked/.exec(messageOf(error)) ?? [];
        if (port !== undefined) {
          throw new ConfigError(
            `${server}: fetch never asks port ${port}, which other protocols have (Fetch Standard, ` +
              `section 2.9 "Port blocking"); have the API server listen on another`,
            { cause: error },
          );
        }
        // A request that can't be sent at all is a mistake of denim's.
        if (error instanceof TypeError && error.cause === undefined) throw error;
        signal.throwIfAborted();
        throw new TransportError(explain(error), { cause: error });
      }
    },
    [Symbol.dispose]: () => client.close(),
  };
}

function createClient(
  options: Deno.CreateHttpClientOptions | Deno.CreateHttpClientOptions & Deno.TlsCertifiedKeyPem,
): Deno.HttpClient {
  try {
    return Deno.createHttpClient(options);
  } catch (error) {
    throw new ConfigError(
      `the API server's CA, the client certificate, its key or the proxy's URL can't be used: ${
        messageOf(error)
      }`,
      { cause: error },
    );
  }
}
