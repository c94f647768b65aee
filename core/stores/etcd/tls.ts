/**
 * What TLS to an etcd needs: files read into credentials, and plain words for a certificate that is refused.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { ConfigError, messageOf, sleep, throwDefect } from "../../mod.ts";

/** Where a client's TLS files are, all PEM. */
export interface TlsFiles {
  /** The CAs that may have signed etcd's certificate; the system's unless given. */
  readonly caFile?: string | undefined;
  /** The certificate that this client shows. */
  readonly certFile?: string | undefined;
  /** The certificate's private key. */
  readonly keyFile?: string | undefined;
}

/** How messages name what was given, or is to be given: a program puts its flags here. */
export interface SettingNames {
  /** {@link TlsFiles.caFile} */
  readonly caFile: string;
  /** {@link TlsFiles.certFile} */
  readonly certFile: string;
  /** {@link TlsFiles.keyFile} */
  readonly keyFile: string;
  /** The user's name. */
  readonly username: string;
  /** The user's password. */
  readonly password: string;
}

/** The names unless a program gives its own. */
export const DEFAULT_NAMES: SettingNames = {
  caFile: "the CA file",
  certFile: "the certificate file",
  keyFile: "the private key file",
  username: "the user's name",
  password: "the user's password",
};

/** What the files hold, in PEM. */
export interface Credentials {
  /** CAs; the system's unless given. */
  readonly ca?: Buffer;
  /** A certificate to show. */
  readonly cert?: Buffer;
  /** Its private key. */
  readonly key?: Buffer;
}

/** Credentials as Deno's own functions take them. */
export function denoTls({ ca, cert, key }: Credentials): Deno.TlsCertifiedKeyPem | {
  caCerts?: string[];
} {
  return {
    ...ca === undefined ? {} : { caCerts: [ca.toString()] },
    ...cert === undefined || key === undefined
      ? {}
      : { cert: cert.toString(), key: key.toString() },
  };
}

/**
 * Reads the files. Throws a ConfigError that names the file which can't be used: it can't be read, it is something
 * else, it does not belong to the other, or it has expired.
 */
export function readCredentials(files: TlsFiles, names: SettingNames): Credentials {
  const { caFile, certFile, keyFile } = files;
  const ca = caFile === undefined ? undefined : read(`${names.caFile} ${caFile}`, caFile);
  if (ca !== undefined) {
    parse(`${names.caFile} ${caFile}`, "certificate", () => new X509Certificate(ca));
  }
  const trusted = ca === undefined ? {} : { ca };
  if (certFile === undefined || keyFile === undefined) {
    if (certFile === keyFile) return trusted;
    throw new ConfigError(
      `${names.certFile} and ${names.keyFile} go together: give both or neither`,
    );
  }
  const [shownCert, shownKey] = [`${names.certFile} ${certFile}`, `${names.keyFile} ${keyFile}`];
  const cert = read(shownCert, certFile);
  const key = read(shownKey, keyFile);
  const certificate = parse(shownCert, "certificate", () => new X509Certificate(cert));
  if (!certificate.checkPrivateKey(parse(shownKey, "private key", () => createPrivateKey(key)))) {
    throw new ConfigError(`${shownCert} does not belong to ${shownKey}`);
  }
  if (Date.parse(certificate.validTo) < Date.now()) {
    throw new ConfigError(`${shownCert} has expired: it was valid until ${certificate.validTo}`);
  }
  return { ...trusted, cert, key };
}

function read(shown: string, path: string): Buffer {
  try {
    return Buffer.from(Deno.readFileSync(path));
  } catch (error) {
    throw new ConfigError(`${shown} can't be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Without the parser's error as cause: it may quote the file, which may be a key. */
function parse<T>(shown: string, what: string, parser: () => T): T {
  try {
    return parser();
  } catch {
    throw new ConfigError(`${shown} does not hold a ${what} in PEM`);
  }
}

/**
 * What a failed handshake's message means for an operator; `undefined` for a failure that has nothing to do with
 * certificates. `node:tls` has a code for few of them, so that its messages are all there is to go by.
 */
export function explainTls(
  message: string,
  files: TlsFiles,
  names: SettingNames,
): string | undefined {
  if (message.includes("certificate has expired")) return "its certificate has expired";
  if (message.includes("certificate is not yet valid")) return "its certificate is not valid yet";
  const other = /does not match certificate's altnames: (.*?)\.?$/.exec(message)?.[1];
  if (other !== undefined) return `its certificate is for another name: ${other}`;
  if (/unable to (verify|get)|self[- ]signed certificate/.test(message)) {
    return files.caFile === undefined
      ? `its certificate is not signed by any of the system's CAs; give ${names.caFile} with its CA`
      : `its certificate is not signed by any of the CAs in ${files.caFile}`;
  }
  if (/fatal alert: \w*(Certificate|CA)\w*/.test(message)) {
    return files.certFile === undefined
      ? `it requires a client certificate: give ${names.certFile} and ${names.keyFile}`
      : `it refuses the certificate in ${files.certFile}`;
  }
  return undefined;
}

/** How long a server may take to say why it hangs up. */
const ALERT_TIMEOUT_MS = 2_000;

/**
 * Why a server hangs up once it knows the client's certificate. In TLS 1.3 that is after the handshake, when gRPC
 * is writing already and its failed write hides the server's reason. This connects and only reads. `undefined` if
 * the server gives no reason.
 */
export async function readAlert(
  url: string,
  files: TlsFiles,
  names: SettingNames,
): Promise<string | undefined> {
  const { hostname, port } = new URL(url);
  const ending = new AbortController();
  try {
    using connection = await Deno.connectTls({
      hostname: hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(port),
      alpnProtocols: ["h2"],
      ...denoTls(readCredentials(files, names)),
    });
    const alert = connection.handshake().then(() => connection.read(new Uint8Array(1)));
    await Promise.race([alert, sleep(ALERT_TIMEOUT_MS, ending.signal)]);
    return undefined;
  } catch (error) {
    throwDefect(error);
    return explainTls(messageOf(error), files, names);
  } finally {
    ending.abort();
  }
}
