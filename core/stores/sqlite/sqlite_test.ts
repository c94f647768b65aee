import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { endOf, leaseStoreContract } from "../../../tests/contracts/lease_store.ts";
import { SqliteLeases } from "../../../tests/support/sqlite_leases.ts";
import { Scratch } from "../../../tests/support/sqlite_scratch.ts";
import { StoreProcess } from "../../../tests/support/store_process.ts";
import { eventually } from "../../../tests/support/wait.ts";
import {
  Cidr,
  type Family,
  IpAddress,
  type Lease,
  LEASE_TTL_MS,
  type LeaseEvent,
  leaseKey,
  type LeaseRequest,
  MetricsRegistry,
} from "../../mod.ts";
import { SqliteStore } from "./mod.ts";

const { signal } = new AbortController();
const PROCESS = new URL("../../../tests/support/sqlite_process.ts", import.meta.url);
const NET_CONF = '{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}';

function node(number: number, previousSubnets: readonly Cidr[] = []): LeaseRequest {
  return {
    publicIps: new Map([[4 as Family, new IpAddress(4, BigInt(0x0a63_0000 + number))]]),
    previousSubnets,
    backendType: "vxlan",
    backendData: new Map(),
  };
}

function lease(number: number, endMs?: number): Lease {
  const subnet = new Cidr(new IpAddress(4, BigInt(0x0a00_0000 + number * 256)), 24);
  const publicIp = new IpAddress(4, BigInt(0xac10_0000 + number));
  const half = { subnet, publicIp, backendData: { VNI: 1, VtepMAC: "02:0a:00:00:00:01" } };
  const expiry = endMs === undefined ? "never" : { atMs: endMs };
  return { key: leaseKey([subnet]), backendType: "vxlan", halves: [half], expiry };
}

/** Leases without the numbers of their writes. */
function bare(leases: readonly Lease[]): Lease[] {
  return leases.map(({ revision: _, ...rest }) => rest);
}

/** A watch whose events are taken one by one. */
function watching(store: SqliteStore): AsyncIterator<LeaseEvent> & AsyncDisposable {
  const ending = new AbortController();
  const events = store.watch(ending.signal);
  return {
    next: () => events.next(),
    async [Symbol.asyncDispose]() {
      ending.abort();
      await events.return();
    },
  };
}

/** The next event, which a store that works has not kept back for long. */
async function next(events: AsyncIterator<LeaseEvent>): Promise<LeaseEvent> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("no event within 20 s")), 20_000);
  try {
    return (await Promise.race([events.next(), late.promise])).value;
  } finally {
    clearTimeout(timer);
  }
}

/** An interval of reading that never comes: what a watch reports was signalled, or is the end of a lease. */
const NO_POLL = { pollMs: Infinity };

leaseStoreContract("sqlite", () => {
  const scratch = new Scratch();
  return {
    open: (log) => SqliteStore.open(scratch.path, { log }),
    put: (leases) => Promise.resolve(scratch.leases.put(leases)),
    remove: (keys) => Promise.resolve(scratch.leases.remove(keys)),
    [Symbol.asyncDispose]: () => Promise.resolve(scratch[Symbol.dispose]()),
  };
});

Deno.test("sqlite: processes that race, from the making of the file on, get different subnets", async () => {
  using scratch = new Scratch();
  await using stack = new AsyncDisposableStack();
  const processes = [0, 1, 2].map((index) =>
    stack.use(new StoreProcess(PROCESS, scratch.path, "acquire", index * 5, 5))
  );
  await Promise.all(processes.map((process) => process.ready()));
  await using store = scratch.open();
  await store.setNetworkConfig(
    '{"Network":"10.5.0.0/24","SubnetLen":28}',
    { ifAbsent: true },
    signal,
  );
  await Promise.all(processes.map((process) => process.go()));
  const keys = await Promise.all(
    processes.flatMap((process) => Array.from({ length: 5 }, () => process.line())),
  );
  assert.equal(new Set(keys).size, 15, keys.join("\n"));
  await assert.rejects(store.acquire(node(99), signal), {
    message: new RegExp(`^sqlite:${scratch.path}: the network 10.5.0.0/24 is full`),
  });
});

Deno.test("sqlite: SIGKILL in the middle of writes loses nothing committed, and leaves no half", async () => {
  using scratch = new Scratch();
  {
    await using store = scratch.open();
    await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  }
  for (let round = 0; round < 3; round++) {
    let committed = 0;
    await using process = new StoreProcess(PROCESS, scratch.path, "flood", 20);
    await process.ready();
    await process.go();
    // Killed somewhere in the write after this one, wherever it is by then.
    while (committed < 50 + round) committed = Number(await process.line());
    await process[Symbol.asyncDispose]();

    await using store = scratch.open();
    await using events = watching(store);
    const event = await next(events);
    assert.ok(event.kind === "snapshot");
    const writes = event.leases.map(({ halves }) => (halves[0]!.backendData as { VNI: number }).VNI)
      .sort((a, b) => a - b);
    // One of each node, and none older than the node's last write but one.
    assert.equal(writes.length, 20);
    assert.ok(writes.at(-1)! >= committed, `${writes} of ${committed}`);
    assert.deepEqual(writes, writes.map((_, index) => writes[0]! + index));
    const { key } = await store.acquire(node(70_000), signal);
    await store.release(key, signal);
    using db = new DatabaseSync(scratch.path);
    assert.deepEqual({ ...db.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
  }
});

Deno.test("sqlite: another process's writes are signalled, each of them", async () => {
  using scratch = new Scratch();
  await using store = scratch.open(NO_POLL);
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  await using process = new StoreProcess(PROCESS, scratch.path, "acquire", 0, 100);
  await process.ready();
  await process.go();
  const seen = new Set<string>();
  while (seen.size < 100) {
    const event = await next(events);
    assert.ok(event.kind === "changes");
    for (const { key } of event.put) seen.add(key);
  }
  assert.deepEqual([...seen].sort(), (await process.rest()).sort());
});

Deno.test("sqlite: a host without inotify to spare is told so, and hears of writes all the same", async () => {
  using scratch = new Scratch();
  await using store = scratch.open({
    ...NO_POLL,
    watchFile: () => {
      throw new Error("Too many open files");
    },
  });
  await using other = scratch.open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  await other.acquire(node(1), signal);
  assert.equal((await next(events)).kind, "changes");
  const [warning] = scratch.log.of("store-signal-failed");
  assert.match(warning!.message, /denim\.db-signal .* Too many open files; .*max_user_instances/);
});

Deno.test("sqlite: a watch lives on where what ran out can't be cleared away", async () => {
  using scratch = new Scratch();
  let nowMs = 1_000_000;
  await using store = scratch.open({ now: () => nowMs });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  const held = await store.acquire(node(1), signal);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  using db = new DatabaseSync(scratch.path);
  db.exec(
    "CREATE TRIGGER full BEFORE INSERT ON leases WHEN NEW.value IS NULL " +
      "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
  );
  const news = next(events);
  nowMs += LEASE_TTL_MS;
  const complaints = () => scratch.log.of("lease-expiry-failed");
  await eventually("the complaint", () => complaints().length > 0);
  db.exec("DROP TRIGGER full");
  assert.deepEqual(await news, { kind: "changes", put: [], removed: [held.key] });
  assert.equal(complaints().length, 1);
});

Deno.test("sqlite: a defect in a watch comes out of it, and is not tried again", async () => {
  using scratch = new Scratch();
  let broken = false;
  const now = () => {
    if (broken) throw new TypeError("a defect");
    return 1_000_000;
  };
  await using store = scratch.open({ now });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  await store.acquire(node(1), signal);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  broken = true;
  await assert.rejects(next(events), { name: "TypeError", message: "a defect" });
  await assert.rejects(store.held(node(1), signal), { name: "TypeError", message: "a defect" });
  assert.deepEqual(scratch.log.events, []);
});

Deno.test("sqlite: requests, failures and outages are counted", async () => {
  using scratch = new Scratch();
  const metrics = new MetricsRegistry();
  const value = (what: string) => metrics.value(`denim_store_${what}_total`, { store: "sqlite" });
  await using store = scratch.open({ metrics });
  await store.networkConfigText(signal);
  assert.deepEqual([value("requests"), value("failures"), value("outages")], [1, 0, 0]);
  Deno.removeSync(scratch.path);
  await store.networkConfigText(signal);
  assert.equal(value("outages"), 1);
  assert.ok(value("failures")! > 0);
  assert.equal(value("requests"), value("failures")! + 2);
});

Deno.test("sqlite: leases run out by the clock, reservations never", async () => {
  using scratch = new Scratch();
  let nowMs = 1_000_000;
  await using store = scratch.open({ now: () => nowMs });
  await using other = scratch.open({ now: () => nowMs });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  const held = await store.acquire(node(1), signal);
  assert.deepEqual(held.expiry, { atMs: nowMs + LEASE_TTL_MS });
  scratch.leases.put([lease(7)]);
  await using events = watching(other);
  assert.equal((await next(events)).kind, "snapshot");

  nowMs += LEASE_TTL_MS - 1;
  assert.equal((await other.held(node(1), signal))!.key, held.key);
  const renewed = await store.renew(held, signal);
  assert.deepEqual(renewed.expiry, { atMs: nowMs + LEASE_TTL_MS });
  assert.deepEqual(await next(events), { kind: "changes", put: [renewed], removed: [] });

  nowMs += LEASE_TTL_MS;
  assert.deepEqual(await next(events), { kind: "changes", put: [], removed: [held.key] });
  assert.equal(await store.held(node(1), signal), undefined);
  await assert.rejects(store.renew(renewed, signal), { name: "LeaseLostError" });
  // Its subnet is free, for another too.
  const subnet = held.halves[0]!.subnet;
  assert.equal((await store.acquire(node(2, [subnet]), signal)).key, held.key);
});

Deno.test("sqlite: what has run out is nobody's, watched or not", async () => {
  using scratch = new Scratch();
  let nowMs = 1_000_000;
  await using store = scratch.open({ now: () => nowMs });
  await store.setNetworkConfig('{"Network":"10.5.0.0/28"}', { ifAbsent: true }, signal);
  const full = [];
  for (let number = 0; number < 3; number++) full.push(await store.acquire(node(number), signal));
  nowMs += LEASE_TTL_MS;
  assert.equal(await store.held(node(1), signal), undefined);
  await assert.rejects(store.renew(full[1]!, signal), { name: "LeaseLostError" });
  for (let number = 10; number < 13; number++) await store.acquire(node(number), signal);
  await assert.rejects(store.acquire(node(13), signal), /is full/);
});

Deno.test("sqlite: a watch waits for the end of each lease, and reports it then", async () => {
  using scratch = new Scratch();
  await using store = scratch.open(NO_POLL);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  const startMs = Date.now() + 50;
  const leases = Array.from({ length: 9 }, (_, index) => lease(index + 1, startMs + index * 60));
  scratch.leases.put(leases);
  const removed: string[] = [];
  while (removed.length < leases.length) {
    const event = await next(events);
    assert.ok(event.kind === "changes");
    for (const key of event.removed) {
      assert.ok(
        Date.now() >= endOf(leases.find((lease) => lease.key === key)!),
        "not before its end",
      );
      removed.push(key);
    }
  }
});

Deno.test("sqlite: a watch that slept for long is told what is new, then everything", async () => {
  using scratch = new Scratch();
  let nowMs = 1_000_000;
  await using store = scratch.open({ now: () => nowMs });
  const leases = new SqliteLeases(scratch.path, () => nowMs);
  leases.put([lease(1), lease(2), lease(3)]);
  await using asleep = watching(store);
  assert.equal((await next(asleep)).kind, "snapshot");
  await store.release(lease(2).key, signal);
  nowMs += 60 * 60 * 1000;
  leases.put([lease(4)]);
  // Any write of a store deletes old traces.
  await store.release("no such key", signal);
  using db = new DatabaseSync(scratch.path);
  assert.deepEqual({ ...db.prepare("SELECT count(*) AS count FROM leases").get() }, { count: 3 });
  const all = [lease(1), lease(3), lease(4)];
  const told = await next(asleep);
  assert.ok(told.kind === "changes");
  assert.deepEqual([bare(told.put), told.removed], [[lease(4)], []]);
  // What is gone is told when those who live had the time to come back.
  const gone = next(asleep);
  nowMs += 3_000;
  const rest = await gone;
  assert.ok(rest.kind === "snapshot");
  assert.deepEqual(bare(rest.leases), all);
  // From there on it is told of changes again.
  await store.release(lease(4).key, signal);
  assert.deepEqual(await next(asleep), { kind: "changes", put: [], removed: [lease(4).key] });
});

Deno.test("sqlite: among 20,000 leases one more costs the work of one", async () => {
  using scratch = new Scratch();
  await using store = scratch.open(NO_POLL);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  const leases = Array.from({ length: 20_000 }, (_, index) => lease(index, Date.now() + 1e9));
  scratch.leases.put(leases);
  let count = 0;
  let told = 0;
  for (; count < leases.length; told++) {
    const event = await next(events);
    assert.ok(event.kind === "changes");
    count += event.put.length;
  }
  assert.ok(told <= 3, `a burst in ${told} events`);
  for (let number = 20_001; number < 20_022; number++) {
    scratch.leases.put([lease(number)]);
    const event = await next(events);
    assert.ok(event.kind === "changes");
    assert.deepEqual([bare(event.put), event.removed], [[lease(number)], []]);
  }
});

Deno.test("sqlite: one who has the file locked is waited for, without a standstill", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  using db = new DatabaseSync(scratch.path);
  db.exec("BEGIN IMMEDIATE");
  const ending = new AbortController();
  const reason = new Error("no more time");
  const given = assert.rejects(store.acquire(node(1), ending.signal), (error) => error === reason);
  const acquiring = store.acquire(node(2), signal);
  let ticks = 0;
  await eventually("time goes on", () => ++ticks > 5);
  ending.abort(reason);
  await given;
  assert.equal(await store.held(node(2), signal), undefined, "who only reads need not wait");
  db.exec("COMMIT");
  assert.equal((await acquiring).halves.length, 1);
  assert.equal(await store.held(node(1), signal), undefined);
});

Deno.test("sqlite: a lease that can't be read is reported and ignored", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  scratch.leases.put([lease(1), lease(2)]);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  using db = new DatabaseSync(scratch.path);
  const value = '{"PublicIP":"172.16.0.2","BackendType":7}';
  db.prepare("INSERT OR REPLACE INTO leases (key, value) VALUES (?, ?)").run(lease(2).key, value);
  assert.deepEqual(await next(events), { kind: "changes", put: [], removed: [lease(2).key] });
  assert.equal(scratch.log.count(/^warn lease-unreadable: .*10\.0\.2\.0-24: BackendType: /), 1);
  assert.throws(
    () => db.prepare("INSERT INTO leases (key, value) VALUES ('10.0.3.0-24', '{')").run(),
    /malformed JSON/,
  );
});

Deno.test("sqlite: net-conf that went wrong in the file is refused, with the file's name", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  using db = new DatabaseSync(scratch.path);
  db.exec("UPDATE state SET net_conf = '{}'");
  const expected = {
    name: "ConfigError",
    message: /^sqlite:.*denim\.db: net-conf: Network is missing/,
  };
  await assert.rejects(store.networkConfig(signal), expected);
  await assert.rejects(store.acquire(node(1), signal), expected);
});

Deno.test("sqlite: files are their owner's alone", async () => {
  using scratch = new Scratch();
  const modes = () =>
    [...Deno.readDirSync(`${scratch.directory}/state`)].map(({ name }) =>
      `${name} ${(Deno.statSync(`${scratch.directory}/state/${name}`).mode! & 0o777).toString(8)}`
    ).sort();
  const expected = ["denim.db 600", "denim.db-journal 600", "denim.db-signal 600"];
  {
    await using store = scratch.open();
    await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
    assert.deepEqual(modes(), expected);
    assert.equal(Deno.statSync(`${scratch.directory}/state`).mode! & 0o777, 0o700);
  }
  Deno.chmodSync(scratch.path, 0o644);
  await using store = scratch.open();
  await store.acquire(node(1), signal);
  assert.deepEqual(modes(), expected);
});
