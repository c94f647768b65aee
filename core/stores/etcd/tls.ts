/**
 * What TLS to an etcd needs: files read into credentials, endpoints named by IP, and plain words for a
 * certificate that is refused.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { isIP } from "node:net";
import tls from "node:tls";
import { ConfigError, messageOf } from "../../mod.ts";

/** Where a client's TLS files are, all PEM. */
export interface TlsFiles {
  /** The CAs that may have signed etcd's certificate; the system's unless given. */
  readonly caFile?: string | undefined;
  /** The certificate that this client shows … */
  readonly certFile?: string | undefined;
  /** … and its private key. */
  readonly keyFile?: string | undefined;
}

/** What etcd3 wants of it. Throws a ConfigError that names the file which can't be read. */
export function readCredentials(files: TlsFiles): {
  readonly rootCertificate: Buffer;
  readonly certChain?: Buffer;
  readonly privateKey?: Buffer;
} {
  const read = (flag: string, path: string) => {
    let bytes;
    try {
      bytes = Buffer.from(Deno.readFileSync(path));
    } catch (error) {
      throw new ConfigError(`--${flag} ${path} can't be read: ${messageOf(error)}`);
    }
    if (bytes.includes("-----BEGIN ")) return bytes;
    throw new ConfigError(`--${flag} ${path} is no PEM file`);
  };
  const { caFile, certFile, keyFile } = files;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new ConfigError("--etcd-certfile and --etcd-keyfile go together: give both or neither");
  }
  return {
    // gRPC takes null for the system's CAs, which etcd3's types don't say.
    rootCertificate: caFile === undefined ? null as unknown as Buffer : read("etcd-cafile", caFile),
    ...(certFile === undefined || keyFile === undefined ? {} : {
      certChain: read("etcd-certfile", certFile),
      privateKey: read("etcd-keyfile", keyFile),
    }),
  };
}

let allowed = false;

/**
 * Lets gRPC connect to an endpoint that is named by its IP. It gives the IP as the name to ask for in the
 * handshake, where none may stand (RFC 6066, section 3), and `node:tls` refuses that. Without it the
 * certificate is still checked, against the host, which is the IP. Calls that never had an IP there,
 * which are all that succeeded before, are as they were.
 */
export function allowIpEndpoints(): void {
  if (allowed) return;
  allowed = true;
  const module: { connect: (...args: unknown[]) => unknown } = tls as never;
  const connect = module.connect;
  module.connect = (options, ...rest) => {
    const { servername, ...others } = (options ?? {}) as { readonly servername?: unknown };
    const named = typeof servername === "string" && isIP(servername) !== 0;
    return connect(named ? others : options, ...rest);
  };
}

/** What a failed handshake's words mean for whoever has to mend it; `undefined` for any other failure. */
export function explainTls(message: string, files: TlsFiles): string | undefined {
  if (/certificate has expired|alert.*certificate_?expired/i.test(message)) {
    return /alert/i.test(message)
      ? `it refuses the certificate in ${files.certFile}: it has expired`
      : "its certificate has expired";
  }
  if (/certificate is not yet valid/i.test(message)) return "its certificate is not valid yet";
  const name = /does not match certificate's altnames: (.*?)\.?$/.exec(message)?.[1];
  if (name !== undefined) return `its certificate is for another name: ${name}`;
  if (
    /unable to (verify|get)|self[- ]signed certificate|unknown ?issuer/i.test(message)
  ) {
    const authorities = files.caFile === undefined
      ? "the system's CAs; name its CA with --etcd-cafile"
      : `the CAs in ${files.caFile}`;
    return `its certificate is signed by none of ${authorities}`;
  }
  if (/alert.*certificate_?required|certificate required/i.test(message)) {
    return "it wants a client certificate: give --etcd-certfile and --etcd-keyfile";
  }
  if (/alert.*(unknown_?ca|bad_?certificate)/i.test(message)) {
    return `it refuses the certificate in ${files.certFile}`;
  }
  return undefined;
}
