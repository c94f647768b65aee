import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { endOf, leaseStoreContract } from "../../../tests/contracts/lease_store.ts";
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
} from "../../mod.ts";
import { SqliteStore } from "./mod.ts";

const { signal } = new AbortController();
const PROCESS = new URL("sqlite_process.ts", import.meta.url);
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

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

leaseStoreContract("sqlite", () => {
  const scratch = new Scratch();
  const hand = scratch.open();
  return {
    open: (log) => SqliteStore.open(scratch.path, { log }),
    put: (leases) => hand.putLeases(leases, signal),
    remove: (keys) => hand.removeLeases(keys, signal),
    async [Symbol.asyncDispose]() {
      await hand[Symbol.asyncDispose]();
      scratch[Symbol.dispose]();
    },
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
  const subnets = new Set(keys.map((line) => line!.split(" ")[0]));
  assert.equal(subnets.size, 15, keys.join("\n"));
  await assert.rejects(store.acquire(node(99), signal), {
    message: new RegExp(`^sqlite:${scratch.path}: the network 10.5.0.0/24 is full`),
  });
});

Deno.test("sqlite: SIGKILL in the middle of writes loses nothing committed, and leaves no half", async () => {
  using scratch = new Scratch();
  for (let round = 0; round < 3; round++) {
    let committed = 0;
    await using process = new StoreProcess(PROCESS, scratch.path, "flood", 400);
    await process.ready();
    await process.go();
    // Killed somewhere in the write after this one, wherever it is by then.
    while (committed < 20 + round) committed = Number(await process.line());
    await process[Symbol.asyncDispose]();

    await using store = scratch.open();
    await using events = watching(store);
    const event = await next(events);
    assert.ok(event.kind === "snapshot");
    assert.equal(event.leases.length, 400);
    const times = new Set(
      event.leases.map(({ halves }) => (halves[0]!.backendData as { VNI: number }).VNI),
    );
    assert.equal(times.size, 1, "all of one transaction, or none");
    assert.ok([...times][0]! >= committed, `${[...times]} of ${committed}`);
    await store.putLeases([lease(70_000)], signal);
    await store.removeLeases([lease(70_000).key], signal);
    using db = new DatabaseSync(scratch.path);
    assert.deepEqual({ ...db.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
  }
});

Deno.test("sqlite: another process's lease is seen within 100 ms", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  await using process = new StoreProcess(PROCESS, scratch.path, "acquire", 0, 400);
  await process.ready();
  await process.go();
  const seenAtMs = new Map<string, number>();
  while (seenAtMs.size < 400) {
    const event = await next(events);
    assert.ok(event.kind === "changes");
    for (const { key } of event.put) seenAtMs.set(key, Date.now());
  }
  const delays = [];
  for (let index = 0; index < 400; index++) {
    const [key, askedAtMs] = (await process.line())!.split(" ");
    delays.push(seenAtMs.get(key!)! - Number(askedAtMs));
  }
  assert.ok(median(delays) < 100, `median ${median(delays)} ms`);
  assert.ok(Math.max(...delays) < 2_000, `maximum ${Math.max(...delays)} ms`);
});

Deno.test("sqlite: a host without inotify to spare is told so, and hears of writes all the same", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  await using other = scratch.open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  const { watchFs } = Deno;
  Deno.watchFs = () => {
    throw new Error("Too many open files");
  };
  try {
    await using events = watching(store);
    assert.equal((await next(events)).kind, "snapshot");
    await other.acquire(node(1), signal);
    assert.equal((await next(events)).kind, "changes");
  } finally {
    Deno.watchFs = watchFs;
  }
  assert.match(
    scratch.log.lines.join(),
    /warn .*denim\.db-bell can't be listened to.* Too many open files; .*max_user_instances/,
  );
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
  const complaints = () => scratch.log.lines.filter((line) => line.includes("disk is full"));
  await eventually("the complaint", () => complaints().length > 0);
  db.exec("DROP TRIGGER full");
  assert.deepEqual(await news, { kind: "changes", put: [], removed: [held.key] });
  assert.equal(complaints().length, 1);
});

Deno.test("sqlite: leases run out by the clock, reservations never", async () => {
  using scratch = new Scratch();
  let nowMs = 1_000_000;
  await using store = scratch.open({ now: () => nowMs });
  await using other = scratch.open({ now: () => nowMs });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  const held = await store.acquire(node(1), signal);
  assert.deepEqual(held.expiry, { atMs: nowMs + LEASE_TTL_MS });
  await store.putLeases([lease(7)], signal);
  await using events = watching(other);
  assert.equal((await next(events)).kind, "snapshot");

  nowMs += LEASE_TTL_MS - 1;
  assert.equal((await other.held(node(1), signal))!.key, held.key);
  const renewed = await store.renew(held, signal);
  assert.deepEqual(renewed.expiry, { atMs: nowMs + LEASE_TTL_MS });
  assert.deepEqual(await next(events), { kind: "changes", put: [renewed], removed: [] });

  nowMs += LEASE_TTL_MS;
  const startMs = performance.now();
  assert.deepEqual(await next(events), { kind: "changes", put: [], removed: [held.key] });
  assert.ok(performance.now() - startMs < 1_000);
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

Deno.test("sqlite: a watch tells of the end of a lease within 100 ms", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  const startMs = Date.now() + 50;
  const leases = Array.from({ length: 9 }, (_, index) => lease(index + 1, startMs + index * 60));
  await store.putLeases(leases, signal);
  const delays: number[] = [];
  while (delays.length < leases.length) {
    const event = await next(events);
    assert.ok(event.kind === "changes");
    for (const key of event.removed) {
      delays.push(Date.now() - endOf(leases.find((lease) => lease.key === key)!));
    }
  }
  assert.ok(delays.every((delay) => delay >= 0 && delay < 2_000), `${delays}`);
  assert.ok(median(delays) < 100, `${delays}`);
});

Deno.test("sqlite: a watch that slept for long is told what is new, then everything", async () => {
  using scratch = new Scratch();
  let nowMs = 1_000_000;
  await using store = scratch.open({ now: () => nowMs });
  await store.putLeases([lease(1), lease(2), lease(3)], signal);
  await using asleep = watching(store);
  assert.equal((await next(asleep)).kind, "snapshot");
  await store.removeLeases([lease(2).key], signal);
  nowMs += 60 * 60 * 1000;
  await store.putLeases([lease(4)], signal);
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
  await store.removeLeases([lease(4).key], signal);
  assert.deepEqual(await next(asleep), { kind: "changes", put: [], removed: [lease(4).key] });
});

Deno.test("sqlite: among 20,000 leases one more costs the work of one", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  const { path, log } = scratch;
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  const leases = Array.from({ length: 20_000 }, (_, index) => lease(index, Date.now() + 1e9));
  await store.putLeases(leases, signal);
  let count = 0;
  let told = 0;
  for (; count < leases.length; told++) {
    const event = await next(events);
    assert.ok(event.kind === "changes");
    count += event.put.length;
  }
  assert.ok(told <= 3, `a burst in ${told} events`);
  await using other = SqliteStore.open(path, { log });
  const delays = [];
  for (let number = 20_001; number < 20_022; number++) {
    const startMs = performance.now();
    await other.putLeases([lease(number)], signal);
    const event = await next(events);
    delays.push(performance.now() - startMs);
    assert.ok(event.kind === "changes");
    assert.deepEqual(bare(event.put), [lease(number)]);
  }
  assert.ok(median(delays) < 60, `median ${median(delays)} ms`);
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

Deno.test("sqlite: a lease that can't be read is reported and taken for none", async () => {
  using scratch = new Scratch();
  await using store = scratch.open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, signal);
  await store.putLeases([lease(1), lease(2)], signal);
  await using events = watching(store);
  assert.equal((await next(events)).kind, "snapshot");
  using db = new DatabaseSync(scratch.path);
  const value = '{"PublicIP":"172.16.0.2","BackendType":7}';
  db.prepare("INSERT OR REPLACE INTO leases (key, value) VALUES (?, ?)").run(lease(2).key, value);
  assert.deepEqual(await next(events), { kind: "changes", put: [], removed: [lease(2).key] });
  assert.match(scratch.log.lines.join("\n"), /warn sqlite:.*10\.0\.2\.0-24: BackendType: /);
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
  const expected = ["denim.db 600", "denim.db-bell 600", "denim.db-journal 600"];
  {
    await using store = scratch.open();
    await store.putLeases([lease(1)], signal);
    assert.deepEqual(modes(), expected);
    assert.equal(Deno.statSync(`${scratch.directory}/state`).mode! & 0o777, 0o700);
  }
  Deno.chmodSync(scratch.path, 0o644);
  await using store = scratch.open();
  await store.putLeases([lease(2)], signal);
  assert.deepEqual(modes(), expected);
});
