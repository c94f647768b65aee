/** What the store does when its file is damaged, deleted, replaced, or can't be written. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { Follower, lease, node } from "../../../tests/contracts/lease_store.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { SmallDisk } from "../../../tests/support/small_disk.ts";
import { SqliteLeases } from "../../../tests/support/sqlite_leases.ts";
import { Scratch } from "../../../tests/support/sqlite_scratch.ts";
import { eventually, NEVER } from "../../../tests/support/wait.ts";
import { type Lease, MetricsRegistry } from "../../mod.ts";
import { SqliteStore } from "./mod.ts";

/** Three subnets to lease: the first of a network is never given. */
const NET_CONF = '{"Network":"10.5.0.0/26","SubnetLen":28,"Backend":{"Type":"vxlan"}}';

/** Makes a store with a net-conf and 300 leases, of some 30 pages. */
async function fill(path: string): Promise<void> {
  await using store = SqliteStore.open(path, { log: new RecordingLog() });
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  new SqliteLeases(path).put(
    Array.from({ length: 300 }, (_, n) => lease(`10.${n >> 8}.${n & 255}.0/24`, n)),
  );
}

/** Opens the file and expects one error that names it and says what to do. */
function refuses(path: string, message: RegExp, what = ""): void {
  let error: unknown;
  try {
    SqliteStore.open(path, { log: new RecordingLog() })[Symbol.asyncDispose]();
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error instanceof Error, `opened: ${what}`);
  assert.equal(error.name, "RuntimeError", what);
  assert.ok(error.message.startsWith(`sqlite:${path}: `), error.message);
  assert.match(error.message, message, what);
}

const DAMAGED = /it is damaged, or not an SQLite file; move it away/;

/** What may be where the file should be, and what is said of it. */
const NO_STORES: Readonly<
  Record<string, readonly [make: (path: string) => Promise<void> | void, says: RegExp]>
> = {
  "a text": [
    (path) => Deno.writeTextFileSync(path, "10.5.3.0-24 10.99.0.1\n".repeat(100)),
    DAMAGED,
  ],
  "zeros": [(path) => Deno.writeFileSync(path, new Uint8Array(8192)), DAMAGED],
  "another program's database": [
    (path) => {
      using db = new DatabaseSync(path);
      db.exec("CREATE TABLE songs (title TEXT); PRAGMA user_version = 1");
    },
    /is another program's database; choose another path/,
  ],
  "another version's database": [
    async (path) => {
      await fill(path);
      using db = new DatabaseSync(path);
      db.exec("PRAGMA user_version = 99");
    },
    /was written by another version of denim \(tables of version 99, this one has 1\); run that one/,
  ],
  "a database without its tables": [
    async (path) => {
      await fill(path);
      using db = new DatabaseSync(path);
      db.exec("DROP TABLE leases");
    },
    DAMAGED,
  ],
  "a directory": [(path) => Deno.mkdirSync(path), /is a directory; choose another path/],
  "a store with another's write-ahead log": [
    async (path) => {
      await fill(path);
      Deno.writeFileSync(`${path}-wal`, walOf(path));
    },
    /denim\.db-wal is not this file's; move it away/,
  ],
};

/** A write-ahead log that SQLite would follow: of a copy of the file, of which a row was changed. */
function walOf(path: string): Uint8Array {
  const copy = `${path}-copy`;
  Deno.copyFileSync(path, copy);
  using db = new DatabaseSync(copy);
  db.exec("PRAGMA journal_mode = WAL; DELETE FROM leases");
  const log = Deno.readFileSync(`${copy}-wal`);
  assert.ok(log.length > 4096);
  return log;
}

for (const [what, [make, says]] of Object.entries(NO_STORES)) {
  Deno.test(`sqlite: where the file should be is ${what}, which is said and left as it is`, async () => {
    using scratch = new Scratch();
    const path = `${scratch.directory}/denim.db`;
    await make(path);
    const state = () => {
      const { isFile, mode } = Deno.statSync(path);
      return [mode, isFile && Deno.readFileSync(path).toBase64()];
    };
    const before = state();
    refuses(path, says);
    assert.deepEqual(state(), before);
  });
}

Deno.test("sqlite: a file cut short, wherever, is refused", async () => {
  using scratch = new Scratch();
  const path = `${scratch.directory}/denim.db`;
  await fill(path);
  const whole = Deno.readFileSync(path);
  const pages = whole.length / 4096;
  assert.ok(pages > 20);
  const lengths = [1, 15, 16, 20, 50, 99, 100, 511, 512, 1000, 4095, 4097, whole.length - 1];
  for (let page = 1; page < pages; page++) lengths.push(page * 4096);
  for (const length of lengths) {
    Deno.writeFileSync(path, whole.subarray(0, length));
    refuses(path, DAMAGED, `${length} bytes of ${whole.length}`);
  }
});

Deno.test("sqlite: a page that is lost, overwritten or in another's place is noticed", async () => {
  using scratch = new Scratch();
  const path = `${scratch.directory}/denim.db`;
  await fill(path);
  const whole = Deno.readFileSync(path);
  for (let at = 0; at < whole.length; at += 4096) {
    for (
      const [what, page] of [
        ["zeros", new Uint8Array(4096)],
        ["garbage", new Uint8Array(4096).fill(0x5a)],
        ["the last page", whole.slice(-4096)],
      ] as const
    ) {
      const bytes = whole.slice();
      // The file's own header stays, since what says nothing of itself is no SQLite file at all.
      bytes.set(at === 0 ? page.subarray(100) : page, at === 0 ? 100 : at);
      if (bytes.every((byte, index) => byte === whole[index])) continue;
      Deno.writeFileSync(path, bytes);
      refuses(path, DAMAGED, `page ${at / 4096} is ${what}`);
    }
  }
});

Deno.test("sqlite: a digit of an address that is another is noticed", async () => {
  using scratch = new Scratch();
  const path = `${scratch.directory}/denim.db`;
  await fill(path);
  const text = new TextDecoder("latin1").decode(Deno.readFileSync(path));
  let count = 0;
  for (const match of text.matchAll(/10\.99\.0\.7"|10\.0\.77\.0-24/g)) {
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    bytes[match.index + 3]! ^= 1;
    Deno.writeFileSync(path, bytes);
    refuses(path, DAMAGED, match[0]);
    count++;
  }
  assert.ok(count >= 2);
});

Deno.test("sqlite: an empty file is made a store, with no one else's rights to it", async () => {
  using scratch = new Scratch();
  const path = `${scratch.directory}/denim.db`;
  Deno.writeTextFileSync(path, "");
  await fill(path);
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
});

Deno.test("sqlite: a store with a write-ahead log of its own is taken over with what is in it", async () => {
  using scratch = new Scratch();
  const path = `${scratch.directory}/denim.db`;
  await fill(path);
  const copy = `${scratch.directory}/copy.db`;
  {
    using db = new DatabaseSync(path);
    db.exec("PRAGMA journal_mode = WAL; DELETE FROM leases WHERE key = '10.0.7.0-24'");
    for (const end of ["", "-wal"]) Deno.copyFileSync(path + end, copy + end);
  }
  await using store = SqliteStore.open(copy, { log: scratch.log });
  assert.equal((await store.leases(NEVER)).length, 299);
  assert.throws(() => Deno.statSync(`${copy}-wal`));
  // Read by SQLite's shell or the like, its journal is as it was found.
  await store.acquire(node(1), NEVER);
});

Deno.test("sqlite: a place that can't be made is said", () => {
  using scratch = new Scratch();
  Deno.writeTextFileSync(`${scratch.directory}/file`, "");
  refuses(`${scratch.directory}/file/denim.db`, /File exists/);
});

rootTest("sqlite: without the right to the file it is said, and what to do", async () => {
  using scratch = new Scratch();
  await fill(scratch.path);
  Deno.chownSync(scratch.path, 65534, 65534);
  const { success, stderr } = await new Deno.Command("setpriv", {
    args: [
      ...["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"],
      ...[Deno.execPath(), "run", "-A", "--no-check"],
      ...[
        new URL("../../../tests/support/sqlite_process.ts", import.meta.url).pathname,
        scratch.path,
        "acquire",
        "1",
        "1",
      ],
    ],
  }).output();
  assert.ok(!success);
  const text = new TextDecoder().decode(stderr);
  assert.match(
    text,
    /RuntimeError: sqlite:.*denim\.db: .*may not be read and written by this user/,
  );
});

rootTest(
  "sqlite: on a disk that is full or read-only a node is told so; who reads, reads",
  async () => {
    using disk = new SmallDisk();
    const path = `${disk.directory}/denim.db`;
    const log = new RecordingLog();
    const refused = async (store: SqliteStore, says: RegExp) => {
      await assert.rejects(store.acquire(node(1), NEVER), (error: Error) => {
        assert.equal(error.name, "RuntimeError");
        assert.ok(error.message.startsWith(`sqlite:${path}: `), error.message);
        assert.match(error.message, says);
        return true;
      });
    };
    disk.fill();
    refuses(path, /disk is full: make room on its file system/);
    disk.empty();
    {
      await using store = SqliteStore.open(path, { log });
      await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
      new SqliteLeases(path).put([lease("10.5.0.16/28", 9)]);
      disk.fill();
      await refused(store, /disk is full: make room on its file system/);
      assert.equal((await store.leases(NEVER)).length, 1);
      disk.empty();
    }
    disk.makeReadOnly();
    {
      await using store = SqliteStore.open(path, { log });
      await refused(store, /it or its file system is read-only; make it writable/);
      assert.equal((await store.leases(NEVER)).length, 1);
      assert.equal(await store.networkConfigText(NEVER), NET_CONF);
    }
    refuses(`${disk.directory}/other.db`, /it or its file system is read-only/);
    assert.deepEqual(log.lines, []);
  },
);

/** Two agents' stores, each with a lease, which follow each other. */
class FileCluster implements AsyncDisposable {
  readonly scratch: Scratch;
  readonly path: string;
  readonly logs: readonly RecordingLog[] = [new RecordingLog(), new RecordingLog()];
  /** What both count together. */
  readonly metrics = new MetricsRegistry();
  readonly stores: readonly SqliteStore[];
  readonly leases: Lease[] = [];
  readonly followers: Follower[] = [];
  readonly #keepers: Promise<void>[] = [];
  readonly #ending = new AbortController();

  constructor(path?: string) {
    this.scratch = new Scratch();
    this.path = path ?? this.scratch.path;
    const { metrics } = this;
    this.stores = this.logs.map((log) => SqliteStore.open(this.path, { log, metrics }));
  }

  static async start(path?: string): Promise<FileCluster> {
    const cluster = new FileCluster(path);
    const [first] = cluster.stores;
    await first!.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
    for (const [index, store] of cluster.stores.entries()) {
      const lease = await store.acquire(node(index + 1), NEVER);
      cluster.leases.push(lease);
      cluster.followers.push(new Follower(store, cluster.#ending.signal));
      cluster.#keepers.push(cluster.#keep(store, lease, index + 1));
    }
    for (const follower of cluster.followers) await follower.sees(...cluster.keys);
    return cluster;
  }

  /** Claims a lease again if it is gone, as an agent does. */
  async #keep(store: SqliteStore, { key, halves }: Lease, number: number): Promise<void> {
    const previousSubnets = halves.map(({ subnet }) => subnet);
    for await (const event of store.watch(this.#ending.signal)) {
      const lacks = event.kind === "snapshot"
        ? !event.leases.some((lease) => lease.key === key)
        : event.removed.includes(key);
      if (lacks) await store.acquire(node(number, { previousSubnets, only: true }), NEVER);
    }
  }

  get keys(): string[] {
    return this.leases.map(({ key }) => key);
  }

  /** No one was ever told that a node which lives, but for itself, is gone, or is another. */
  #lostNobody(): void {
    for (const [number, { events }] of this.followers.entries()) {
      for (const [index, event] of events.entries()) {
        const snapshot = event.kind === "snapshot";
        const others = this.keys.toSpliced(number, 1);
        if (!snapshot) assert.ok(!event.removed.some((key) => others.includes(key)));
        const told = snapshot ? event.leases : event.put;
        for (const { key, halves } of this.leases) {
          const lease = told.find((lease) => lease.key === key);
          if (lease !== undefined) assert.deepEqual(lease.halves, halves);
          // The first snapshot may have been before the second lease.
          else assert.ok(!snapshot || index === 0, `${key} is missing in event ${index}`);
        }
      }
    }
  }

  /** Both leases are in the file, as they were, and the net-conf. */
  async isWhole(): Promise<void> {
    for (const [index, store] of this.stores.entries()) {
      const held = async () => (await store.held(node(index + 1), NEVER))?.key === this.keys[index];
      await eventually("its own subnet", held);
      assert.equal(await store.networkConfigText(NEVER), NET_CONF);
    }
    await this.#seen(...this.keys);
  }

  /** Waits until uses of the file have failed some times more. */
  async severalAttempts(): Promise<void> {
    const failures = () => this.metrics.value("denim_store_failures_total", { store: "sqlite" })!;
    const before = failures();
    await eventually("several attempts", () => failures() >= before + 3);
  }

  /** A third node comes, and gets the third subnet. */
  async takesOneMore(): Promise<void> {
    await using store = SqliteStore.open(this.path, { log: new RecordingLog() });
    const { key } = await store.acquire(node(3), NEVER);
    assert.ok(!this.keys.includes(key), `${key} is a living node's`);
    await this.#seen(...this.keys, key);
  }

  async #seen(...keys: string[]): Promise<void> {
    for (const follower of this.followers) await follower.sees(...keys);
    this.#lostNobody();
  }

  /** How often each said what fits a pattern; see {@link RecordingLog.count}. */
  said(pattern: RegExp): number[] {
    return this.logs.map((log) => log.count(pattern));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    for (const follower of this.followers) await follower.done;
    await Promise.all(this.#keepers);
    for (const store of this.stores) await store[Symbol.asyncDispose]();
    this.scratch[Symbol.dispose]();
  }
}

/** How a file is lost, with what agents do about it by themselves. */
const LOSSES: Readonly<Record<string, (path: string) => void>> = {
  "the file alone": (path) => Deno.removeSync(path),
  "the file and all beside it": (path) => {
    for (const end of ["", "-journal", "-signal"]) Deno.removeSync(path + end);
  },
  "its directory": (path) => Deno.removeSync(path.replace(/\/[^/]*$/, ""), { recursive: true }),
  "what is in it": (path) => Deno.truncateSync(path),
};

for (const [what, lose] of Object.entries(LOSSES)) {
  Deno.test(`sqlite: deleted while agents run, ${what}: it is recreated, with all who live`, async () => {
    await using cluster = await FileCluster.start();
    lose(cluster.path);
    const noticedMs = await eventually(
      "it is noticed",
      () => cluster.said(/^warn outage: .*the file is gone/).some((count) => count > 0),
    );
    // Who looks late, as on a busy machine, finds the file that the other has made.
    const madeMs = await eventually(
      "both use it again",
      () => cluster.said(/^(info outage-over|warn store-replaced):/).every((count) => count > 0),
    );
    await cluster.isWhole();
    assert.ok(cluster.said(/^warn outage:/).every((count) => count <= 1), "said once");
    console.log(
      `sqlite: deleted, ${what}: noticed after ${noticedMs.toFixed(0)} ms, ` +
        `recreated after ${(noticedMs + madeMs).toFixed(0)} ms`,
    );
  });

  Deno.test(`sqlite: deleted while agents run, ${what}: who starts meanwhile takes no one's subnet`, async () => {
    await using cluster = await FileCluster.start();
    lose(cluster.path);
    // A program takes longer to start than the others to write their signal's file again.
    await eventually("the signal", () => existsSync(`${cluster.path}-signal`));
    await cluster.takesOneMore();
  });
}

/** Puts bytes in the file's place, as a person does: with mv, or with cp over what is there. */
const WAYS: Readonly<Record<string, (path: string, bytes: Uint8Array) => void>> = {
  "renamed over it": (path, bytes) => {
    Deno.writeFileSync(`${path}-new`, bytes);
    Deno.renameSync(`${path}-new`, path);
  },
  "copied over it": (path, bytes) => Deno.writeFileSync(path, bytes),
};

/** A copy of the store from before: one node's subnet is still a former node's, the other's is free. */
function olderCopy(cluster: FileCluster): Uint8Array {
  const path = `${cluster.scratch.directory}/older.db`;
  Deno.copyFileSync(cluster.path, path);
  using db = new DatabaseSync(path);
  const [first, second] = cluster.keys;
  db.prepare("UPDATE leases SET value = replace(value, '10.99.0.1', '10.99.0.77') WHERE key = ?")
    .run(first!);
  db.prepare("DELETE FROM leases WHERE key = ?").run(second!);
  db.exec("UPDATE sqlite_sequence SET seq = seq - 1");
  return Deno.readFileSync(path);
}

for (const [way, put] of Object.entries(WAYS)) {
  Deno.test(`sqlite: an older copy ${way}: all who live are in it soon, and lost nobody`, async () => {
    await using cluster = await FileCluster.start();
    put(cluster.path, olderCopy(cluster));
    await eventually(
      "both have noticed",
      () => cluster.said(/^warn store-replaced:/).every((count) => count === 1),
    );
    await cluster.isWhole();
    assert.deepEqual(cluster.said(/^(warn|error)/), [1, 1]);
    // And what changes is told as ever.
    new SqliteLeases(cluster.path).put([lease("10.9.9.0/24", 9)]);
    const told = () => cluster.followers.every(({ leases }) => leases.has("10.9.9.0-24"));
    await eventually("one more", told);
  });
}

Deno.test("sqlite: an older copy renamed over it: who starts meanwhile takes no one's subnet", async () => {
  await using cluster = await FileCluster.start();
  WAYS["renamed over it"]!(cluster.path, olderCopy(cluster));
  await cluster.takesOneMore();
});

Deno.test("sqlite: who slept while the file was recreated claims its subnet, but not another's", async () => {
  using scratch = new Scratch();
  const open = () => SqliteStore.open(scratch.path, { log: scratch.log });
  // Stores that are not used look at no file.
  await using sleepers = new AsyncDisposableStack();
  const [early, late] = [sleepers.use(open()), sleepers.use(open())];
  await early.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  const held = [await early.acquire(node(1), NEVER), await late.acquire(node(2), NEVER)] as const;
  const [first, second] = held.map(({ halves }) => halves.map(({ subnet }) => subnet));
  Deno.removeSync(scratch.path);
  await using store = open();
  await store.setNetworkConfig(NET_CONF, { ifAbsent: true }, NEVER);
  // Waits until those who live had their time.
  await store.reserve({ subnets: second!, publicIps: node(3).publicIps }, NEVER);
  const again = await early.acquire(node(1, { previousSubnets: first!, only: true }), NEVER);
  assert.equal(again.key, held[0].key);
  await assert.rejects(
    late.acquire(node(2, { previousSubnets: second!, only: true }), NEVER),
    { name: "LeaseLostError" },
  );
  assert.equal((await store.held(node(3), NEVER))!.key, held[1].key);
});

/** What may become of the file while agents run, what is said of it, and what mends it. */
const TROUBLES: Readonly<
  Record<
    string,
    readonly [harm: (path: string) => void, says: RegExp, mend: (path: string) => void]
  >
> = {
  "cut short": [
    (path) => Deno.truncateSync(path, Deno.statSync(path).size - 8192),
    DAMAGED,
    (path) => Deno.renameSync(path, `${path}-bad`),
  ],
  "cut short to some bytes": [
    (path) => Deno.truncateSync(path, 50),
    DAMAGED,
    (path) => Deno.renameSync(path, `${path}-bad`),
  ],
  "overwritten with garbage": [
    (path) => Deno.writeFileSync(path, new Uint8Array(40_960).fill(0x5a)),
    DAMAGED,
    (path) => Deno.removeSync(path),
  ],
  "another program's": [
    (path) => {
      {
        using db = new DatabaseSync(`${path}-songs`);
        db.exec("CREATE TABLE songs (title TEXT)");
      }
      Deno.renameSync(path, `${path}-good`);
      Deno.renameSync(`${path}-songs`, path);
    },
    /is another program's database/,
    (path) => Deno.renameSync(`${path}-good`, path),
  ],
  "another version's": [
    (path) => {
      Deno.copyFileSync(path, `${path}-good`);
      using db = new DatabaseSync(path);
      db.exec("PRAGMA user_version = 99; DROP TABLE leases");
    },
    /was written by another version of denim/,
    (path) => Deno.renameSync(`${path}-good`, path),
  ],
  "a directory": [
    (path) => {
      Deno.renameSync(path, `${path}-good`);
      Deno.mkdirSync(path);
    },
    /is a directory/,
    (path) => {
      Deno.removeSync(path);
      Deno.renameSync(`${path}-good`, path);
    },
  ],
  "joined by another's write-ahead log": [
    (path) => Deno.writeFileSync(`${path}-wal`, walOf(path)),
    /denim\.db-wal is not this file's/,
    (path) => Deno.removeSync(`${path}-wal`),
  ],
};

for (const [what, [harm, says, mend]] of Object.entries(TROUBLES)) {
  Deno.test(`sqlite: the file is ${what} while agents run: it is waited for, which is said once`, async () => {
    await using cluster = await FileCluster.start();
    harm(cluster.path);
    await eventually(
      "it is noticed",
      () => cluster.said(/^warn outage:/).every((count) => count === 1),
    );
    let renewed: Lease | undefined;
    cluster.stores[0]!.renew(cluster.leases[0]!, NEVER).then((lease) => renewed = lease, () => {});
    await cluster.severalAttempts();
    assert.deepEqual(cluster.said(/^(warn|error)/), [1, 1]);
    assert.deepEqual(cluster.said(says), [1, 1]);
    mend(cluster.path);
    await eventually(
      "it is used again",
      () => cluster.said(/^info outage-over:/).every((count) => count > 0),
    );
    await eventually("the renewal", () => renewed?.key === cluster.keys[0]);
    await cluster.isWhole();
  });
}

rootTest("sqlite: no room while agents run: they go on, and renew when there is some", async () => {
  using disk = new SmallDisk();
  await using cluster = await FileCluster.start(`${disk.directory}/denim.db`);
  disk.fill();
  const [store] = cluster.stores;
  const renewing = store!.renew(cluster.leases[0]!, NEVER);
  const full = /^warn outage: .*disk is full: make room on its file system/;
  await eventually("it is said", () => cluster.said(full)[0] === 1);
  await cluster.severalAttempts();
  assert.equal((await store!.held(node(2), NEVER))!.key, cluster.keys[1]);
  assert.deepEqual(cluster.said(/^(warn|error)/), [1, 0]);
  disk.empty();
  assert.equal((await renewing).key, cluster.keys[0]);
  await cluster.isWhole();
});

Deno.test("sqlite: a command does not wait for a file in trouble", async () => {
  using scratch = new Scratch();
  await using store = scratch.open({ patient: false });
  Deno.writeTextFileSync(scratch.path, "no database");
  await assert.rejects(store.leases(NEVER), DAMAGED);
  Deno.removeSync(scratch.path);
  await assert.rejects(store.leases(NEVER), /the file is gone; running agents recreate it/);
  assert.throws(() => Deno.statSync(scratch.path));
});
