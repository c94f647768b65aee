/**
 * What every `LeaseStore` does: one table of cases, which each store's test runs.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  Cidr,
  expiryMs,
  type Family,
  IpAddress,
  type Lease,
  LEASE_TTL_MS,
  type LeaseAdmin,
  type LeaseEvent,
  leaseHalf,
  leaseKey,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
} from "@denim/core";
import { RecordingLog } from "../support/recording_log.ts";
import { eventually } from "../support/wait.ts";

/** What agents and administrators need, in one. */
type AnyStore = LeaseStore & LeaseAdmin;

/** An empty place for leases that stores open on, and what tests alone do to it. */
export interface LeaseStoreBacking extends AsyncDisposable {
  /** Opens one more store on it. */
  open(log: Logger): AnyStore | Promise<AnyStore>;
  /** Writes leases as they are, as a person would by hand; those without expiry are reservations. */
  put(leases: readonly Lease[]): Promise<void>;
  /** Deletes leases, as a person would by hand. */
  remove(keys: readonly string[]): Promise<void>;
}

/** Registers the contract's tests for one kind of store. Each gets a backing of its own. */
export function leaseStoreContract(
  name: string,
  openBacking: () => LeaseStoreBacking | Promise<LeaseStoreBacking>,
): void {
  for (const [what, run] of Object.entries(CASES)) {
    Deno.test(`${name}: ${what}`, async () => {
      await using backing = await openBacking();
      const log = new RecordingLog();
      await using store = await backing.open(log);
      await using other = await backing.open(log);
      const ending = new AbortController();
      const late = Promise.withResolvers<never>();
      const timer = setTimeout(() => late.reject(new Error("the case takes too long")), CASE_MS);
      try {
        const { signal } = ending;
        await Promise.race([run({ backing, store, other, log, signal }), late.promise]);
      } finally {
        clearTimeout(timer);
        ending.abort();
      }
    });
  }
}

/** What a case works with. */
interface Setup {
  readonly backing: LeaseStoreBacking;
  readonly store: AnyStore;
  /** Another on the same backing. */
  readonly other: AnyStore;
  /** What both say. */
  readonly log: RecordingLog;
  /** Aborted when the case is over. */
  readonly signal: AbortSignal;
}

/** How long a case waits for one condition. */
const PATIENCE_MS = 30_000;
/** How long a case may take, on a machine that is busy with others. */
const CASE_MS = 60_000;

/** 15 subnets, 10.5.0.16 to 10.5.0.240. */
const SMALL = '{"Network":"10.5.0.0/24","SubnetLen":28,"Backend":{"Type":"vxlan"}}';
const LARGE = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}';
const DUAL = '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48"}';
const IPV6_ALONE = '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}';

/** A node that asks, known by the last part of its addresses. */
export function node(number: number, request: Partial<LeaseRequest> = {}): LeaseRequest {
  return {
    publicIps: new Map<Family, IpAddress>([[4, publicIp(number)]]),
    previousSubnets: [],
    backendType: "vxlan",
    backendData: new Map([[4 as Family, { VNI: 1, VtepMAC: "02:0a:05:00:00:01" }]]),
    ...request,
  };
}

function dualNode(ipv4: number, ipv6: number = ipv4): LeaseRequest {
  const publicIps = new Map<Family, IpAddress>([
    [4, publicIp(ipv4)],
    [6, IpAddress.parse(`fd99::${ipv6}`)],
  ]);
  const backendData = new Map<Family, unknown>([[4, { VNI: 1 }], [6, { VNI: 2 }]]);
  return node(ipv4, { publicIps, backendData });
}

function publicIp(number: number): IpAddress {
  return new IpAddress(4, 0x0a63_0000n + BigInt(number));
}

/** A lease as a person might write it. */
export function lease(subnet: string, number: number, endMs?: number): Lease {
  const cidr = Cidr.parse(subnet);
  const half = { subnet: cidr, publicIp: publicIp(number), backendData: { VNI: 1 } };
  const expiry = endMs === undefined ? "never" : { atMs: endMs };
  return { key: leaseKey([cidr]), backendType: "vxlan", halves: [half], expiry };
}

/** When a lease ends that has an end, in milliseconds since 1970. */
export function endOf({ key, expiry }: Lease): number {
  const endMs = expiryMs(expiry);
  assert.ok(endMs !== undefined, `${key} ends ${expiry}`);
  return endMs;
}

const soon = () => Date.now() + LEASE_TTL_MS;

function subnetOf(lease: Lease | undefined, family: Family = 4): string {
  return `${lease && leaseHalf(lease, family)?.subnet}`;
}

/** The leases as a watch tells them, and the events that it tells. */
export class Follower {
  /** All events so far. */
  readonly events: LeaseEvent[] = [];
  /** The leases as they are by now. */
  readonly leases: Map<string, Lease> = new Map();
  /** Settles when the watch has ended. */
  readonly done: Promise<void>;

  /** Follows until the signal is aborted. */
  constructor(store: LeaseStore, signal: AbortSignal) {
    this.done = this.#follow(store, signal);
  }

  async #follow(store: LeaseStore, signal: AbortSignal): Promise<void> {
    for await (const event of store.watch(signal)) {
      this.events.push(event);
      if (event.kind === "snapshot") this.leases.clear();
      else for (const key of event.removed) this.leases.delete(key);
      for (const lease of event.kind === "snapshot" ? event.leases : event.put) {
        this.leases.set(lease.key, lease);
      }
    }
  }

  /** Waits until exactly these leases are there. */
  async sees(...keys: string[]): Promise<void> {
    const wanted = keys.toSorted().join(" ");
    const seen = () => [...this.leases.keys()].toSorted().join(" ");
    await eventually(`the watch tells ${wanted}`, () => seen() === wanted, PATIENCE_MS);
  }
}

const CASES: Readonly<Record<string, (setup: Setup) => Promise<void>>> = {
  "a note is every node's to read, until it is taken away": async ({ store, other, signal }) => {
    const notes = async () => Object.fromEntries((await other.notes!(signal))!);
    const note = (text: string) => ({ text, summary: `It says ${text}.` });
    assert.deepEqual(await notes(), {});
    await store.writeNote!("10.5.1.0-24", undefined, signal);
    await store.writeNote!("10.5.1.0-24", note("one"), signal);
    await other.writeNote!("10.5.2.0-24", note("two"), signal);
    await store.writeNote!("10.5.1.0-24", note("three"), signal);
    assert.deepEqual(await notes(), { "10.5.1.0-24": "three", "10.5.2.0-24": "two" });
    await store.writeNote!("10.5.1.0-24", undefined, signal);
    assert.deepEqual(await notes(), { "10.5.2.0-24": "two" });
    assert.equal((await other.leases(signal)).length, 0);
  },

  "net-conf is waited for, which is said once": async ({ store, other, log, signal }) => {
    const waiting = store.networkConfig(signal);
    await eventually("it says so", () => log.of("net-conf-awaited").length > 0);
    assert.equal(await other.setNetworkConfig(LARGE, { ifAbsent: true }, signal), true);
    assert.equal(`${(await waiting).families[0]!.network}`, "10.5.0.0/16");
    assert.deepEqual(log.events, ["info net-conf-awaited"]);
    assert.ok(log.lines[0]!.includes(store.description), log.lines[0]!);
  },

  "net-conf is replaced, but not with ifAbsent": async ({ store, other, signal }) => {
    const length = async () => (await other.networkConfig(signal)).families[0]!.subnetLength;
    assert.equal(await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal), true);
    assert.equal(await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal), false);
    assert.equal(await length(), 24);
    assert.equal(await store.setNetworkConfig(SMALL, { ifAbsent: false }, signal), true);
    assert.equal(await length(), 28);
  },

  "net-conf that can't be used is not written": async ({ store, signal }) => {
    for (const text of ["{", "{}", '{"Network":"10.5.0.0/16","SubnetMin":"10.5.3.7"}']) {
      for (const ifAbsent of [true, false]) {
        await assert.rejects(store.setNetworkConfig(text, { ifAbsent }, signal), {
          name: "ConfigError",
        });
      }
    }
    assert.equal(await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal), true);
  },

  "net-conf's text is told as it was written": async ({ store, other, signal }) => {
    assert.equal(await store.networkConfigText(signal), undefined);
    const text = `${LARGE}  \n`;
    await store.setNetworkConfig(text, { ifAbsent: false }, signal);
    assert.equal(await other.networkConfigText(signal), text);
  },

  "a wait for net-conf ends when it is aborted": async ({ store, log }) => {
    const ending = new AbortController();
    const waiting = store.networkConfig(ending.signal);
    await eventually("it waits", () => log.lines.length > 0);
    const reason = new Error("no more time");
    ending.abort(reason);
    await assert.rejects(waiting, (error) => error === reason);
  },

  "what is aborted already is not begun": async ({ store, signal }) => {
    await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal);
    const held = await store.acquire(node(1), signal);
    const reason = new Error("too late");
    const aborted = AbortSignal.abort(reason);
    for (
      const call of [
        () => store.networkConfig(aborted),
        () => store.setNetworkConfig(LARGE, { ifAbsent: false }, aborted),
        () => store.held(node(1), aborted),
        () => store.acquire(node(2), aborted),
        () => store.renew(held, aborted),
      ]
    ) await assert.rejects(call, (error) => error === reason);
    for await (const _ of store.watch(aborted)) assert.fail("an event");
    const follower = new Follower(store, signal);
    await follower.sees(held.key);
  },

  "a node gets a lease, with what it publishes, for a day": async ({ store, other, signal }) => {
    await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal);
    const beforeMs = Date.now();
    const held = await store.acquire(node(1), signal);
    const { subnet, publicIp, backendData } = held.halves[0]!;
    assert.ok(Cidr.parse("10.5.0.0/24").contains(subnet));
    assert.equal(subnet.prefixLength, 28);
    assert.notEqual(`${subnet}`, "10.5.0.0/28");
    assert.equal(`${publicIp}`, "10.99.0.1");
    assert.deepEqual(backendData, { VNI: 1, VtepMAC: "02:0a:05:00:00:01" });
    assert.equal(held.backendType, "vxlan");
    assert.equal(held.key, leaseKey([subnet]));
    // etcd counts in seconds.
    assert.ok(endOf(held) >= beforeMs + LEASE_TTL_MS - 2_000, `${endOf(held)}`);
    assert.ok(endOf(held) <= Date.now() + LEASE_TTL_MS + 2_000, `${endOf(held)}`);

    const follower = new Follower(other, signal);
    await follower.sees(held.key);
    const told = follower.leases.get(held.key)!;
    assert.deepEqual(told.halves, held.halves);
    assert.equal(told.backendType, held.backendType);
  },

  "udp's leases have neither type nor data": async ({ store, other, signal }) => {
    await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal);
    const request = node(1, { backendType: "", backendData: new Map() });
    const { key } = await store.acquire(request, signal);
    const follower = new Follower(other, signal);
    await follower.sees(key);
    assert.equal(follower.leases.get(key)!.backendType, "");
    assert.equal(follower.leases.get(key)!.halves[0]!.backendData, undefined);
  },

  "the same node gets the same subnet, and its new values": async ({ store, other, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    assert.equal(await store.held(node(1), signal), undefined);
    const first = await store.acquire(node(1), signal);
    const again = await other.acquire(
      node(1, { backendType: "host-gw", backendData: new Map() }),
      signal,
    );
    assert.equal(again.key, first.key);
    assert.equal(again.backendType, "host-gw");
    assert.deepEqual([first.wasHeld, again.wasHeld], [undefined, true]);
    const held = await store.held(node(1), signal);
    assert.equal(held!.key, first.key);
    assert.equal(held!.backendType, "host-gw");
    assert.equal(held!.halves[0]!.backendData, undefined);
    assert.equal(await store.held(node(2), signal), undefined);
  },

  "the last run's subnet is taken again, if it is free": async ({ store, backing, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    await backing.put([lease("10.5.9.0/24", 9, soon()), lease("10.5.16.0/20", 16, soon())]);
    for (
      const [index, [subnet, taken]] of ([
        ["10.5.7.0/24", true],
        ["10.5.9.0/24", false], // Another node's.
        ["10.5.17.0/24", false], // In another node's.
        ["10.5.8.0/25", false], // Of another length.
        ["10.6.7.0/24", false], // Of another network.
        ["10.5.0.0/24", false], // The network's first.
      ] as const).entries()
    ) {
      const previousSubnets = [Cidr.parse(subnet)];
      const held = await store.acquire(node(100 + index, { previousSubnets }), signal);
      assert.equal(subnetOf(held) === subnet, taken, subnet);
    }
  },

  "a reservation stays one": async ({ store, other, backing, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    await backing.put([lease("10.5.7.0/24", 1), lease("10.5.8.0/24", 2, soon())]);
    const reserved = await store.acquire(node(1), signal);
    assert.equal(subnetOf(reserved), "10.5.7.0/24");
    assert.equal(reserved.expiry, "never");
    assert.equal((await other.renew(reserved, signal)).expiry, "never");
    assert.equal((await other.held(node(1), signal))!.expiry, "never");
    const leased = await store.acquire(node(2), signal);
    assert.equal(subnetOf(leased), "10.5.8.0/24");
    assert.ok(endOf(leased) > 0);
  },

  "no subnet holds a host's address: the node's, another node's, or one that the node knows":
    async (
      { store, log, signal },
    ) => {
      // Subnets 1 to 3 of four addresses, and a node in each but the last.
      const conf = '{"Network":"10.5.0.0/28","SubnetLen":30,"Backend":{"Type":"vxlan"}}';
      await store.setNetworkConfig(conf, { ifAbsent: false }, signal);
      const address = (text: string) => IpAddress.parse(text);
      const at = (text: string, router: string, more: Partial<LeaseRequest> = {}) =>
        node(1, {
          publicIps: new Map([[4 as Family, address(text)]]),
          hostNetwork: {
            hosts: [
              { address: address(text), whose: "this node" },
              { address: address(router), whose: "this node's router" },
            ],
            links: [],
          },
          ...more,
        });
      const first = await store.acquire(at("10.5.0.5", "10.5.0.10"), signal);
      assert.equal(subnetOf(first), "10.5.0.12/30");
      // What the first one's lease tells, the second need not know.
      await assert.rejects(store.acquire(at("10.5.0.9", "10.99.0.254"), signal), {
        name: "RuntimeError",
        message:
          /is full: .* holds a host's address \(10\.5\.0\.9 of this node, 10\.5\.0\.5 of the node of/,
      });
      // A lease that holds a host by now gives way when its node starts, and not while it runs.
      const late = at("10.5.0.5", "10.5.0.14");
      const previousSubnets = first.halves.map(({ subnet }) => subnet);
      const kept = await store.acquire({ ...late, previousSubnets, only: true }, signal);
      assert.equal(kept.key, first.key);
      assert.equal(subnetOf(await store.acquire(late, signal)), "10.5.0.8/30");
      assert.match(
        log.of("lease-replaced")[0]!.message,
        /holds 10\.5\.0\.14, the address of this node's router/,
      );
      await assert.rejects(
        store.reserve(
          { subnets: [Cidr.parse("10.5.0.4/30")], publicIps: node(9).publicIps },
          signal,
        ),
        {
          name: "RuntimeError",
          message: /holds 10\.5\.0\.5, the address of the node of 10\.5\.0\.8-30/,
        },
      );
    },

  "a reservation is made, found by its node, and given up": async (
    { store, other, signal },
  ) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const subnets = [Cidr.parse("10.5.7.0/24")];
    const { publicIps } = node(1);
    const reserved = await store.reserve({ subnets, publicIps }, signal);
    assert.deepEqual(
      [reserved.key, reserved.backendType, reserved.expiry],
      ["10.5.7.0-24", "", "never"],
    );
    assert.deepEqual(await other.reserve({ subnets, publicIps }, signal), reserved);
    const held = await other.acquire(node(1), signal);
    assert.deepEqual([held.key, held.backendType], [reserved.key, "vxlan"]);
    assert.equal(held.expiry, "never");
    assert.equal(await other.release(held.key, signal), true);
    assert.equal(await store.release(held.key, signal), false);
    assert.equal(await store.held(node(1), signal), undefined);
  },

  "a lease is made a reservation, with what its node publishes": async ({ store, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const held = await store.acquire(node(1), signal);
    const subnets = held.halves.map(({ subnet }) => subnet);
    const reserved = await store.reserve({ subnets, publicIps: node(1).publicIps }, signal);
    assert.deepEqual(reserved, { ...held, expiry: "never", revision: reserved.revision });
    assert.deepEqual(await store.held(node(1), signal), reserved);
    assert.equal((await store.renew(held, signal)).expiry, "never");
  },

  "what can't be reserved is refused, and says why": async ({ store, backing, signal }) => {
    const reserve = (subnet: string, number: number) =>
      store.reserve({ subnets: [Cidr.parse(subnet)], publicIps: node(number).publicIps }, signal);
    await assert.rejects(reserve("10.5.7.0/24", 1), {
      name: "RuntimeError",
      message: /there is no net-conf yet/,
    });
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    await backing.put([lease("10.5.8.0/24", 2, soon()), lease("10.5.16.0/20", 3)]);
    for (
      const [subnet, number, name, message] of [
        ["10.6.7.0/24", 1, "ConfigError", /net-conf leases a \/24 from 10\.5\.1\.0 to/],
        ["10.5.7.0/25", 1, "ConfigError", /10\.5\.7\.0\/25 can't be reserved/],
        ["10.5.8.0/24", 1, "RuntimeError", /10\.5\.8\.0-24 is leased to 10\.99\.0\.2/],
        ["10.5.17.0/24", 1, "RuntimeError", /10\.5\.16\.0-20 is leased to 10\.99\.0\.3/],
        ["10.5.9.0/24", 2, "RuntimeError", /its node holds 10\.5\.8\.0-24/],
      ] as const
    ) await assert.rejects(reserve(subnet, number), { name, message }, subnet);
    assert.equal((await store.leases(signal)).length, 2);
  },

  "leases are told with their ends": async ({ store, backing, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    assert.deepEqual(await store.leases(signal), []);
    const beforeMs = Date.now();
    const endMs = beforeMs + LEASE_TTL_MS / 2;
    await backing.put([lease("10.5.7.0/24", 1), lease("10.5.8.0/24", 2, endMs)]);
    const held = await store.acquire(node(3), signal);
    const leases = new Map((await store.leases(signal)).map((lease) => [lease.key, lease]));
    assert.equal(leases.size, 3);
    assert.equal(leases.get("10.5.7.0-24")!.expiry, "never");
    // etcd counts in seconds, from when it is told, and until it tells.
    const offMs = 2_000 + Date.now() - beforeMs;
    assert.ok(Math.abs(endOf(leases.get("10.5.8.0-24")!) - endMs) <= offMs);
    assert.ok(Math.abs(endOf(leases.get(held.key)!) - endOf(held)) <= offMs);
    assert.deepEqual(leases.get(held.key)!.halves, held.halves);
  },

  "a node whose address is another keeps its lease": async ({ store, other, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const held = await store.acquire(node(1), signal);
    const previousSubnets = held.halves.map(({ subnet }) => subnet);
    const previousPublicIps = node(1).publicIps;
    const follower = new Follower(other, signal);
    await follower.sees(held.key);
    // The new address may still be a gone node's.
    const gone = await store.acquire(node(2), signal);
    const moved = await store.acquire(
      node(2, { previousSubnets, previousPublicIps, only: true }),
      signal,
    );
    assert.equal(moved.key, held.key);
    assert.deepEqual(moved.halves[0]!.publicIp, node(2).publicIps.get(4));
    assert.ok(moved.revision! > gone.revision!, "a later write");
    const { halves, revision } = (await other.held(node(2, { previousSubnets }), signal))!;
    assert.deepEqual({ halves, revision }, { halves: moved.halves, revision: moved.revision });
    // A node that did not hold it at that address does not get it.
    const stranger = node(3, { previousSubnets, previousPublicIps: node(4).publicIps });
    assert.equal(await store.held(stranger, signal), undefined);
    assert.notEqual((await store.acquire(stranger, signal)).key, held.key);
  },

  "a node that can do with no other subnet gets it, or none": async ({ store, other, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const held = await store.acquire(node(1), signal);
    const previousSubnets = held.halves.map(({ subnet }) => subnet);
    const request = node(1, { previousSubnets, only: true });
    await store.release(held.key, signal);
    assert.equal((await store.acquire(request, signal)).key, held.key);
    await store.release(held.key, signal);
    await other.reserve({ subnets: previousSubnets, publicIps: node(2).publicIps }, signal);
    await assert.rejects(store.acquire(request, signal), {
      name: "LeaseLostError",
      message: /is another node's now/,
    });
    assert.equal(await store.held(node(1), signal), undefined);
    await other.release(held.key, signal);
    assert.equal((await store.acquire(request, signal)).key, held.key);
    // Pods live in it, so it is kept whatever net-conf says by now; but once released it is not leased again.
    await other.setNetworkConfig(SMALL, { ifAbsent: false }, signal);
    const previousPublicIps = node(1).publicIps;
    const kept = await store.acquire(
      node(2, { previousSubnets, previousPublicIps, only: true }),
      signal,
    );
    assert.deepEqual([kept.key, kept.halves[0]!.publicIp], [held.key, publicIp(2)]);
    await other.release(held.key, signal);
    await assert.rejects(store.acquire(request, signal), {
      name: "LeaseLostError",
      message: /net-conf does not allow/,
    });
  },

  "each write of a lease has a later revision, which the watch tells": async (
    { store, other, signal },
  ) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const first = await store.acquire(node(1), signal);
    const second = await other.acquire(node(1), signal);
    const third = await store.renew(second, signal);
    assert.ok(first.revision! < second.revision! && second.revision! < third.revision!);
    assert.equal((await other.held(node(1), signal))!.revision, third.revision);
    for await (const event of store.watch(signal)) {
      assert.ok(event.kind === "snapshot");
      assert.deepEqual(event.leases.map(({ revision }) => revision), [third.revision]);
      break;
    }
  },

  "nodes that race get different subnets, until the network is full": async (
    { store, other, backing, log, signal },
  ) => {
    await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal);
    await using third = await backing.open(log);
    const stores = [store, other, third];
    const leases = await Promise.all(
      Array.from({ length: 15 }, (_, number) => stores[number % 3]!.acquire(node(number), signal)),
    );
    const subnets = new Set(leases.map((lease) => subnetOf(lease)));
    assert.equal(subnets.size, 15);
    assert.ok(!subnets.has("10.5.0.0/28"), "the network's first subnet");
    await assert.rejects(store.acquire(node(99), signal), {
      name: "RuntimeError",
      message: /10\.5\.0\.0\/24 is full/,
    });
    // A node with a subnet keeps it; and what is given up is there for the next.
    assert.equal((await other.acquire(node(3), signal)).key, leases[3]!.key);
    await backing.remove([leases[7]!.key]);
    assert.equal((await store.acquire(node(99), signal)).key, leases[7]!.key);
  },

  "one node that asks twice at once gets one subnet": async ({ store, other, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const leases = await Promise.all(
      [store, other, store, other].map((store) => store.acquire(node(1), signal)),
    );
    assert.equal(new Set(leases.map(({ key }) => key)).size, 1);
    await new Follower(store, signal).sees(leases[0]!.key);
  },

  "leases of any length block what they overlap": async ({ store, backing, signal }) => {
    await store.setNetworkConfig(SMALL, { ifAbsent: true }, signal);
    await backing.put([lease("10.5.0.128/25", 50), lease("10.5.0.20/30", 51, soon())]);
    const subnets = [];
    for (let number = 0; number < 6; number++) {
      subnets.push(subnetOf(await store.acquire(node(number), signal)));
    }
    assert.deepEqual(
      subnets.toSorted(),
      [32, 48, 64, 80, 96, 112].map((n) => `10.5.0.${n}/28`).sort(),
    );
    await assert.rejects(store.acquire(node(6), signal), /is full/);
  },

  "renewal lengthens a lease and keeps its values": async ({ store, other, backing, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    await backing.put([lease("10.5.7.0/24", 1, Date.now() + LEASE_TTL_MS / 2)]);
    const held = (await store.held(node(1), signal))!;
    const renewed = await store.renew(held, signal);
    assert.ok(endOf(renewed) > endOf(held) + LEASE_TTL_MS / 3);
    assert.equal(renewed.key, held.key);
    assert.deepEqual(renewed.halves, held.halves);
    const told = (await other.held(node(1), signal))!;
    assert.deepEqual(told.halves, held.halves);
    assert.ok(endOf(told) > endOf(held) + LEASE_TTL_MS / 3);
  },

  "a lease that is lost can't be renewed": async ({ store, backing, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const held = await store.acquire(node(1), signal);
    await backing.remove([held.key]);
    await assert.rejects(store.renew(held, signal), {
      name: "LeaseLostError",
      message: new RegExp(held.key),
    });
    await backing.put([lease(subnetOf(held), 2, soon())]);
    await assert.rejects(store.renew(held, signal), { name: "LeaseLostError" });
    assert.equal((await store.held(node(2), signal))!.key, held.key);
  },

  "a lease that net-conf no longer allows is given up for one that it does": async (
    { store, other, signal },
  ) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const before = await store.acquire(node(1), signal);
    const follower = new Follower(other, signal);
    await follower.sees(before.key);
    await store.setNetworkConfig(SMALL, { ifAbsent: false }, signal);
    const after = await store.acquire(node(1), signal);
    assert.equal(after.halves[0]!.subnet.prefixLength, 28);
    await follower.sees(after.key);
    assert.equal((await store.held(node(1), signal))!.key, after.key);
  },

  "dual stack: a subnet of each family, known again by either address": async (
    { store, other, signal },
  ) => {
    await store.setNetworkConfig(DUAL, { ifAbsent: true }, signal);
    const held = await store.acquire(dualNode(1), signal);
    assert.deepEqual(
      held.halves.map(({ subnet, publicIp, backendData }) =>
        `${subnet.prefixLength} ${publicIp} ${JSON.stringify(backendData)}`
      ),
      ['24 10.99.0.1 {"VNI":1}', '64 fd99::1 {"VNI":2}'],
    );
    const renumbered = dualNode(2, 1);
    assert.equal((await other.held(renumbered, signal))!.key, held.key);
    const again = await other.acquire(renumbered, signal);
    assert.equal(again.key, held.key);
    assert.equal(`${again.halves[0]!.publicIp}`, "10.99.0.2");
    await assert.rejects(store.acquire(node(3), signal), {
      name: "RuntimeError",
      message: /IPv6/,
    });
  },

  "IPv6 alone: a subnet, and the same one again": async ({ store, other, signal }) => {
    await store.setNetworkConfig(IPV6_ALONE, { ifAbsent: true }, signal);
    const request = (number: number) =>
      node(number, {
        publicIps: new Map([[6 as Family, IpAddress.parse(`fd99::${number}`)]]),
        backendData: new Map(),
      });
    const one = await store.acquire(request(1), signal);
    const two = await other.acquire(request(2), signal);
    assert.match(one.key, /^0\.0\.0\.0-0&fc00:5:0:.*-64$/);
    assert.notEqual(one.key, two.key);
    assert.equal((await other.acquire(request(1), signal)).key, one.key);
    await new Follower(store, signal).sees(one.key, two.key);
  },

  "a node of a cluster that becomes dual stack keeps its IPv4 subnet": async (
    { store, signal },
  ) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const before = await store.acquire(dualNode(1), signal);
    assert.equal(before.halves.length, 1);
    await store.setNetworkConfig(DUAL, { ifAbsent: false }, signal);
    const after = await store.acquire(dualNode(1), signal);
    assert.equal(subnetOf(after), subnetOf(before));
    assert.notEqual(subnetOf(after, 6), "undefined");
    await new Follower(store, signal).sees(after.key);
  },

  "a watch tells all leases first, none included, then each change": async (
    { store, other, backing, signal },
  ) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const followers = [new Follower(store, signal), new Follower(other, signal)];
    const all = (keys: string[]) => Promise.all(followers.map((one) => one.sees(...keys)));
    await eventually("snapshots", () => followers.every(({ events }) => events.length > 0));
    const one = await store.acquire(node(1), signal);
    await all([one.key]);
    const two = await other.acquire(node(2), signal);
    await all([one.key, two.key]);
    await store.acquire(node(1, { backendType: "host-gw" }), signal);
    await eventually(
      "the new value",
      () => followers.every(({ leases }) => leases.get(one.key)!.backendType === "host-gw"),
    );
    await backing.remove([one.key]);
    await all([two.key]);
    for (const { events } of followers) {
      assert.deepEqual(events[0], { kind: "snapshot", leases: [] });
      assert.ok(events.slice(1).every(({ kind }) => kind === "changes"));
    }
  },

  "a watch has no gap, whenever it begins": async ({ store, other, backing, signal }) => {
    const followers: Follower[] = [];
    const keys = new Set<string>();
    for (let number = 1; number <= 60; number++) {
      const added = lease(`10.5.${number}.0/24`, number, soon());
      await backing.put([added]);
      keys.add(added.key);
      if (number % 3 === 0) {
        const gone = `10.5.${number - 1}.0-24`;
        await backing.remove([gone]);
        keys.delete(gone);
      }
      if (number % 10 === 0) followers.push(new Follower(number % 20 ? store : other, signal));
    }
    await Promise.all(followers.map((follower) => follower.sees(...keys)));
  },

  "a burst of changes comes in few events": async ({ store, backing, signal }) => {
    const follower = new Follower(store, signal);
    await eventually("the snapshot", () => follower.events.length > 0);
    const leases = Array.from(
      { length: 3_000 },
      (_, n) => lease(`10.${n >> 8}.${n & 255}.0/24`, n, soon()),
    );
    await backing.put(leases);
    await eventually("all of it", () => follower.leases.size === leases.length, PATIENCE_MS);
    assert.ok(follower.events.length <= 100, `${follower.events.length} events`);
  },

  "another net-conf is told, with nothing for one that is the same": async (
    { store, other, signal },
  ) => {
    const types: string[] = [];
    const ending = new AbortController();
    const following = (async () => {
      for await (const { backend } of store.watchNetworkConfig(ending.signal)) {
        types.push(backend.type);
      }
    })();
    const write = async (type: string) => {
      const text = `{"Network":"10.5.0.0/16","Backend":{"Type":"${type}"}}`;
      await other.setNetworkConfig(text, { ifAbsent: false }, signal);
      await eventually(`net-conf with ${type}`, () => types.at(-1) === type);
    };
    for (const type of ["vxlan", "vxlan", "host-gw", "vxlan"]) await write(type);
    assert.deepEqual(types, ["vxlan", "host-gw", "vxlan"]);
    ending.abort();
    await following;
  },

  "an aborted watch ends without an error": async ({ store, signal }) => {
    await store.setNetworkConfig(LARGE, { ifAbsent: true }, signal);
    const ending = new AbortController();
    const follower = new Follower(store, ending.signal);
    await eventually("the snapshot", () => follower.events.length > 0);
    ending.abort();
    await follower.done;
    // The store goes on.
    await store.acquire(node(1), signal);
  },

  "a store that is closed ends its watches and rejects what waits": async (
    { backing, log, signal },
  ) => {
    const closing = await backing.open(log);
    const follower = new Follower(closing, signal);
    await eventually("the snapshot", () => follower.events.length > 0);
    const waiting = assert.rejects(closing.networkConfig(signal), { name: "RuntimeError" });
    await closing[Symbol.asyncDispose]();
    await Promise.all([follower.done, waiting]);
    await assert.rejects(closing.held(node(1), signal), { name: "RuntimeError" });
    await closing[Symbol.asyncDispose]();
  },
};
