/**
 * What TLS to an etcd needs: files read into credentials, endpoints named by IP, and plain words for a
 * certificate that is refused.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createPrivateKey, X509Certificate } from "node:crypto";
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

/**
 * What etcd3 wants of them. Throws a ConfigError that names the file which can't be used: it can't be read,
 * is something else, is not the other's, or has expired.
 */
export function readCredentials(files: TlsFiles): {
  readonly rootCertificate: Buffer;
  readonly certChain?: Buffer;
  readonly privateKey?: Buffer;
} {
  const { caFile, certFile, keyFile } = files;
  const ca = caFile === undefined ? undefined : read("etcd-cafile", caFile);
  if (ca !== undefined) {
    parse(`--etcd-cafile ${caFile}`, "certificate", () => new X509Certificate(ca));
  }
  // gRPC takes null for the system's CAs, which etcd3's types don't say.
  const rootCertificate = ca ?? null as unknown as Buffer;
  if (certFile === undefined || keyFile === undefined) {
    if (certFile === keyFile) return { rootCertificate };
    throw new ConfigError("--etcd-certfile and --etcd-keyfile go together: give both or neither");
  }
  const certChain = read("etcd-certfile", certFile);
  const privateKey = read("etcd-keyfile", keyFile);
  const shown = `--etcd-certfile ${certFile}`;
  const certificate = parse(shown, "certificate", () => new X509Certificate(certChain));
  const key = parse(`--etcd-keyfile ${keyFile}`, "private key", () => createPrivateKey(privateKey));
  if (!certificate.checkPrivateKey(key)) {
    throw new ConfigError(`${shown} is not for the private key in --etcd-keyfile ${keyFile}`);
  }
  if (Date.parse(certificate.validTo) < Date.now()) {
    throw new ConfigError(`${shown} has expired: it was valid until ${certificate.validTo}`);
  }
  return { rootCertificate, certChain, privateKey };
}

function read(flag: string, path: string): Buffer {
  try {
    return Buffer.from(Deno.readFileSync(path));
  } catch (error) {
    throw new ConfigError(`--${flag} ${path} can't be read: ${messageOf(error)}`);
  }
}

/** What a parser says of a file may tell what is in it, which for a key nobody is to read. */
function parse<T>(file: string, what: string, parser: () => T): T {
  try {
    return parser();
  } catch {
    throw new ConfigError(`${file} holds no ${what} in PEM`);
  }
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

/**
 * What a failed handshake's words mean for whoever has to mend it; `undefined` for a failure that has
 * nothing to do with certificates.
 */
export function explainTls(message: string, files: TlsFiles): string | undefined {
  if (message.includes("certificate has expired")) return "its certificate has expired";
  if (message.includes("certificate is not yet valid")) return "its certificate is not valid yet";
  const other = /does not match certificate's altnames: (.*?)\.?$/.exec(message)?.[1];
  if (other !== undefined) return `its certificate is for another name: ${other}`;
  if (/unable to (verify|get)|self[- ]signed certificate/.test(message)) {
    return files.caFile === undefined
      ? "its certificate is signed by none of the system's CAs; name its CA with --etcd-cafile"
      : `its certificate is signed by none of the CAs in ${files.caFile}`;
  }
  if (/fatal alert: \w*(Certificate|CA)\w*/.test(message)) {
    return files.certFile === undefined
      ? "it wants a client certificate: give --etcd-certfile and --etcd-keyfile"
      : `it refuses the certificate in ${files.certFile}`;
  }
  return undefined;
}

/** How long a server may take to say why it hangs up. */
const ALERT_TIMEOUT_MS = 2_000;

/**
 * Why a server hangs up once it knows the client's certificate: in TLS 1.3 that is after the handshake, when
 * gRPC is writing already and does not hear it. This connects and only listens. `undefined` where the
 * server has nothing to say.
 */
export async function heardAlert(url: string, files: TlsFiles): Promise<string | undefined> {
  const { hostname, port } = new URL(url);
  let connection: Deno.TlsConn | undefined;
  const timer = setTimeout(() => connection?.close(), ALERT_TIMEOUT_MS);
  try {
    const { rootCertificate, certChain, privateKey } = readCredentials(files);
    connection = await Deno.connectTls({
      hostname: hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(port),
      alpnProtocols: ["h2"],
      ...(files.caFile === undefined ? {} : { caCerts: [rootCertificate.toString()] }),
      ...(certChain === undefined || privateKey === undefined
        ? {}
        : { cert: certChain.toString(), key: privateKey.toString() }),
    });
    await connection.handshake();
    await connection.read(new Uint8Array(1));
    return undefined;
  } catch (error) {
    return explainTls(messageOf(error), files);
  } finally {
    clearTimeout(timer);
    try {
      connection?.close();
    } catch {
      // The timer was faster.
    }
  }
}
