/**
 * What a test needs of Kubernetes, and how it is talked about.
 *
 * @module
 */

import { parseAllDocuments } from "yaml";

/** A rule of a ClusterRole. */
export interface Rule {
  /** `nodes`, `nodes/status`, `events` or `pods`. */
  readonly resource: string;
  /** `list`, `watch` and so on. */
  readonly verbs: readonly string[];
}

/** What the ClusterRole and the Role of `deploy/kubernetes/denim.yml` let denim do. */
export const RULES: readonly Rule[] = rolesOfManifest();

/** What finding the node by its pod takes on top, which that manifest does not do. */
export const POD_RULE: Rule = { resource: "pods", verbs: ["get"] };

function rolesOfManifest(): readonly Rule[] {
  const path = new URL("../../deploy/kubernetes/denim.yml", import.meta.url);
  const documents = parseAllDocuments(Deno.readTextFileSync(path)).map((one) => one.toJS());
  const roles = documents.filter((one) => ["ClusterRole", "Role"].includes(one?.kind));
  const rules = roles.flatMap(({ rules }) =>
    rules as readonly { resources: readonly string[]; verbs: readonly string[] }[]
  );
  return rules.flatMap(({ resources, verbs }) =>
    resources.map((resource) => ({ resource, verbs }))
  );
}

/** An API server, with TLS, tokens and authorization, and a user "denim" who may do what is granted. */
export interface KubeServer extends AsyncDisposable {
  /** What it is: `kube-apiserver`, or `stand-in`. */
  readonly kind: string;
  /** `https://127.0.0.1:PORT`; its certificate is for `localhost` and `kubernetes.test` too. */
  readonly url: string;
  /** The file of its CA. */
  readonly caFile: string;
  /** What an administrator reads or writes; rejects unless it succeeds. */
  admin(method: string, path: string, body?: unknown): Promise<unknown>;
  /** Gives denim these rights alone. */
  grant(rules: readonly Rule[]): Promise<void>;
  /** A token of denim's. */
  token(): Promise<string>;
  /** Makes all of denim's tokens invalid; resolves when they are. */
  revoke(): Promise<void>;
  /** A certificate of denim's and its key, files; `undefined` from who knows nobody by one. */
  readonly client: { readonly cert: string; readonly key: string } | undefined;
  /** Ends it; what it knows stays. */
  stop(): Promise<void>;
  /** Starts it again, with the history of before gone (compacted). */
  start(): Promise<void>;
}

/** The names that a server's certificate is for; the last one is a laboratory's router's address. */
export const CERTIFICATE_NAMES = "DNS:localhost,DNS:kubernetes.test,IP:127.0.0.1,IP:10.99.0.254";

/** The text of a kubeconfig (JSON is YAML) with one cluster and one user. */
export function kubeconfigText(cluster: unknown, user: unknown): string {
  return JSON.stringify({
    "current-context": "x",
    "contexts": [{ name: "x", context: { cluster: "c", user: "u" } }],
    "clusters": [{ name: "c", cluster }],
    "users": [{ name: "u", user }],
  });
}

/** A node's name, its podCIDRs and its annotations, as an administrator makes one. */
export function nodeManifest(
  name: string,
  podCIDRs: readonly string[] = [],
  annotations: Readonly<Record<string, string>> = {},
): unknown {
  const spec = podCIDRs.length === 0 ? {} : { podCIDR: podCIDRs[0], podCIDRs };
  return { apiVersion: "v1", kind: "Node", metadata: { name, annotations }, spec };
}
