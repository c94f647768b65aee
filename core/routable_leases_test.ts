import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { Cidr, IpAddress } from "./ip.ts";
import { type Lease, leaseKey } from "./lease.ts";
import type { LeaseEvent } from "./lease_store.ts";
import { RoutableLeases } from "./routable_leases.ts";

/** A lease of an IPv4 or IPv6 subnet whose node is at an address. */
function lease(subnet: string, publicIp: string): Lease {
  const half = { subnet: Cidr.parse(subnet), publicIp: IpAddress.parse(publicIp) };
  return {
    key: leaseKey([half.subnet]),
    backendType: "vxlan",
    halves: [{ ...half, backendData: undefined }],
    expiry: "never",
  };
}

const snapshot = (...leases: Lease[]): LeaseEvent => ({ kind: "snapshot", leases });
const put = (...put: Lease[]): LeaseEvent => ({ kind: "changes", put, removed: [] });
const remove = (...leases: Lease[]): LeaseEvent => (
  { kind: "changes", put: [], removed: leases.map(({ key }) => key) }
);

/** What goes on to the data paths, in short: `+KEY` and `-KEY`, of a snapshot `=KEY`. */
function brief(event: LeaseEvent): string {
  const words = event.kind === "snapshot"
    ? event.leases.map(({ key }) => `=${key}`)
    : [...event.put.map(({ key }) => `+${key}`), ...event.removed.map((key) => `-${key}`)];
  return words.join(" ");
}

function setUp(own = "none") {
  const log = new RecordingLog();
  let freed = 0;
  /** The keys of what was handed on, as the data paths have them. */
  const known = new Set<string>();
  const handOn = (event: LeaseEvent) => {
    if (event.kind === "snapshot") known.clear();
    for (const { key } of event.kind === "snapshot" ? event.leases : event.put) known.add(key);
    for (const key of event.kind === "snapshot" ? [] : event.removed) known.delete(key);
    return event;
  };
  const networks = ["10.0.0.0/8", "fd00::/16"].map((text) => Cidr.parse(text));
  const leases = new RoutableLeases({
    networks: () => networks,
    ownKey: () => own,
    handedOn: () => known,
    onFreed: () => freed++,
    log,
  });
  const host = (address: string, whose = "this node") =>
    handOn(leases.setHosts([{ address: IpAddress.parse(address), whose }]));
  return {
    leases,
    log,
    host,
    freed: () => freed,
    apply: (e: LeaseEvent) => brief(handOn(leases.apply(e))),
  };
}

for (
  const [family, inside, outside, node, far, within] of [
    ["IPv4", "10.0.1.0/24", "10.0.2.0/24", "10.0.1.1", "192.0.2.1", "10.0.2.9"],
    ["IPv6", "fd00:0:0:1::/64", "fd00:0:0:2::/64", "fd00:0:0:1::1", "2001:db8::1", "fd00:0:0:2::9"],
  ] as const
) {
  const [bad, good] = [lease(inside, far), lease(outside, far)];

  Deno.test(`routable leases: a subnet that holds this node's address is left out, and said once (${family})`, () => {
    const { host, log, apply } = setUp();
    host(node);
    assert.equal(apply(snapshot(bad, good)), `=${good.key}`);
    assert.equal(apply(put(bad)), `-${bad.key}`);
    assert.deepEqual(log.records.map(({ event }) => event), ["subnet-holds-host"]);
    assert.ok(
      log.records[0]!.message.includes(`${inside} holds ${node}, the address of this node`),
    );
  });

  Deno.test(`routable leases: a node that comes inside of a subnet has that one's route withdrawn (${family})`, () => {
    const { log, apply, freed, leases } = setUp();
    assert.equal(apply(snapshot(bad, good)), `=${bad.key} =${good.key}`);
    assert.ok(!leases.hasHosts);
    const late = lease(family === "IPv4" ? "10.0.3.0/24" : "fd00:0:0:3::/64", within);
    assert.equal(apply(put(late)), `+${late.key} -${good.key}`);
    assert.ok(leases.hasHosts);
    assert.equal(apply(put(late)), `+${late.key}`, "not again");
    assert.deepEqual(log.records.map(({ event }) => event), ["subnet-holds-host"]);
    // It leaves: the leases are read again.
    assert.equal(apply(remove(late)), `-${late.key}`);
    assert.equal(freed(), 1);
    assert.equal(apply(snapshot(bad, good)), `=${bad.key} =${good.key}`);
  });

  Deno.test(`routable leases: a lease whose own node is inside of it is left out (${family})`, () => {
    const { apply } = setUp();
    assert.equal(apply(snapshot(lease(outside, within))), "");
  });

  Deno.test(`routable leases: this node's own is said, and goes on (${family})`, () => {
    const own = lease(outside, far);
    const { apply, log, host, leases } = setUp(own.key);
    assert.equal(apply(snapshot(own)), `=${own.key}`);
    assert.equal(brief(host(within, "the store")), "");
    assert.equal(apply(put(own)), `+${own.key}`);
    assert.deepEqual(log.records.map(({ event }) => event), ["own-subnet-holds-host"]);
    assert.deepEqual(leases.hostsIn(Cidr.parse(outside)).map(({ whose }) => whose), ["the store"]);
  });

  Deno.test(`routable leases: a router or store that moves frees one subnet, and takes another (${family})`, () => {
    const { apply, host, freed } = setUp();
    host(node);
    apply(snapshot(bad, good));
    assert.equal(brief(host(within)), `-${good.key}`);
    assert.equal(freed(), 1);
  });
}

Deno.test("routable leases: subnets of several lengths, and one around the hosts", () => {
  const { apply } = setUp();
  const wide = lease("10.4.0.0/16", "192.0.2.1"), narrow = lease("10.4.8.0/28", "192.0.2.2");
  apply(snapshot(wide, narrow));
  assert.equal(
    apply(put(lease("10.9.0.0/24", "10.4.8.3"))),
    "+10.9.0.0-24 -10.4.0.0-16 -10.4.8.0-28",
  );
});

Deno.test("routable leases: what came and went before there was a host is known when one comes", () => {
  const { apply, host, log } = setUp();
  const [stays, goes, comes, changes] = ["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24", "10.1.3.0/24"]
    .map((subnet) => lease(subnet, "192.0.2.1")) as [Lease, Lease, Lease, Lease];
  apply(snapshot(stays, goes, changes));
  apply({ kind: "changes", put: [comes, changes], removed: [goes.key] });
  // One is gone by the event that brings the first host.
  const inGoing = { ...lease("10.9.0.0/24", "10.1.3.9") };
  assert.equal(
    apply({ kind: "changes", put: [inGoing], removed: [changes.key] }),
    `+${inGoing.key} -${changes.key}`,
  );
  assert.deepEqual(log.events, []);
  assert.equal(brief(host("10.1.0.7")), `-${stays.key}`);
  assert.equal(brief(host("10.1.1.7")), "");
  assert.equal(brief(host("10.1.2.7")), `-${comes.key}`);
});
