/** What the store does when etcd stops, falls silent, forgets, or is one of several. */

import assert from "node:assert/strict";
import { endOf, Follower, lease, node } from "../../../tests/contracts/lease_store.ts";
import { EtcdServer } from "../../../tests/support/etcd_server.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { TcpProxy } from "../../../tests/support/tcp_proxy.ts";
import { eventually, NEVER } from "../../../tests/support/wait.ts";
import { Etcd3 } from "etcd3";
import {
  type Family,
  formatLeaseValue,
  IpAddress,
  type Lease,
  LEASE_TTL_MS,
  MetricsRegistry,
} from "../../mod.ts";
import { type CreateEtcd3, EtcdStore } from "./mod.ts";

const PREFIX = "/coreos.com/network";
const NET_CONF = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}';

function open(log: RecordingLog, ...endpoints: string[]): EtcdStore {
  return EtcdStore.open({ endpoints, prefix: PREFIX, log });
}

/** Waits until requests of a store have failed some times more. */
async function severalAttempts(metrics: MetricsRegistry): Promise<void> {
  const failures = () => metrics.value("denim_store_failures_total", { store: "etcd" })!;
  const before = failures();
  await eventually("several attempts", () => failures() >= before + 3);
}

/** Runs with a signal that is aborted at the end, so that what still waits ends too. */
async function following(
  store: EtcdStore,
  run: (follower: Follower) => Promise<void>,
): Promise<void> {
  const ending = new AbortController();
  const follower = new Follower(store, ending.signal);
  try {
    await run(follower);
  } finally {
    ending.abort();
    await follower.done;
  }
}

function put(server: EtcdServer, lease: Lease): void {
  server.ctl("put", `${PREFIX}/subnets/${lease.key}`, formatLeaseValue(lease));
}

function remove(server: EtcdServer, lease: Lease): void {
  server.ctl("del", `${PREFIX}/subnets/${lease.key}`);
}

/** How etcd can be gone, and what brings it back. */
const OUTAGES: Readonly<
  Record<string, (server: EtcdServer, proxy: TcpProxy) => Promise<() => Promise<void> | void>>
> = {
  "killed and started again": async (server) => {
    await server.stop("SIGKILL");
    return () => server.start();
  },
  "stopped in good order and started again": async (server) => {
    await server.stop("SIGTERM");
    return () => server.start();
  },
  "cut off": (_, proxy) => {
    proxy.cut();
    return Promise.resolve(() => proxy.mend());
  },
};

for (const [how, begin] of Object.entries(OUTAGES)) {
  Deno.test(`etcd ${how}: a watch goes on without a gap, which is said once`, async () => {
    await using server = await EtcdServer.start();
    using proxy = new TcpProxy(server.url);
    const log = new RecordingLog();
    const metrics = new MetricsRegistry();
    await using store = EtcdStore.open({ endpoints: [proxy.url], prefix: PREFIX, log, metrics });
    const [one, two, three, four] = [1, 2, 3, 4].map((n) => lease(`10.5.${n}.0/24`, n)) as [
      Lease,
      Lease,
      Lease,
      Lease,
    ];
    put(server, one);
    await following(store, async (follower) => {
      await follower.sees(one.key);
      put(server, four);
      await follower.sees(one.key, four.key);
      const end = await begin(server, proxy);
      await eventually("it is missed", () => log.count(/^warn outage:/) === 1);
      await severalAttempts(metrics);
      await end();
      put(server, two);
      remove(server, one);
      await eventually(
        "the changes",
        () => follower.leases.has(two.key) && !follower.leases.has(one.key),
      );
      put(server, three);
      await follower.sees(two.key, three.key, four.key);
      assert.equal(follower.events.filter(({ kind }) => kind === "snapshot").length, 1);
      assert.equal(log.count(/^warn/), 1, log.lines.join("\n"));
      assert.equal(log.count(/^info outage-over:/), 1, log.lines.join("\n"));
    });
  });
}

for (const how of ["the process (SIGSTOP)", "the wire"] as const) {
  Deno.test(`etcd falls silent, ${how}: it is noticed; what changed is seen in the end`, async () => {
    await using server = await EtcdServer.start();
    using proxy = new TcpProxy(server.url);
    const log = new RecordingLog();
    await using store = open(log, proxy.url);
    const [one, two] = [lease("10.5.1.0/24", 1), lease("10.5.2.0/24", 2)];
    put(server, one);
    await following(store, async (follower) => {
      await follower.sees(one.key);
      if (how === "the wire") {
        proxy.silence();
        put(server, two);
      } else server.signal("SIGSTOP");
      await eventually("it is noticed", () => log.count(/^warn outage:/) === 1);
      assert.deepEqual([...follower.leases.keys()], [one.key]);
      if (how === "the wire") proxy.mend();
      else {
        server.signal("SIGCONT");
        put(server, two);
      }
      await eventually("the change", () => follower.leases.size === 2);
    });
  });
}

/** The inodes of this process's sockets to a server, by /proc/net/tcp, where 0 is one that it has closed. */
function socketsTo(url: string): string[] {
  const port = Number(new URL(url).port).toString(16).toUpperCase().padStart(4, "0");
  return Deno.readTextFileSync("/proc/net/tcp").split("\n").map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[2]?.endsWith(`:${port}`) && fields[9] !== "0")
    .map((fields) => fields[9]!);
}

Deno.test("a connection that is given up does not wait for a server that can't be reached", async () => {
  await using server = await EtcdServer.start();
  using proxy = new TcpProxy(server.url);
  await using store = open(new RecordingLog(), proxy.url);
  await following(store, async (follower) => {
    await eventually("the snapshot", () => follower.events.length > 0);
    // From now on the other side closes no connection.
    proxy.silence();
    for (let time = 0; time < 3; time++) {
      const before = socketsTo(proxy.url);
      assert.equal(before.length, 1);
      store.reconnect();
      await eventually("another connection", () => {
        const [socket, ...more] = socketsTo(proxy.url);
        return socket !== undefined && more.length === 0 && socket !== before[0];
      });
    }
    proxy.mend();
    const one = lease("10.5.1.0/24", 1);
    put(server, one);
    await follower.sees(one.key);
  });
});

Deno.test("etcd has compacted what a watch waits for: it is handed the difference alone", async () => {
  await using server = await EtcdServer.start();
  using proxy = new TcpProxy(server.url);
  const log = new RecordingLog();
  await using store = open(log, proxy.url);
  const [kept, changed, gone, late] = [1, 2, 3, 4].map((n) => lease(`10.5.${n}.0/24`, n)) as [
    Lease,
    Lease,
    Lease,
    Lease,
  ];
  for (const lease of [kept, changed, gone]) put(server, lease);
  await following(store, async (follower) => {
    await follower.sees(kept.key, changed.key, gone.key);
    proxy.cut();
    await eventually("it is missed", () => log.count(/^warn outage:/) === 1);
    put(server, { ...changed, backendType: "host-gw" });
    remove(server, gone);
    put(server, late);
    server.ctl("compact", `${server.revision()}`);
    proxy.mend();
    await follower.sees(kept.key, changed.key, late.key);
    const [, ...after] = follower.events;
    assert.ok(after.every(({ kind }) => kind === "changes"));
    const put_ = after.flatMap((event) => event.kind === "changes" ? event.put : []);
    const removed = after.flatMap((event) => event.kind === "changes" ? event.removed : []);
    assert.deepEqual(put_.map(({ key }) => key).sort(), [changed.key, late.key].sort());
    assert.deepEqual(removed, [gone.key]);
    // And it is a watch again.
    remove(server, late);
    await follower.sees(kept.key, changed.key);
  });
});

Deno.test("a defect in a watch comes out of it, and is not tried again", async () => {
  await using server = await EtcdServer.start();
  const log = new RecordingLog();
  let broken = false;
  const createEtcd3: CreateEtcd3 = (options) => {
    const etcd = new Etcd3(options);
    const range = etcd.kv.range.bind(etcd.kv);
    etcd.kv.range = (request, options) => {
      if (broken) throw new TypeError("a defect");
      return range(request, options);
    };
    return etcd;
  };
  await using store = EtcdStore.open({ endpoints: [server.url], prefix: PREFIX, log, createEtcd3 });
  const events = store.watch(NEVER);
  assert.ok(!(await events.next()).done);
  const next = events.next();
  put(server, lease("10.5.1.0/24", 1));
  assert.ok(!(await next).done);
  broken = true;
  const failing = assert.rejects(events.next(), { name: "TypeError", message: "a defect" });
  store.reconnect();
  await failing;
  await assert.rejects(store.leases(NEVER), { name: "TypeError", message: "a defect" });
  assert.deepEqual(log.events, []);
});

Deno.test("requests, failures, outages and watches that begin again are counted", async () => {
  await using server = await EtcdServer.start();
  using proxy = new TcpProxy(server.url);
  const log = new RecordingLog();
  const metrics = new MetricsRegistry();
  const value = (what: string) => metrics.value(`denim_store_${what}_total`, { store: "etcd" });
  await using store = EtcdStore.open({ endpoints: [proxy.url], prefix: PREFIX, log, metrics });
  await store.networkConfigText(NEVER);
  assert.deepEqual(["requests", "failures", "outages", "watch_restarts"].map(value), [1, 0, 0, 0]);
  await following(store, async (follower) => {
    await eventually("the snapshot", () => follower.events.length > 0);
    proxy.cut();
    await eventually("it is missed", () => log.of("outage").length > 0);
    proxy.mend();
    await eventually("it is over", () => log.of("outage-over").length > 0);
    assert.equal(value("outages"), 1);
    assert.ok(value("requests")! > 1);
    const one = lease("10.5.1.0/24", 1);
    put(server, one);
    await follower.sees(one.key);
    const before = value("watch_restarts")!;
    store.reconnect();
    await eventually("the watch begins again", () => value("watch_restarts")! > before);
  });
});

Deno.test("etcd is set up again, with nothing in it: what is gone is gone", async () => {
  await using server = await EtcdServer.start();
  const log = new RecordingLog();
  await using store = open(log, server.url);
  const [one, two] = [lease("10.5.1.0/24", 1), lease("10.5.2.0/24", 2)];
  for (let time = 0; time < 20; time++) put(server, one);
  await following(store, async (follower) => {
    await follower.sees(one.key);
    await server.stop();
    server.wipe();
    await server.start();
    put(server, two);
    await follower.sees(two.key);
  });
});

Deno.test("etcd's lease that ends is told, and an end put off is not", async () => {
  await using server = await EtcdServer.start();
  await using store = open(new RecordingLog(), server.url);
  const [short, kept] = [lease("10.5.1.0/24", 1), lease("10.5.2.0/24", 2)];
  const ids = [short, kept].map(({ key, ...rest }) => {
    const id = server.grant(60);
    const value = formatLeaseValue({ key, ...rest });
    server.ctl("put", `${PREFIX}/subnets/${key}`, value, "--lease", id);
    return id;
  });
  await following(store, async (follower) => {
    await follower.sees(short.key, kept.key);
    await store.renew(kept, NEVER);
    // As etcd itself does when its time is over; the other's is ended by the renewal.
    server.ctl("lease", "revoke", ids[0]!);
    await eventually("both are over", () => {
      const living = server.ctl("lease", "list");
      return !ids.some((id) => living.includes(id));
    });
    await follower.sees(kept.key);
    const [left] = await store.leases(NEVER);
    assert.ok(endOf(left!) > Date.now() + LEASE_TTL_MS / 2);
  });
});

Deno.test("etcd away in the middle of it: a node that asks gets its one lease", async () => {
  await using server = await EtcdServer.start();
  using proxy = new TcpProxy(server.url);
  const log = new RecordingLog();
  await using store = open(log, proxy.url);
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  for (let number = 1; number <= 20; number++) {
    const asking = store.acquire(node(number), NEVER);
    // At another moment each time.
    if (number % 2 === 0) await store.held(node(99), NEVER);
    proxy.cut();
    await eventually("it is missed", () => log.count(/^warn outage:/) === number);
    proxy.mend();
    const held = await asking;
    assert.equal((await store.held(node(number), NEVER))!.key, held.key);
    await eventually("it is said", () => log.count(/^info outage-over:/) === number);
  }
  assert.equal((await store.leases(NEVER)).length, 20);
  const leases = server.ctl("lease", "list").split("\n").filter((line) => /^[0-9a-f]+$/.test(line));
  assert.ok(leases.length <= 22, `${leases.length} etcd leases for 20 nodes`);
});

Deno.test("renewals and restarts leave no etcd leases lying about", async () => {
  await using server = await EtcdServer.start();
  await using store = open(new RecordingLog(), server.url);
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  for (let time = 0; time < 5; time++) {
    const held = await store.acquire(node(1), NEVER);
    await store.renew(held, NEVER);
  }
  await store.reserve({
    subnets: (await store.held(node(1), NEVER))!.halves.map(({ subnet }) => subnet),
    publicIps: node(1).publicIps,
  }, NEVER);
  assert.match(server.ctl("lease", "list"), /found 0 leases/);
});

Deno.test("a cluster loses its leader, the member with the watch, and its majority", async () => {
  await using servers = await EtcdServer.startCluster(3);
  const log = new RecordingLog();
  const metrics = new MetricsRegistry();
  const endpoints = servers.map(({ url }) => url);
  await using store = EtcdStore.open({ endpoints, prefix: PREFIX, log, metrics });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  /** The member that serves the watch, and, of the others, one that is made the leader. */
  const members = async (): Promise<{ watched: EtcdServer; leader: EtcdServer }> => {
    let watched: EtcdServer | undefined;
    await eventually("the watch is somewhere", async () => {
      for (const server of servers) if (await server.watches() > 0) watched = server;
      return watched !== undefined;
    });
    let leader: EtcdServer | undefined;
    await eventually("one leads", () => {
      leader = servers.find((server) => server.leads());
      return leader !== undefined;
    });
    if (leader !== watched) return { watched: watched!, leader: leader! };
    const next = servers.find((server) => server !== watched)!;
    watched!.handOver(next);
    await eventually("it leads", () => next.leads());
    return { watched: watched!, leader: next };
  };
  await following(store, async (follower) => {
    const keys = [(await store.acquire(node(0), NEVER)).key];
    await follower.sees(...keys);
    {
      const { watched, leader } = await members();
      await leader.stop("SIGKILL");
      keys.push((await store.acquire(node(1), NEVER)).key);
      await follower.sees(...keys);
      assert.equal(await watched.watches(), 1, "the watch has stayed where it was");
      await leader.start();
    }
    {
      const { watched, leader } = await members();
      await watched.stop("SIGKILL");
      keys.push((await store.acquire(node(2), NEVER)).key);
      await follower.sees(...keys);
      assert.ok(leader.leads(), "the leader has stayed who it was");
      await watched.start();
    }
    // Who is left has no say, and must not keep a watch that hears nothing.
    const { watched } = await members();
    const others = servers.filter((server) => server !== watched);
    const before = log.count(/^warn outage:/);
    for (const server of others) await server.stop("SIGKILL");
    await eventually("it is missed", () => log.count(/^warn outage:/) > before, 30_000);
    await severalAttempts(metrics);
    assert.equal(log.count(/^warn outage:/), before + 1, log.lines.join("\n"));
    await Promise.all(others.map((server) => server.start()));
    keys.push((await store.acquire(node(3), NEVER)).key);
    await follower.sees(...keys);
    assert.ok(follower.events.slice(1).every(({ kind }) => kind === "changes"));
  });
});

Deno.test("one endpoint of several is enough, whatever is wrong with the others", async () => {
  await using server = await EtcdServer.start();
  using refusing = new TcpProxy(server.url);
  refusing.cut();
  const log = new RecordingLog();
  let tries = 0;
  const createEtcd3: CreateEtcd3 = (options) => {
    tries++;
    return new Etcd3(options);
  };
  for (let time = 0; time < 4; time++) {
    await using store = EtcdStore.open({
      endpoints: [
        refusing.url,
        "http://127.0.0.1:9",
        "https://no-such-host.invalid:1",
        server.url,
      ],
      prefix: PREFIX,
      log,
      createEtcd3,
    });
    await store.setNetworkConfig(NET_CONF, { ifAbsent: false }, NEVER);
    // The one that answered is remembered: the others are not tried again.
    const before = tries;
    await store.networkConfig(NEVER);
    assert.equal(tries, before);
  }
  assert.deepEqual(log.lines, []);
});

Deno.test("a silent endpoint does no harm, from the start or later", async () => {
  await using server = await EtcdServer.start();
  using one = new TcpProxy(server.url);
  using other = new TcpProxy(server.url);
  // Listens, as a stopped process does, but never says a word.
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${(silent.addr as Deno.NetAddr).port}`;
  // Each store asks in an order of its own.
  for (let time = 0; time < 8; time++) {
    await using store = open(new RecordingLog(), url, server.url);
    await store.setNetworkConfig(NET_CONF, { ifAbsent: false }, NEVER);
  }
  const log = new RecordingLog();
  await using store = open(log, one.url, other.url);
  const held = await store.acquire(node(1), NEVER);
  await following(store, async (follower) => {
    await follower.sees(held.key);
    // Whichever of the two the watch is on.
    for (const proxy of [one, other]) {
      proxy.silence();
      const added = lease(`10.5.${follower.events.length}.0/24`, 100 + follower.events.length);
      put(server, added);
      await eventually("it", () => follower.leases.has(added.key));
      proxy.mend();
    }
    assert.equal(log.count(/^warn/), 0, log.lines.join("\n"));
  });
});

Deno.test("a proxy in the environment is not for etcd; a server that is no etcd is named", async () => {
  await using server = await EtcdServer.start();
  await using web = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("no such page", { status: 404 }),
  );
  const url = `http://127.0.0.1:${web.addr.port}`;
  Deno.env.set("http_proxy", "http://127.0.0.1:9");
  try {
    await using store = open(new RecordingLog(), url, server.url);
    await store.setNetworkConfig(NET_CONF, { ifAbsent: false }, NEVER);
    await using lost = open(new RecordingLog(), url);
    await assert.rejects(lost.leases(NEVER), {
      name: "RuntimeError",
      message: `etcd:${url}${PREFIX}: ${url}: it is not an etcd: it answers with HTTP status 404`,
    });
  } finally {
    Deno.env.delete("http_proxy");
  }
});

Deno.test("two leases that overlap, written at the same moment: the later one is taken back", async () => {
  await using server = await EtcdServer.start();
  const log = new RecordingLog();
  // A lease of another length, in the moment between the choice and the write.
  let rival: Lease | undefined;
  const createEtcd3: CreateEtcd3 = (options) => {
    const etcd = new Etcd3(options);
    const txn = etcd.kv.txn.bind(etcd.kv);
    etcd.kv.txn = (request, options) => {
      const chosen = request.success?.[0]?.request_put?.key?.toString();
      if (rival === undefined && chosen?.includes("/subnets/")) {
        rival = lease(chosen.split("/").at(-1)!.replace("-24", "/25"), 99);
        put(server, rival);
      }
      return txn(request, options);
    };
    return etcd;
  };
  await using store = EtcdStore.open({
    endpoints: [server.url],
    prefix: PREFIX,
    log,
    createEtcd3,
  });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  const held = await store.acquire(node(1), NEVER);
  assert.ok(!held.halves[0]!.subnet.contains(rival!.halves[0]!.subnet.address), held.key);
  const keys = (await store.leases(NEVER)).map(({ key }) => key).sort();
  assert.deepEqual(keys, [held.key, rival!.key].sort());
  assert.equal(log.of("lease-conflict-undone").length, 1);
});

Deno.test("what has changed since leases were listed, is found before one is chosen or followed", async () => {
  await using server = await EtcdServer.start();
  await using store = open(new RecordingLog(), server.url);
  // Three subnets, of which a former node holds one.
  const netConf = '{"Network":"10.5.0.0/26","SubnetLen":28}';
  await store.setNetworkConfig(netConf, { ifAbsent: true }, NEVER);
  const [a, b, c] = [16, 32, 48].map((part, n) => lease(`10.5.0.${part}/28`, 50 + n));
  for (const lease of [a!, b!, c!]) put(server, lease);
  assert.equal(await store.held(node(1), NEVER), undefined);
  // Full then, but not any more; and as many as before.
  remove(server, b!);
  put(server, lease("10.9.9.0/24", 59));
  assert.equal((await store.acquire(node(1), NEVER)).key, b!.key);
  server.ctl("del", `${PREFIX}/subnets/10.9.9.0-24`);

  // Taken since.
  for (const lease of [a!, b!, c!]) remove(server, lease);
  await using other = open(new RecordingLog(), server.url);
  assert.equal(await other.held(node(2), NEVER), undefined);
  for (const lease of [a!, b!]) put(server, lease);
  assert.equal((await other.acquire(node(2), NEVER)).key, c!.key);
  // What the watch begins with is as of now.
  remove(server, a!);
  await following(other, async (follower) => {
    await eventually("the snapshot", () => follower.events.length > 0);
    await follower.sees(b!.key, c!.key);
    assert.equal(follower.events.length, 1);
    put(server, a!);
    await follower.sees(a!.key, b!.key, c!.key);
  });

  // Of another cluster by now, whose revisions are lower.
  for (let time = 0; time < 20; time++) put(server, a!);
  await using late = open(new RecordingLog(), server.url);
  assert.equal(await late.held(node(3), NEVER), undefined);
  await server.stop();
  server.wipe();
  await server.start();
  await other.setNetworkConfig(netConf, { ifAbsent: true }, NEVER);
  // None is free now, and fewer are there than before.
  put(server, lease("10.5.0.0/27", 50));
  put(server, lease("10.5.0.32/27", 51));
  await assert.rejects(late.acquire(node(3), NEVER), /is full/);
  assert.equal((await late.leases(NEVER)).length, 2);
});

Deno.test("of two leases that overlap the older one's node keeps its own", async () => {
  await using server = await EtcdServer.start();
  const log = new RecordingLog();
  await using store = open(log, server.url);
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  const [older, newer] = [lease("10.5.17.0/24", 1), lease("10.5.16.0/20", 99)];
  put(server, older);
  put(server, newer);
  assert.equal((await store.acquire(node(1), NEVER)).key, older.key);
  server.ctl("del", `${PREFIX}/subnets/${older.key}`);
  put(server, older);
  const other = await store.acquire(node(1), NEVER);
  assert.ok(!newer.halves[0]!.subnet.contains(other.halves[0]!.subnet.address), other.key);
  assert.deepEqual(
    (await store.leases(NEVER)).map(({ key }) => key).sort(),
    [newer.key, other.key].sort(),
  );
  assert.equal(log.of("lease-replaced").length, 1);
});

Deno.test("a dual-stack cluster's node without an address of one family is told which, and gets nothing", async () => {
  await using server = await EtcdServer.start();
  await using store = open(new RecordingLog(), server.url);
  const netConf = { Network: "10.5.0.0/16", EnableIPv6: true, IPv6Network: "fc00:5::/48" };
  await store.setNetworkConfig(JSON.stringify(netConf), { ifAbsent: true }, NEVER);
  const ipv6 = new Map<Family, IpAddress>([[6, IpAddress.parse("fd99::1")]]);
  for (const [request, family] of [[node(1), 6], [node(1, { publicIps: ipv6 }), 4]] as const) {
    await assert.rejects(store.acquire(request, NEVER), {
      name: "RuntimeError",
      message:
        `${store.description}: net-conf enables IPv${family}, for which the node has no public ` +
        `address; give it one, or name one with --public-ip${family === 6 ? "v6" : ""}`,
    });
  }
  assert.deepEqual(await store.leases(NEVER), []);
  assert.match(server.ctl("lease", "list"), /found 0 leases/);
});

Deno.test("without patience etcd's absence is an error that names each endpoint", async () => {
  const endpoints = ["http://127.0.0.1:9", "http://127.0.0.1:10"];
  const log = new RecordingLog();
  await using store = EtcdStore.open({ endpoints, prefix: PREFIX, log, patient: false });
  await assert.rejects(store.leases(NEVER), (error: Error) => {
    assert.equal(error.name, "RuntimeError");
    for (const url of endpoints) assert.ok(error.message.includes(`${url}: connect ECONNREFUSED`));
    return true;
  });
});

Deno.test("values that can't be read are skipped, with one warning each, and harm no other", async () => {
  await using server = await EtcdServer.start();
  const log = new RecordingLog();
  await using store = open(log, server.url);
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  const good = lease("10.5.1.0/24", 1);
  put(server, good);
  const bad: readonly (readonly [key: string, value: string, says: RegExp])[] = [
    ["10.5.2.0-24", "{", /10\.5\.2\.0-24: the value is not JSON/],
    [
      "10.5.3.0-24",
      '{"PublicIP":"nowhere"}',
      /10\.5\.3\.0-24: PublicIP: "nowhere" is not an IP/,
    ],
    [
      "10.5.4.7-24",
      formatLeaseValue(good),
      /10\.5\.4\.7-24: the key does not name a subnet/,
    ],
    [
      "10.5.5.0-24/x",
      formatLeaseValue(good),
      /10\.5\.5\.0-24\/x: the key does not name a subnet/,
    ],
    ["10.5.6.0-24&fc00:5::-64", '{"PublicIP":"10.99.0.6"}', /no public IPv6 address/],
  ];
  for (const [key, value] of bad) server.ctl("put", `${PREFIX}/subnets/${key}`, value);
  await following(store, async (follower) => {
    await follower.sees(good.key);
    const held = await store.acquire(node(7), NEVER);
    await store.acquire(node(7), NEVER);
    await follower.sees(good.key, held.key);
    assert.equal(log.count(/^warn/), bad.length, log.lines.join("\n"));
    for (const [, , says] of bad) assert.equal(log.count(says), 1, `${says}`);
    // A good one that turns bad is gone; one that turns good is there.
    server.ctl("put", `${PREFIX}/subnets/${good.key}`, "[]");
    put(server, lease("10.5.2.0/24", 2));
    await follower.sees("10.5.2.0-24", held.key);
  });
});
