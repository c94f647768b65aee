/**
 * A real kube-apiserver on a real etcd, for one test.
 *
 * @module
 */

import { getAvailablePort } from "@std/net/get-available-port";
import { existsSync } from "node:fs";
import { type Certificate, Certificates } from "./certificates.ts";
import { EtcdServer } from "./etcd_server.ts";
import { CERTIFICATE_NAMES, type KubeServer, type Rule } from "./kube_server.ts";
import { eventually } from "./wait.ts";

const ADMIN = "admin-token";
const NAMESPACE = "kube-denim";
const ACCOUNT = "denim";
const USER = `system:serviceaccount:${NAMESPACE}:${ACCOUNT}`;
/** Loading it takes some seconds on a busy machine. */
const START_MS = 60_000;

/** The program, its etcd and what an administrator does to them. */
export class KubeApiServer implements KubeServer {
  readonly kind = "kube-apiserver";
  readonly url: string;
  readonly caFile: string;
  readonly client: Certificate;
  readonly #program: string;
  readonly #etcd: EtcdServer;
  readonly #certificates: Certificates;
  readonly #args: readonly string[];
  readonly #http: Deno.HttpClient;
  #process: Deno.ChildProcess | undefined;
  #parts: AsyncDisposableStack | undefined;

  private constructor(program: string, etcd: EtcdServer, certificates: Certificates) {
    this.#program = program;
    this.#etcd = etcd;
    this.#certificates = certificates;
    const { directory } = certificates;
    const ca = certificates.authority("ca");
    const server = certificates.issue("server", ca, CERTIFICATE_NAMES);
    this.client = certificates.issue("denim", ca, "DNS:denim", { subject: `/CN=${USER}` });
    const account = certificates.authority("accounts");
    Deno.writeTextFileSync(`${directory}/tokens`, `${ADMIN},admin,admin,system:masters\n`);
    const port = getAvailablePort();
    this.url = `https://127.0.0.1:${port}`;
    this.caFile = ca.cert;
    this.#http = Deno.createHttpClient({ caCerts: [Deno.readTextFileSync(ca.cert)] });
    this.#args = [
      `--etcd-servers=${etcd.url}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${account.cert}`,
      `--service-account-signing-key-file=${account.key}`,
      "--service-cluster-ip-range=10.96.0.0/16",
      "--authorization-mode=RBAC",
      `--token-auth-file=${directory}/tokens`,
      `--client-ca-file=${ca.cert}`,
      `--tls-cert-file=${server.cert}`,
      `--tls-private-key-file=${server.key}`,
      "--bind-address=127.0.0.1",
      `--secure-port=${port}`,
      "--endpoint-reconciler-type=none",
      `--cert-dir=${directory}`,
      "--shutdown-delay-duration=0s",
    ];
  }

  /** Where the program is; `undefined` if it is not there. */
  static program(): string | undefined {
    const named = Deno.env.get("KUBE_APISERVER");
    if (named !== undefined) return named;
    return (Deno.env.get("PATH") ?? "").split(":")
      .map((folder) => `${folder}/kube-apiserver`).find((path) => existsSync(path));
  }

  /** Starts one. */
  static async launch(program: string): Promise<KubeApiServer> {
    await using parts = new AsyncDisposableStack();
    const etcd = parts.use(await EtcdServer.start());
    const certificates = parts.use(new Certificates());
    const server = new KubeApiServer(program, etcd, certificates);
    parts.defer(() => server.#http.close());
    parts.defer(() => server.stop());
    await server.#run();
    const kind = { kind: "Namespace", apiVersion: "v1", metadata: { name: NAMESPACE } };
    await server.admin("POST", "/api/v1/namespaces", kind);
    await server.#makeAccount();
    // Without one there is no pod.
    const accounts = "/api/v1/namespaces/default/serviceaccounts";
    await server.admin("POST", accounts, { metadata: { name: "default" } });
    await server.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
      metadata: { name: ACCOUNT },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: ACCOUNT },
      subjects: [{ kind: "User", name: USER, apiGroup: "rbac.authorization.k8s.io" }],
    });
    server.#parts = parts.move();
    return server;
  }

  async #run(): Promise<void> {
    const path = `${this.#certificates.directory}/log`;
    this.#process = new Deno.Command("sh", {
      args: ["-c", `exec "$0" "$@" >>${path} 2>&1`, this.#program, ...this.#args],
      stdin: "null",
    }).spawn();
    let ended = false;
    this.#process.status.then(() => ended = true);
    await eventually("kube-apiserver is ready", async () => {
      if (ended) throw new Error(`kube-apiserver ended:\n${Deno.readTextFileSync(path)}`);
      try {
        return await this.admin("GET", "/readyz") === "ok";
      } catch {
        return false;
      }
    }, START_MS);
  }

  async admin(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(this.url + path, {
      method,
      client: this.#http,
      headers: {
        "authorization": `Bearer ${ADMIN}`,
        "content-type": method === "PATCH" ? "application/merge-patch+json" : "application/json",
      },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text.startsWith("{") ? JSON.parse(text) : text;
  }

  async grant(rules: readonly Rule[]): Promise<void> {
    const path = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    const role = {
      metadata: { name: ACCOUNT },
      rules: rules.filter(({ verbs }) => verbs.length > 0).map(({ resource, verbs }) => ({
        apiGroups: [""],
        resources: [resource],
        verbs,
      })),
    };
    try {
      await this.admin("PUT", `${path}/${ACCOUNT}`, role);
    } catch {
      await this.admin("POST", path, role);
    }
    // Its authorizer has its own watch.
    await eventually("the rights are granted", async () => {
      const granted = await Promise.all(ALL_RIGHTS.map(async ([resource, verb]) => {
        const [name, subresource] = resource!.split("/");
        const attributes = { verb, resource: name, subresource };
        const review = await this.admin(
          "POST",
          "/apis/authorization.k8s.io/v1/subjectaccessreviews",
          { spec: { user: USER, resourceAttributes: attributes } },
        ) as { status: { allowed: boolean } };
        const wanted = rules.some((rule) =>
          rule.resource === resource && rule.verbs.includes(verb!)
        );
        return review.status.allowed === wanted;
      }));
      return granted.every((done) => done);
    });
  }

  async #makeAccount(): Promise<void> {
    const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts`;
    await this.admin("POST", path, { metadata: { name: ACCOUNT } });
  }

  async token(): Promise<string> {
    const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${ACCOUNT}/token`;
    const { status } = await this.admin("POST", path, { spec: { expirationSeconds: 3600 } }) as {
      status: { token: string };
    };
    return status.token;
  }

  async revoke(): Promise<void> {
    const token = await this.token();
    const status = async () => {
      const response = await fetch(`${this.url}/api`, {
        client: this.#http,
        headers: { authorization: `Bearer ${token}` },
      });
      await response.body?.cancel();
      return response.status;
    };
    await status();
    const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${ACCOUNT}`;
    await this.admin("DELETE", path);
    await this.#makeAccount();
    // It remembers for 10 s whom it let in, this one last.
    await eventually("the old tokens are refused", async () => await status() === 401, 20_000);
  }

  async stop(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.status;
    this.#process = undefined;
  }

  async start(): Promise<void> {
    // What a client heard of last is older than all that the server has.
    this.#etcd.ctl("put", "something-else", "");
    this.#etcd.ctl("compact", `${this.#etcd.revision()}`);
    await this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts?.disposeAsync();
  }
}

const ALL_RIGHTS = [
  ["nodes", "list"],
  ["nodes", "watch"],
  ["nodes/status", "patch"],
  ...["get", "list", "create", "patch"].map((verb) => ["events", verb]),
  ["pods", "get"],
];
