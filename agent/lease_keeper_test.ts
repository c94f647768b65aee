import {
  type Cidr,
  type Family,
  IpAddress,
  type Lease,
  leaseHalf,
  MetricsRegistry,
  RuntimeError,
} from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { node } from "../tests/contracts/lease_store.ts";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { SqliteLeases } from "../tests/support/sqlite_leases.ts";
import { eventually, NEVER } from "../tests/support/wait.ts";
import { LeaseKeeper } from "./lease_keeper.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

const OTHER = IpAddress.parse("10.99.7.7");

/** A node that does nothing but keep its lease, in a file that several have open. */
class Keeping implements AsyncDisposable {
  readonly log = new RecordingLog();
  readonly metrics = new MetricsRegistry();
  readonly told: boolean[] = [];
  readonly store: SqliteStore;
  /** Writes leases into the file as a person would, or a clone. */
  readonly byHand: SqliteLeases;
  readonly keeper: LeaseKeeper;
  readonly #stopping = new AbortController();
  #ageMs = 0;
  /** The node's public IP. */
  publicIps: ReadonlyMap<Family, IpAddress> = node(1).publicIps;
  /** What it had in its last run. */
  previousSubnets: readonly Cidr[] = [];
  /** Called when the node is asked what it publishes. */
  onRequest: () => void = () => {};
  /** Settled when the keeper ends. */
  ended: Promise<unknown> = Promise.resolve();

  constructor(readonly path: string) {
    this.store = SqliteStore.open(path, { log: this.log });
    this.byHand = new SqliteLeases(path);
    this.keeper = new LeaseKeeper({
      store: this.store,
      renewMarginMs: 60_000,
      log: this.log,
      metrics: this.metrics,
      request: () => {
        const { publicIps, previousSubnets } = this;
        this.onRequest();
        return node(1, { publicIps, previousSubnets });
      },
      onTaken: (taken) => this.told.push(taken),
      now: () => this.#ageMs + performance.now(),
    });
  }

  async start(wasOwn = false): Promise<Lease> {
    const lease = await this.keeper.acquire(wasOwn, NEVER);
    const { signal } = this.#stopping;
    const hearing = async () => {
      for await (const event of this.store.watch(signal)) this.keeper.hear(event);
    };
    this.ended = Promise.all([this.keeper.run(signal), hearing()]);
    this.ended.catch(() => this.#stopping.abort());
    return lease;
  }

  /** Lets time pass, as far as the keeper's age goes. */
  grow(): void {
    this.#ageMs += 60_000;
  }

  /** Has it stop. */
  stop(): void {
    this.#stopping.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([this.ended]);
    await this.store[Symbol.asyncDispose]();
  }
}

function keeperTest(
  name: string,
  body: (node: Keeping, held: Lease, path: string) => Promise<void>,
): void {
  Deno.test(`lease keeper: ${name}`, async () => {
    using temp = new TempFolder();
    const directory = temp.path;
    await using keeping = new Keeping(`${directory}/denim.db`);
    const conf = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}';
    await keeping.store.setNetworkConfig(conf, { ifAbsent: true }, NEVER);
    await body(keeping, await keeping.start(), `${directory}/denim.db`);
  });
}

async function publicIpOf(node: Keeping, key: string): Promise<string | undefined> {
  const lease = (await node.store.leases(NEVER)).find((lease) => lease.key === key);
  return lease && `${leaseHalf(lease, 4)?.publicIp}`;
}

const under = (lease: Lease, publicIp: IpAddress): Lease => ({
  ...lease,
  halves: lease.halves.map((half) => ({ ...half, publicIp })),
});

keeperTest("what was deleted is claimed again, for the same subnet", async (node, held) => {
  await node.store.release(held.key, NEVER);
  await eventually(
    "the lease is there",
    async () => await publicIpOf(node, held.key) !== undefined,
  );
  assert.deepEqual(node.told, []);
  assert.deepEqual(node.log.events, ["warn lease-gone"]);
  assert.equal(node.metrics.value("denim_lease_claims_total"), 1);
});

keeperTest(
  "a subnet that another node took is left to it, until it lets go",
  async (node, held) => {
    node.byHand.put([under(held, OTHER)]);
    await eventually("the node knows", () => node.told.length > 0);
    assert.deepEqual(node.told, [true]);
    assert.deepEqual(node.log.events, ["error lease-taken"]);
    assert.equal(await publicIpOf(node, held.key), `${OTHER}`);
    assert.equal((await node.store.leases(NEVER)).length, 1, "no other subnet is leased");
    await node.keeper.publish();
    assert.deepEqual(node.told, [true]);
    await node.store.release(held.key, NEVER);
    await eventually("the node has it again", () => node.told.length > 1);
    assert.deepEqual(node.told, [true, false]);
    assert.equal(await publicIpOf(node, held.key), "10.99.0.1");
  },
);

keeperTest("a person may make it a reservation", async (node, held) => {
  const subnets = held.halves.map(({ subnet }) => subnet);
  const reserved = await node.store.reserve({ subnets, publicIps: node.publicIps }, NEVER);
  await eventually("the node knows", () => node.log.of("lease-reserved").length > 0);
  assert.equal(
    (await node.store.held({ publicIps: node.publicIps, previousSubnets: [] }, NEVER))!.revision,
    reserved.revision,
  );
});

keeperTest("another address is published under the same subnet", async (node, held) => {
  node.publicIps = new Map([[4, OTHER]]);
  await node.keeper.publish();
  assert.equal(await publicIpOf(node, held.key), `${OTHER}`);
  assert.equal(node.keeper.lease.key, held.key);
  assert.equal((await node.store.leases(NEVER)).length, 1);
});

keeperTest("of two nodes with one public IP the newcomer ends", async (node, held, path) => {
  await using clone = new Keeping(path);
  assert.equal((await clone.start()).key, held.key);
  await assert.rejects(clone.ended, {
    name: "RuntimeError",
    message: /another node has the public IP 10\.99\.0\.1 .* give this one an address of its own/,
  });
  assert.match(node.log.of("lease-contested")[0]!.message, /with the public IP 10\.99\.0\.1/);
  assert.equal(await publicIpOf(node, held.key), "10.99.0.1");
  assert.deepEqual(node.told, []);
});

keeperTest("what is published while another writing is under way is waited for", async (node) => {
  let later: Promise<void> | undefined;
  node.onRequest = () => {
    node.onRequest = () => {};
    queueMicrotask(() => {
      node.publicIps = new Map([[4, OTHER]]);
      later = node.keeper.publish();
    });
  };
  await node.keeper.publish();
  await later;
  assert.equal(`${leaseHalf(node.keeper.lease, 4)!.publicIp}`, `${OTHER}`);
});

keeperTest("publish() resolves once the keeper has ended", async (node) => {
  const published = node.keeper.publish();
  node.stop();
  await published;
  await node.ended;
  await node.keeper.publish();
});

keeperTest("a defect ends the keeper, and is not tried again", async (node) => {
  node.onRequest = () => {
    throw new TypeError("a defect");
  };
  const published = node.keeper.publish();
  await assert.rejects(node.ended, { name: "TypeError", message: "a defect" });
  await published;
  assert.deepEqual(node.log.events, []);
});

keeperTest("what the store does not take is said once, counted, and tried again", async (node) => {
  let failures = 0;
  node.onRequest = () => {
    if (failures++ < 2) throw new RuntimeError("the store is out of order");
  };
  await node.keeper.publish();
  assert.deepEqual(node.log.events, ["error lease-write-failed"]);
  assert.equal(node.metrics.value("denim_lease_failures_total"), 2);
  assert.equal(node.metrics.value("denim_lease_claims_total"), 1);
});

keeperTest("a clone is refused within moments each time that it starts", async (node, _, path) => {
  for (let times = 0; times < 4; times++) {
    await using clone = new Keeping(path);
    await clone.start();
    await assert.rejects(clone.ended, /another node has the public IP/);
    assert.deepEqual(clone.told, [true], "it attaches no pod");
  }
  const waits = node.log.of("lease-contested").map(({ fields }) => Number(fields["waitMs"]));
  assert.ok(waits.length === 4 && Math.max(...waits) <= 200, `the clone hears of it: ${waits}`);
  assert.deepEqual(node.told, []);
});

keeperTest("of nodes that start at the same time one stays", async (node, held, path) => {
  // All publish the same, as nodes of host-gw do.
  await using one = new Keeping(path);
  await using other = new Keeping(path);
  await Promise.all([one.start(), other.start()]);
  await assert.rejects(one.ended, /another node has the public IP/);
  await assert.rejects(other.ended, /another node has the public IP/);
  assert.deepEqual(node.told, []);
  assert.equal(await publicIpOf(node, held.key), "10.99.0.1");
});

keeperTest(
  "a node that was there before a clone does not end at the clone's first write",
  async (node) => {
    const { path } = node;
    node.stop();
    await node.ended;
    await using again = new Keeping(path);
    const subnets = node.keeper.lease.halves.map(({ subnet }) => subnet);
    again.previousSubnets = subnets;
    const held = await again.start(true);
    const clones = { ...held, halves: [{ ...held.halves[0]!, backendData: { VNI: 99 } }] };
    again.byHand.put([clones]);
    await eventually("it is written again", () => again.keeper.lease.revision! > held.revision!);
    assert.equal(again.log.of("lease-contested").length, 1);
    again.byHand.put([clones]);
    await assert.rejects(
      again.ended,
      /another node has the public IP/,
      "who answers was there first",
    );
  },
);

keeperTest("a reservation written by hand is no clone's doing", async (node, held) => {
  const { subnet, publicIp } = held.halves[0]!;
  const halves = [{ subnet, publicIp, backendData: undefined }];
  node.byHand.put([{ ...held, backendType: "", halves, expiry: "never" }]);
  await eventually("it says what the node publishes", async () => {
    const [lease] = await node.store.leases(NEVER);
    return lease!.backendType === "vxlan" && lease!.expiry === "never";
  });
  assert.deepEqual(node.log.events, ["info lease-reserved"]);
});

keeperTest("a subnet that is given back by hand is the node's again", async (node, held) => {
  node.byHand.put([under(held, OTHER)]);
  await eventually("the node knows", () => node.told.length > 0);
  node.byHand.put([held]);
  await eventually("the node has it again", () => node.told.length > 1);
  assert.deepEqual(node.told, [true, false]);
});

keeperTest(
  "in a store that was restored from a copy the lease is written again",
  async (node, held) => {
    const revision = held.revision! - 1;
    {
      using db = new DatabaseSync(node.path);
      db.prepare("UPDATE leases SET revision = ?, value = json_set(value, '$.BackendData.VNI', 7)")
        .run(revision);
    }
    node.keeper.hear({ kind: "changes", put: [{ ...held, revision }], removed: [] });
    await eventually("it is right again", async () => {
      const [lease] = await node.store.leases(NEVER);
      return JSON.stringify(lease!.halves) === JSON.stringify(held.halves);
    });
    assert.deepEqual(node.log.events, ["warn lease-older"]);
  },
);

keeperTest("a lease that was written over by hand is written again", async (node, held) => {
  node.grow();
  const halves = held.halves.map((half) => ({ ...half, backendData: { VNI: 99 } }));
  node.byHand.put([{ ...held, halves }]);
  await eventually("it is right again", async () => {
    const [lease] = await node.store.leases(NEVER);
    return JSON.stringify(lease!.halves) === JSON.stringify(held.halves);
  });
});
