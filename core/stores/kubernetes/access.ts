/**
 * How to reach the API server, and who to be there.
 *
 * @module
 */

import { ConfigError, messageOf } from "../../mod.ts";

/** What TLS to the API server needs; all PEM. */
export interface TlsSettings {
  /** The CAs that may have signed the server's certificate; the system's if it is left out. */
  readonly ca?: string | undefined;
  /** The certificate that this client shows … */
  readonly cert?: string | undefined;
  /** … and its private key. */
  readonly key?: string | undefined;
  /** The name that the server's certificate has to be for; the URL's host if it is left out. */
  readonly serverName?: string | undefined;
  /** Whether any certificate will do. */
  readonly insecure: boolean;
}

/** A way to an API server, as its files are at one moment. */
export interface Access {
  /** The server's URL, without a slash at its end. */
  readonly server: string;
  /** What TLS needs; means nothing to a server whose URL is `http:`. */
  readonly tls: TlsSettings;
  /** The proxy to go through: `http:`, `https:` or `socks5:`. */
  readonly proxyUrl?: string | undefined;
  /**
   * The token to send with a request, asked for with each: what it is read from changes. Rejects with a
   * ConfigError or a RuntimeError.
   */
  token(signal: AbortSignal): Promise<string | undefined>;
}

/** A way to an API server that can be read again and again, as its files are renewed. */
export interface AccessSource {
  /** How messages name what it is read from. */
  readonly description: string;
  /**
   * Reads it. Rejects with a ConfigError that names the file and what is wrong with it, or a RuntimeError if
   * a plugin fails.
   *
   * @param renew whether a plugin has to be asked again for what it gave before
   */
  read(renew: boolean, signal: AbortSignal): Promise<Access>;
}

/** Reads a file. Rejects with a ConfigError that names it and what it is for. */
export async function readFile(what: string, path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    throw new ConfigError(`${what}: ${path} can't be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Reads a token from its file. Rejects with a ConfigError if there is none in it. */
export async function readToken(what: string, path: string): Promise<string> {
  const token = (await readFile(what, path)).trim();
  if (token === "") throw new ConfigError(`${what}: ${path} is empty`);
  return token;
}

/** A server's URL as {@link Access.server} has it. Throws a ConfigError. */
export function serverUrl(text: string, where: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "") {
    throw new ConfigError(
      `${where}: ${JSON.stringify(text)} is not a URL such as https://10.0.0.1:6443`,
    );
  }
  return (url.origin + url.pathname).replace(/\/+$/, "");
}
