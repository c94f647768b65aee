/** Where the way to the API server is read from: kubeconfigs of all kinds, and what is wrong with some. */

import assert from "node:assert/strict";
import { ConfigError, RuntimeError } from "../../mod.ts";
import type { Access } from "./access.ts";
import { findAccess } from "./find_access.ts";
import { openTransport } from "./open_transport.ts";
import { TransportError } from "./transport.ts";

const { signal } = new AbortController();
const nothing = () => undefined;

/** Reads a kubeconfig that is written into a folder of its own, beside other files. */
async function read(
  yaml: string,
  options: { readonly files?: Readonly<Record<string, string>>; readonly apiUrl?: string } = {},
): Promise<Access & { readonly tokenNow: string | undefined }> {
  const directory = Deno.makeTempDirSync({ prefix: "denim-kubeconfig-" });
  try {
    for (const [name, text] of Object.entries({ ...options.files, kubeconfig: yaml })) {
      Deno.writeTextFileSync(`${directory}/${name}`, text, { mode: 0o700 });
    }
    const { apiUrl } = options;
    const kubeconfigFile = `${directory}/kubeconfig`;
    const access = await findAccess({ kubeconfigFile, apiUrl, environment: nothing })
      .read(false, signal);
    return { ...access, tokenNow: await access.token(signal) };
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** A kubeconfig in YAML, as kubeadm writes one. */
function kubeconfig(cluster: string, user: string): string {
  return `apiVersion: v1
kind: Config
current-context: admin@c
contexts:
- context: {cluster: c, user: u, namespace: default}
  name: admin@c
clusters:
- name: c
  cluster:
    ${cluster.replaceAll("\n", "\n    ")}
users:
- name: u
  user:
    ${user.replaceAll("\n", "\n    ")}
`;
}

const SERVER = "server: https://10.0.0.1:6443";
const EXEC = `exec:
  apiVersion: client.authentication.k8s.io/v1
  interactiveMode: IfAvailable
  provideClusterInfo: true
  command: ./plugin
  args: [one]
  env: [{name: WHO, value: me}]
  installHint: install it from the cloud`;

Deno.test("kubeconfigs are read, with the files that they name beside them", async () => {
  const files = { "ca.pem": "CA", "cert.pem": "CERT", "key.pem": "KEY", "token": " secret \n" };
  const inline = await read(
    kubeconfig(
      `${SERVER}/base/\ncertificate-authority-data: ${btoa("CA")}\nproxy-url: http://proxy:3128`,
      `client-certificate-data: ${btoa("CERT")}\nclient-key-data: ${btoa("KEY")}`,
    ),
  );
  assert.equal(inline.server, "https://10.0.0.1:6443/base");
  assert.equal(inline.proxyUrl, "http://proxy:3128");
  const tls = { ca: "CA", cert: "CERT", key: "KEY", serverName: undefined, insecure: false };
  assert.deepEqual(inline.tls, tls);
  assert.equal(inline.tokenNow, undefined);
  const named = await read(
    kubeconfig(
      `${SERVER}\ncertificate-authority: ca.pem\ntls-server-name: api.example`,
      "client-certificate: ./cert.pem\nclient-key: key.pem\ntokenFile: token\ntoken: older",
    ),
    { files, apiUrl: "https://[fd00::1]:443/" },
  );
  assert.equal(named.server, "https://[fd00::1]");
  assert.deepEqual(named.tls, { ...tls, serverName: "api.example" });
  assert.equal(named.tokenNow, "secret");
  const bare = await read(kubeconfig(`${SERVER}\ninsecure-skip-tls-verify: true`, "token: t"));
  assert.deepEqual([bare.tls.insecure, bare.tokenNow], [true, "t"]);
});

Deno.test("a plugin gives a token, is told of the cluster, and is asked again when it has expired or is refused", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "denim-plugin-" });
  try {
    const runs = () => Deno.readTextFileSync(`${directory}/runs`).trim().split("\n");
    Deno.writeTextFileSync(
      `${directory}/plugin`,
      `#!/bin/sh
echo "$1 $WHO $KUBERNETES_EXEC_INFO" >>${directory}/runs
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t%s",%s}}' \
  "$(wc -l <${directory}/runs)" "$(cat ${directory}/until)"`,
      { mode: 0o700 },
    );
    const until = (ms: number) =>
      Deno.writeTextFileSync(
        `${directory}/until`,
        `"expirationTimestamp":"${new Date(Date.now() + ms).toISOString()}"`,
      );
    until(3_600_000);
    Deno.writeTextFileSync(`${directory}/kubeconfig`, kubeconfig(SERVER, EXEC));
    const source = findAccess({ kubeconfigFile: `${directory}/kubeconfig`, environment: nothing });
    const token = async (renew: boolean) => await (await source.read(renew, signal)).token(signal);
    assert.equal(await token(false), "t1");
    assert.equal(await token(false), "t1");
    const [run] = runs();
    assert.match(run!, /^one me \{/);
    const info = JSON.parse(run!.slice("one me ".length));
    assert.equal(info.kind, "ExecCredential");
    assert.deepEqual(info.spec, {
      interactive: false,
      cluster: { server: "https://10.0.0.1:6443" },
    });
    until(-1_000);
    // Once as it is opened, and once as it is asked for.
    assert.equal(await token(true), "t3");
    assert.equal(await token(false), "t5");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

/** What is wrong with a kubeconfig, and how the message ends. */
const WRONG: Readonly<
  Record<string, readonly [yaml: string, why: RegExp, kind?: typeof RuntimeError]>
> = {
  "not YAML": ["a: [", /kubeconfig \S+ is not YAML: /],
  "empty": ["", /kubeconfig \S+: the document/],
  "no context": ["clusters: []", /has no current-context/],
  "another context": [
    "current-context: x\ncontexts: [{name: y, context: {cluster: c, user: u}}]",
    /names the context x, but has y/,
  ],
  "no such cluster": [
    "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]",
    /names the cluster c, but has none/,
  ],
  "a URL": [
    kubeconfig("server: 10.0.0.1:6443", "{}"),
    /cluster c: server: "10.0.0.1:6443" is not a URL/,
  ],
  "a file": [
    kubeconfig(`${SERVER}\ncertificate-authority: no.pem`, "{}"),
    /cluster c: certificate-authority: \S+no.pem can't be read/,
  ],
  "base64": [
    kubeconfig(SERVER, "client-key-data: '%'\nclient-certificate-data: QQ=="),
    /user u: client-key-data is not base64$/,
  ],
  "half a certificate": [
    kubeconfig(SERVER, `client-certificate-data: ${btoa("CERT")}`),
    /user u: a client-certificate and a client-key go together/,
  ],
  "a CA and none": [
    kubeconfig(`${SERVER}\ninsecure-skip-tls-verify: true\ncertificate-authority-data: QQ==`, "{}"),
    /has a certificate-authority and insecure-skip-tls-verify/,
  ],
  "a password": [
    kubeconfig(SERVER, "username: u\npassword: p"),
    /no passwords since Kubernetes 1.19/,
  ],
  "somebody else": [kubeconfig(SERVER, "as: other\ntoken: t"), /denim acts as nobody else/],
  "an old plugin": [kubeconfig(SERVER, "auth-provider: {name: gcp}"), /none since Kubernetes 1.26/],
  "an old plugin's version": [
    kubeconfig(SERVER, EXEC.replace("k8s.io/v1", "k8s.io/v1alpha1")),
    /exec.apiVersion is "client.authentication.k8s.io\/v1alpha1"/,
  ],
  "a plugin that asks": [
    kubeconfig(SERVER, EXEC.replace("IfAvailable", "Always")),
    /asks a person \(interactiveMode Always\)/,
  ],
  "a plugin that is not there": [
    kubeconfig(SERVER, EXEC),
    /user u: the plugin \S+\/plugin can't be run: .*; install it from the cloud$/,
  ],
  "a plugin that fails": [
    kubeconfig(
      SERVER,
      EXEC.replace("./plugin", "sh").replace("[one]", '["-c","echo no >&2; exit 3"]'),
    ),
    /the plugin sh failed with 3: no$/,
    RuntimeError,
  ],
  "a plugin that says nothing": [
    kubeconfig(SERVER, EXEC.replace("./plugin", "/bin/true")),
    /the plugin \/bin\/true printed no ExecCredential/,
    RuntimeError,
  ],
  "no token": [
    kubeconfig(SERVER, "tokenFile: kubeconfig.token"),
    /tokenFile: \S+kubeconfig.token can't be read/,
  ],
};

for (const [what, [yaml, why, kind = ConfigError]] of Object.entries(WRONG)) {
  Deno.test(`a kubeconfig with ${what} amiss says so`, async () => {
    await assert.rejects(read(yaml), (error: Error) => {
      assert.ok(error instanceof kind, `${error}`);
      assert.match(error.message, why);
      return true;
    });
  });
}

Deno.test("without a kubeconfig the pod's environment says where the server is, then the URL alone", async () => {
  const environment = (host: string) => (name: string) =>
    name === "KUBERNETES_SERVICE_HOST"
      ? host
      : name === "KUBERNETES_SERVICE_PORT"
      ? "443"
      : undefined;
  const serviceAccountDirectory = Deno.makeTempDirSync({ prefix: "denim-account-" });
  try {
    Deno.writeTextFileSync(`${serviceAccountDirectory}/ca.crt`, "CA");
    const open = async (host: string, apiUrl?: string) =>
      await findAccess({ environment: environment(host), serviceAccountDirectory, apiUrl })
        .read(false, signal);
    const pod = await open("fd00::1");
    assert.deepEqual([pod.server, pod.tls.ca], ["https://[fd00::1]:443", "CA"]);
    await assert.rejects(pod.token(signal), /the pod's token: \S+token can't be read/);
    Deno.writeTextFileSync(`${serviceAccountDirectory}/token`, "one\n");
    assert.equal(await pod.token(signal), "one");
    Deno.writeTextFileSync(`${serviceAccountDirectory}/token`, "two\n");
    assert.equal(await pod.token(signal), "two");
    assert.equal((await open("10.0.0.1", "https://other")).server, "https://other");
  } finally {
    Deno.removeSync(serviceAccountDirectory, { recursive: true });
  }
  const alone = await findAccess({ environment: nothing, apiUrl: "http://127.0.0.1:8001" })
    .read(false, signal);
  assert.deepEqual([alone.server, await alone.token(signal)], ["http://127.0.0.1:8001", undefined]);
  assert.throws(() => findAccess({ environment: nothing }), ConfigError);
  assert.throws(
    () => findAccess({ environment: nothing, apiUrl: "10.0.0.1" }),
    /--kube-api-url: "10.0.0.1"/,
  );
});

Deno.test("a proxy and what fetch can't do are refused together, and so is a key that is none", async () => {
  const access = { server: "https://127.0.0.1:1", token: () => Promise.resolve(undefined) };
  const proxyUrl = "http://127.0.0.1:2";
  for (const tls of [{ insecure: true }, { insecure: false, serverName: "x" }]) {
    await assert.rejects(
      openTransport({ ...access, tls, proxyUrl }, 0),
      /a proxy-url does not go together/,
    );
  }
  const tls = { insecure: false, cert: "no", key: "no" };
  await assert.rejects(openTransport({ ...access, tls }, 0), ConfigError);
});

Deno.test("a port that fetch never asks is the configuration's fault, and named", async () => {
  const access = {
    server: "http://127.0.0.1:6000",
    tls: { insecure: false },
    proxyUrl: undefined,
    token: () => Promise.resolve(undefined),
  };
  using transport = await openTransport(access, 0);
  await assert.rejects(
    transport.send({ method: "GET", path: "/", headers: {}, signal }),
    (error) =>
      error instanceof ConfigError && /6000: fetch never asks port 6000/.test(error.message),
  );
});

Deno.test("each connection takes another of a name's addresses", async () => {
  const taken: string[] = [];
  const listeners = ["127.0.0.2", "127.0.0.3"].map((hostname) =>
    Deno.listen({ hostname, port: 0 })
  );
  const [first, second] = listeners.map((one) => (one.addr as Deno.NetAddr).port);
  for (const [port, turn] of [[first, 0], [second, 1], [first, 2]] as const) {
    const access = {
      server: `https://api.test:${port}`,
      tls: { insecure: false },
      token: () => Promise.resolve(undefined),
    };
    const resolve = () => Promise.resolve(["127.0.0.2", "127.0.0.3"]);
    using transport = await openTransport(access, turn, resolve);
    const listener = listeners[turn % 2]!;
    const accepted = listener.accept();
    const sent = transport.send({ method: "GET", path: "/", headers: {}, signal });
    const connection = await accepted;
    taken.push((connection.localAddr as Deno.NetAddr).hostname);
    connection.close();
    await assert.rejects(sent, TransportError);
  }
  assert.deepEqual(taken, ["127.0.0.2", "127.0.0.3", "127.0.0.2"]);
  for (const listener of listeners) listener.close();
});
