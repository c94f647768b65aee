/**
 * What the way to the API server is read from: a kubeconfig, the pod's service account, or a URL alone, in
 * flannel's order (client-go's `BuildConfigFromFlags`).
 *
 * @module
 */

import { ConfigError } from "../../mod.ts";
import { type Access, type AccessSource, readFile, readToken, serverUrl } from "./access.ts";
import type { Plugins } from "./exec_plugin.ts";

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
