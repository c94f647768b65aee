/** TLS, users and passwords: what gets in, what is refused with which words, and what nobody reads. */

import assert from "node:assert/strict";
import { Follower, lease, node } from "../../../tests/contracts/lease_store.ts";
import { type Certificate, Certificates } from "../../../tests/support/certificates.ts";
import { EtcdServer } from "../../../tests/support/etcd_server.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { eventually, NEVER } from "../../../tests/support/wait.ts";
import { formatLeaseValue, MetricsRegistry } from "../../mod.ts";
import { EtcdStore, type EtcdStoreOptions } from "./mod.ts";

const PREFIX = "/coreos.com/network";
const NET_CONF = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}';
const PASSWORD = "correct-horse-battery-staple";

/** Servers with each kind of certificate, and the certificates. */
class TlsWorld implements AsyncDisposable {
  readonly #certificates = new Certificates();
  readonly ca: Certificate = this.#certificates.authority("ca");
  readonly stranger: Certificate = this.#certificates.authority("stranger");
  readonly client: Certificate = this.#issue("client");
  readonly servers: EtcdServer[] = [];

  #issue(name: string, expired = false): Certificate {
    return this.#certificates.issue(name, this.ca, "DNS:client", { expired });
  }

  get strangersClient(): Certificate {
    return this.#certificates.issue("strangers", this.stranger, "DNS:client");
  }

  get expiredClient(): Certificate {
    return this.#issue("late", true);
  }

  get directory(): string {
    return this.#certificates.directory;
  }

  async server(
    names: string,
    { expired = false, mutual = false }: { expired?: boolean; mutual?: boolean } = {},
  ): Promise<EtcdServer> {
    const name = `server${this.servers.length}`;
    const { cert, key } = this.#certificates.issue(name, this.ca, names, { expired });
    const mutualArgs = ["--client-cert-auth", "--trusted-ca-file", this.ca.cert];
    const server = await EtcdServer.start({
      scheme: "https",
      args: ["--cert-file", cert, "--key-file", key, ...mutual ? mutualArgs : []],
      clientArgs: [
        ...["--cacert", this.ca.cert, "--insecure-skip-tls-verify"],
        ...["--cert", this.client.cert, "--key", this.client.key],
      ],
    });
    this.servers.push(server);
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.servers) await server[Symbol.asyncDispose]();
    this.#certificates[Symbol.dispose]();
  }
}

function byName(url: string): string {
  return url.replace("127.0.0.1", "localhost");
}

/** Uses a store as an agent does, the watch included. */
async function useStore(
  options: Omit<EtcdStoreOptions, "prefix">,
  server: EtcdServer,
): Promise<void> {
  await using store = EtcdStore.open({ ...options, prefix: PREFIX });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  const held = await store.acquire(node(1), NEVER);
  const ending = new AbortController();
  const follower = new Follower(store, ending.signal);
  try {
    await follower.sees(held.key);
    // In no subnet that the node may have.
    const late = lease("10.9.9.0/24", 9);
    server.ctl("put", `${PREFIX}/subnets/${late.key}`, formatLeaseValue(late));
    await follower.sees(held.key, late.key);
    server.ctl("del", `${PREFIX}/subnets/${late.key}`);
    const aheadMs = await store.clockAheadMs(NEVER);
    assert.ok(Math.abs(aheadMs!) < 3_000, `${aheadMs}`);
  } finally {
    ending.abort();
    await follower.done;
  }
}

Deno.test("TLS: by IP and by name, with and without a client certificate", async (t) => {
  await using world = new TlsWorld();
  const { ca, client } = world;
  const names = "IP:127.0.0.1,DNS:localhost";
  for (const mutual of [false, true]) {
    const server = await world.server(names, { mutual });
    const files = {
      caFile: ca.cert,
      ...mutual ? { certFile: client.cert, keyFile: client.key } : {},
    };
    for (const url of [server.url, byName(server.url)]) {
      await t.step(`${new URL(url).hostname}${mutual ? ", client certificate" : ""}`, async () => {
        const log = new RecordingLog();
        await useStore({ endpoints: [url], log, ...files }, server);
        assert.deepEqual(log.lines.filter((line) => !line.startsWith("debug")), []);
      });
    }
  }
});

Deno.test("TLS: what is wrong is refused at once, and said", async (t) => {
  await using world = new TlsWorld();
  const { ca, stranger, client } = world;
  const good = await world.server("IP:127.0.0.1,DNS:localhost");
  const late = await world.server("IP:127.0.0.1,DNS:localhost", { expired: true });
  const elsewhere = await world.server("IP:127.0.0.9,DNS:elsewhere");
  const mutual = await world.server("IP:127.0.0.1", { mutual: true });
  const shows = ({ cert, key }: Certificate) => ({
    caFile: ca.cert,
    certFile: cert,
    keyFile: key,
  });
  const cases: readonly (readonly [
    what: string,
    url: string,
    files: Partial<EtcdStoreOptions>,
    says: RegExp,
  ])[] = [
    [
      "a wrong CA",
      good.url,
      { caFile: stranger.cert },
      /not signed by any of the CAs in .*stranger/,
    ],
    [
      "a wrong CA, by name",
      byName(good.url),
      { caFile: stranger.cert },
      /not signed by any of the CAs in/,
    ],
    ["no CA", good.url, {}, /not signed by any of the system's CAs; give the CA file with its CA/],
    ["expired", late.url, { caFile: ca.cert }, /its certificate has expired/],
    ["expired, by name", byName(late.url), { caFile: ca.cert }, /its certificate has expired/],
    [
      "another IP's",
      elsewhere.url,
      { caFile: ca.cert },
      /for another name: IP: 127\.0\.0\.1 is not in the cert's list: 127\.0\.0\.9/,
    ],
    [
      "another name's",
      byName(elsewhere.url),
      { caFile: ca.cert },
      /for another name: Host: localhost\. is not in .*DNS:elsewhere/,
    ],
    [
      "no client certificate",
      mutual.url,
      { caFile: ca.cert },
      /it requires a client certificate: give the certificate file and the private key file/,
    ],
    [
      "a stranger's client certificate",
      mutual.url,
      shows(world.strangersClient),
      /it refuses the certificate in .*strangers\.crt/,
    ],
  ];
  for (const [what, url, files, says] of cases) {
    await t.step(what, async () => {
      const log = new RecordingLog();
      await using store = EtcdStore.open({ endpoints: [url], prefix: PREFIX, log, ...files });
      await assert.rejects(store.networkConfig(NEVER), { name: "RuntimeError", message: says });
      assert.deepEqual(log.lines, []);
    });
  }

  const unusable: readonly (readonly [Partial<EtcdStoreOptions>, RegExp])[] = [
    [{ caFile: "/nonexistent" }, /^the CA file \/nonexistent can't be read: No such file/],
    [{ caFile: ca.key }, /^the CA file .*ca\.key does not hold a certificate/],
    [
      shows({ cert: client.key, key: client.key }),
      /the certificate file .* does not hold a certificate/,
    ],
    [
      shows({ cert: client.cert, key: client.cert }),
      /the private key file .* does not hold a private key/,
    ],
    [
      shows({ cert: client.cert, key: ca.key }),
      /does not belong to the private key file/,
    ],
    [
      shows(world.expiredClient),
      /the certificate file .*late\.crt has expired: it was valid until/,
    ],
  ];
  for (const [files, message] of unusable) {
    await t.step(`${message}`, () => {
      const options = { endpoints: [good.url], prefix: PREFIX, log: new RecordingLog(), ...files };
      assert.throws(() => EtcdStore.open(options), { name: "ConfigError", message });
    });
  }
});

Deno.test("TLS: messages name settings as the program does", () => {
  const names = {
    caFile: "--etcd-cafile",
    certFile: "--etcd-certfile",
    keyFile: "--etcd-keyfile",
    username: "--etcd-username",
    password: "--etcd-password",
  };
  const options = { endpoints: ["https://127.0.0.1:9"], prefix: PREFIX, log: new RecordingLog() };
  assert.throws(() => EtcdStore.open({ ...options, names, caFile: "/nonexistent" }), {
    name: "ConfigError",
    message: /^--etcd-cafile \/nonexistent can't be read: No such file/,
  });
  assert.throws(() => EtcdStore.open({ ...options, names, certFile: "/nonexistent" }), {
    name: "ConfigError",
    message: "--etcd-certfile and --etcd-keyfile go together: give both or neither",
  });
});

Deno.test("TLS: who was in already waits for a certificate to be mended, and says so", async () => {
  await using world = new TlsWorld();
  const { ca } = world;
  const server = await world.server("IP:127.0.0.1");
  const caFile = `${world.directory}/changing.crt`;
  Deno.copyFileSync(ca.cert, caFile);
  const log = new RecordingLog();
  await using store = EtcdStore.open({ endpoints: [server.url], prefix: PREFIX, log, caFile });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  Deno.copyFileSync(world.stranger.cert, caFile);
  await server.stop();
  const holding = store.acquire(node(1), NEVER);
  await eventually("it says so", () => log.count(/^warn outage: .*ECONNREFUSED/) === 1);
  await server.start();
  await eventually(
    "and says more",
    () => log.count(/^warn outage: .*not signed by any of the CAs in/) === 1,
  );
  Deno.copyFileSync(ca.cert, caFile);
  assert.ok(await holding);
  assert.deepEqual(log.events, ["warn outage", "warn outage", "info outage-over"]);
});

/** Runs etcd_ask.ts with a hosts file of its own, and returns what it prints. */
async function askWithHosts(
  hosts: string,
  options: Omit<EtcdStoreOptions, "log" | "prefix">,
): Promise<string> {
  const file = await Deno.makeTempFile({ prefix: "denim-hosts-" });
  try {
    await Deno.writeTextFile(file, hosts);
    const script = new URL("../../../tests/support/etcd_ask.ts", import.meta.url).pathname;
    const { stdout, stderr, success } = await new Deno.Command("unshare", {
      args: [
        ...["--mount", "sh", "-c", 'mount --bind "$1" /etc/hosts; shift; exec "$@"', "sh", file],
        ...[Deno.execPath(), "run", "-A", "--no-check", script],
        JSON.stringify({ prefix: PREFIX, ...options }),
      ],
      signal: AbortSignal.timeout(30_000),
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout).trim();
  } finally {
    await Deno.remove(file);
  }
}

rootTest(
  "TLS: a name with several addresses, all but one of which refuse, is as good as one",
  async (t) => {
    await using world = new TlsWorld();
    const { ca, stranger } = world;
    const server = await world.server("DNS:etcd.test");
    const elsewhere = await world.server("DNS:elsewhere");
    const mutual = await world.server("DNS:etcd.test", { mutual: true });
    server.ctl("put", `${PREFIX}/config`, NET_CONF);
    const url = (of: EtcdServer) => of.url.replace("127.0.0.1", "etcd.test");
    for (
      const [what, options, says] of [
        ["fine", { endpoints: [url(server)], caFile: ca.cert }, /^there is one$/],
        ["a wrong CA", { endpoints: [url(server)], caFile: stranger.cert }, /not signed by any/],
        ["another name's", { endpoints: [url(elsewhere)], caFile: ca.cert }, /for another name/],
        [
          "no client certificate",
          { endpoints: [url(mutual)], caFile: ca.cert },
          /it requires a client/,
        ],
        [
          "http: where https: is wanted",
          { endpoints: [url(server).replace("https:", "http:")], patient: false },
          /it hangs up; if it requires TLS/,
        ],
      ] as const
    ) {
      await t.step(what, async () => {
        const one = await askWithHosts("127.0.0.1 etcd.test\n", options);
        assert.match(one, says);
        for (const others of [["::1"], ["127.0.0.9"], ["::1", "127.0.0.9", "127.0.0.8"]]) {
          const hosts = [...others, "127.0.0.1"].map((address) => `${address} etcd.test\n`).join(
            "",
          );
          assert.equal(await askWithHosts(hosts, options), one, hosts);
        }
      });
    }
  },
);

Deno.test("TLS: http: where https: is wanted is said", async () => {
  await using world = new TlsWorld();
  const server = await world.server("IP:127.0.0.1");
  const url = server.url.replace("https:", "http:");
  const log = new RecordingLog();
  await using store = EtcdStore.open({ endpoints: [url], prefix: PREFIX, log, patient: false });
  await assert.rejects(store.leases(NEVER), {
    name: "RuntimeError",
    message:
      `etcd:${url}${PREFIX}: ${url}: it hangs up; if it requires TLS, its URL begins with https:`,
  });
});

Deno.test("who may not follow any more is told so, once, and goes on when it may", async () => {
  await using server = await EtcdServer.start();
  server.ctl("user", "add", `root:${PASSWORD}`);
  server.ctl("user", "grant-role", "root", "root");
  const root = ["--user", `root:${PASSWORD}`];
  const log = new RecordingLog();
  const metrics = new MetricsRegistry();
  await using store = EtcdStore.open({ endpoints: [server.url], prefix: PREFIX, log, metrics });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  const ending = new AbortController();
  const follower = new Follower(store, ending.signal);
  await eventually("the snapshot", () => follower.events.length > 0);
  // A watch that stands is not asked again who it is, but one that begins.
  server.ctl("auth", "enable");
  await server.stop();
  await server.start();
  const refused = /^warn outage: .*: etcdserver: user name is empty: give the user's name/;
  await eventually("it is said", () => log.count(refused) === 1);
  const restarts = () => metrics.value("denim_store_watch_restarts_total", { store: "etcd" })!;
  const before = restarts();
  await eventually("several attempts", () => restarts() >= before + 3);
  assert.equal(log.count(refused), 1);
  const one = lease("10.9.9.0/24", 9);
  server.ctl(...root, "put", `${PREFIX}/subnets/${one.key}`, formatLeaseValue(one));
  server.ctl(...root, "auth", "disable");
  await follower.sees(one.key);
  assert.equal(log.count(/^info outage-over: .* can be watched again/), 1);
  ending.abort();
  await follower.done;
});

Deno.test("a user's password lets in, also after etcd has forgotten the session; nobody reads it", async () => {
  await using server = await EtcdServer.start();
  server.ctl("user", "add", `root:${PASSWORD}`);
  server.ctl("user", "grant-role", "root", "root");
  server.ctl("user", "add", `reader:${PASSWORD}`);
  server.ctl("role", "add", "reads");
  server.ctl("role", "grant-permission", "reads", "read", "--prefix=true", PREFIX);
  server.ctl("user", "grant-role", "reader", "reads");
  const root = ["--user", `root:${PASSWORD}`];
  const log = new RecordingLog();
  const open = (username: string | undefined, password: string | undefined) =>
    EtcdStore.open({ endpoints: [server.url], prefix: PREFIX, log, username, password });
  const said: string[] = [];
  const refused = async (store: EtcdStore, message: RegExp) => {
    await assert.rejects(store.acquire(node(2), NEVER), (error: Error) => {
      said.push(`${error.stack}${(error.cause as Error | undefined)?.stack}`);
      assert.equal(error.name, "RuntimeError");
      assert.match(error.message, message);
      return true;
    });
  };
  {
    await using store = open("root", PASSWORD);
    await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
    // What asked for no password until now asks for one.
    server.ctl("auth", "enable");
    const held = await store.acquire(node(1), NEVER);
    const ending = new AbortController();
    const follower = new Follower(store, ending.signal);
    await follower.sees(held.key);
    await server.stop();
    await server.start();
    const one = lease("10.9.9.0/24", 9);
    server.ctl(...root, "put", `${PREFIX}/subnets/${one.key}`, formatLeaseValue(one));
    await follower.sees(held.key, one.key);
    await store.renew(held, NEVER);
    // A change of rights makes tokens void.
    server.ctl(...root, "role", "add", "another");
    await store.renew(held, NEVER);
    ending.abort();
    await follower.done;
  }
  {
    await using store = open("root", `not-${PASSWORD}`);
    await refused(store, /authentication failed, invalid user ID or password/);
  }
  {
    await using store = open(undefined, undefined);
    await refused(store, /user name is empty/);
  }
  {
    await using store = open("reader", PASSWORD);
    assert.ok(await store.networkConfig(NEVER));
    await refused(store, /permission denied/);
  }
  assert.doesNotMatch([...log.lines, ...said].join("\n"), new RegExp(PASSWORD));
});
