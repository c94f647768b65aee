/**
 * How to reach the API server, and who to be there: from a kubeconfig, from the pod's service account, or
 * from a URL alone, in flannel's order (client-go's `BuildConfigFromFlags`).
 *
 * @module
 */

import { ConfigError, messageOf } from "../../mod.ts";
import type { Plugins } from "./exec_plugin.ts";

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

/** What says how to reach the API server. */
export interface AccessOptions {
  /** `--kubeconfig-file`: a kubeconfig, whose current context counts. */
  readonly kubeconfigFile?: string | undefined;
  /** `--kube-api-url`: the server, in place of the one that the kubeconfig or the pod's environment names. */
  readonly apiUrl?: string | undefined;
  /** Where a pod finds its service account; Kubernetes' place unless given. */
  readonly serviceAccountDirectory?: string | undefined;
  /** The process's environment, which says where the server is to a pod. */
  readonly environment: (name: string) => string | undefined;
}

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

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

/** Decides what the access is read from. Throws a ConfigError if there is nothing to read it from. */
export function findAccess(options: AccessOptions): AccessSource {
  const { kubeconfigFile, apiUrl, environment } = options;
  const server = apiUrl === undefined ? undefined : serverUrl(apiUrl, "--kube-api-url");
  if (kubeconfigFile !== undefined) {
    const plugins: Plugins = new Map();
    return {
      description: `kubeconfig ${kubeconfigFile}`,
      async read(renew, signal) {
        // The reader loads a YAML parser, which a pod does without.
        const { readKubeconfig } = await import("./kubeconfig.ts");
        if (renew) plugins.clear();
        return await readKubeconfig(kubeconfigFile, { server, plugins }, signal);
      },
    };
  }
  const host = environment("KUBERNETES_SERVICE_HOST");
  const port = environment("KUBERNETES_SERVICE_PORT");
  const directory = options.serviceAccountDirectory ?? SERVICE_ACCOUNT;
  if (host !== undefined && port !== undefined) {
    const own = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
    return {
      description: `service account in ${directory}`,
      read: () => readServiceAccount(server ?? own, directory),
    };
  }
  if (server !== undefined) {
    const access = { server, tls: { insecure: false }, token: () => Promise.resolve(undefined) };
    return { description: "--kube-api-url alone", read: () => Promise.resolve(access) };
  }
  throw new ConfigError(
    "nothing says where the Kubernetes API server is: give --kubeconfig-file, or run the agent in a pod, " +
      "whose environment has KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT",
  );
}

async function readServiceAccount(server: string, directory: string): Promise<Access> {
  return {
    server,
    tls: { insecure: false, ca: await readFile("the pod's CA", `${directory}/ca.crt`) },
    token: () => readToken("the pod's token", `${directory}/token`),
  };
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
