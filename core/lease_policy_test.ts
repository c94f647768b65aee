import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { Cidr, IpAddress } from "./ip.ts";
import { type Lease, parseLease } from "./lease.ts";
import {
  chooseLease,
  chooseReservation,
  findHeld,
  indexOf,
  logLeaseReplaced,
  requireHeld,
} from "./lease_policy.ts";
import type { LeaseRequest } from "./lease_store.ts";
import { parseNetworkConfig } from "./net_conf.ts";

const CONFIG = parseNetworkConfig('{"Network":"10.5.0.0/16"}');

function lease(key: string, publicIp: string): Lease {
  return parseLease(key, JSON.stringify({ PublicIP: publicIp, BackendType: "vxlan" }));
}

function request(publicIp: string, more: Partial<LeaseRequest> = {}): LeaseRequest {
  return {
    publicIps: new Map([[4, IpAddress.parse(publicIp)]]),
    previousSubnets: [],
    backendType: "vxlan",
    backendData: new Map(),
    ...more,
  };
}

const stored = (...leases: Lease[]) => leases.map((lease) => ({ key: lease.key, lease }));

Deno.test("findHeld: the last run's lease comes before the one under the node's public IP", () => {
  const index = indexOf(
    [
      ...stored(lease("10.5.1.0-24", "10.99.0.1"), lease("10.5.2.0-24", "10.99.0.2")),
      { key: "10.5.3.0-24", lease: undefined },
    ],
    ({ lease }) => lease,
  );
  const held = (node: LeaseRequest) => findHeld(node, index)?.key;
  const previousSubnets = [Cidr.parse("10.5.2.0/24")];
  const previousPublicIps = new Map([[4 as const, IpAddress.parse("10.99.0.2")]]);
  assert.equal(held(request("10.99.0.1")), "10.5.1.0-24");
  assert.equal(held(request("10.99.0.1", { previousSubnets, previousPublicIps })), "10.5.2.0-24");
  // Another node has the last run's subnet by now.
  assert.equal(held(request("10.99.0.1", { previousSubnets })), "10.5.1.0-24");
  assert.equal(held(request("10.99.0.9", { previousSubnets })), undefined);
});

Deno.test("requireHeld: a lease that is gone, unreadable or another node's is lost", () => {
  const own = lease("10.5.1.0-24", "10.99.0.1");
  const row = { value: "VALUE" };
  assert.equal(requireHeld(own, row, () => own), row);
  for (
    const [row_, read, message] of [
      [undefined, own, "the lease 10.5.1.0-24 has ended or was deleted"],
      [row, undefined, "the lease 10.5.1.0-24 belongs to another node: VALUE"],
      [
        row,
        lease("10.5.1.0-24", "10.99.0.2"),
        "the lease 10.5.1.0-24 belongs to another node: VALUE",
      ],
    ] as const
  ) {
    assert.throws(() => requireHeld(own, row_, () => read), { name: "LeaseLostError", message });
  }
});

Deno.test("logLeaseReplaced: says why a lease gives way", () => {
  const to = { subnets: [Cidr.parse("10.5.9.0/24")], keeps: false };
  const log = new RecordingLog();
  const outside = lease("10.6.1.0-24", "10.99.0.1");
  const inside = lease("10.5.1.0-24", "10.99.0.1");
  logLeaseReplaced(log, CONFIG, request("10.99.0.1"), { key: "x", lease: undefined }, to);
  logLeaseReplaced(log, CONFIG, request("10.99.0.1"), stored(outside)[0]!, to);
  logLeaseReplaced(log, CONFIG, request("10.99.0.1"), stored(inside)[0]!, to);
  logLeaseReplaced(log, CONFIG, request("10.99.0.1", { only: true }), stored(inside)[0]!, to);
  const host = { address: IpAddress.parse("10.5.1.7"), whose: "this node" };
  logLeaseReplaced(log, CONFIG, request("10.99.0.1"), stored(inside)[0]!, { ...to, host });
  assert.deepEqual(log.lines, [
    "warn the lease x gives way to 10.5.9.0-24: it can't be read",
    "warn the lease 10.6.1.0-24 gives way to 10.5.9.0-24: net-conf does not allow it any more",
    "warn the lease 10.5.1.0-24 gives way to 10.5.9.0-24: it overlaps an older one",
    "warn the lease 10.5.1.0-24 gives way to 10.5.9.0-24: this node's pods live in the other subnet",
    "warn the lease 10.5.1.0-24 gives way to 10.5.9.0-24: 10.5.1.0/24 holds 10.5.1.7, the address of this node",
  ]);
});

/** A node at 10.5.1.7 in the network of the hosts, with a router and a store. */
const HOSTS = {
  hosts: [["10.5.1.7", "this node"], ["10.5.2.1", "this node's router"], ["10.5.3.9", "the store"]]
    .map(([address, whose]) => ({ address: IpAddress.parse(address!), whose: whose! })),
  links: [],
};
/** Subnets 1 to 5. */
const SMALL = parseNetworkConfig('{"Network":"10.5.0.0/16","SubnetMax":"10.5.5.0"}');
const PEER = lease("10.5.9.0-24", "10.5.4.9");

for (
  const [what, previous, held, gets, keeps] of [
    ["no subnet that holds a host is leased", [], undefined, "10.5.5.0/24", false],
    ["not even the last run's", ["10.5.1.0/24"], undefined, "10.5.5.0/24", false],
    ["not if the node holds it: this node's address", [], "10.5.1.0-24", "10.5.5.0/24", false],
    ["the router's", [], "10.5.2.0-24", "10.5.5.0/24", false],
    ["the store's", [], "10.5.3.0-24", "10.5.5.0/24", false],
    ["a peer's", [], "10.5.4.0-24", "10.5.5.0/24", false],
    ["a lease without a host in it is kept", [], "10.5.5.0-24", "10.5.5.0/24", true],
  ] as const
) {
  Deno.test(`chooseLease: ${what}`, () => {
    const choice = chooseLease(
      SMALL,
      request("10.5.1.7", {
        hostNetwork: HOSTS,
        previousSubnets: previous.map((text) => Cidr.parse(text)),
      }),
      held === undefined ? undefined : lease(held, "10.5.1.7"),
      () => [...stored(PEER), { key: "10.5.8.0-24", lease: undefined }],
    );
    assert.deepEqual([`${choice.subnets}`, choice.keeps], [gets, keeps]);
    assert.equal(choice.host !== undefined, held !== undefined && !keeps);
  });
}

Deno.test("chooseLease: pods live in the subnet, so a running node keeps it whoever is in it", () => {
  const held = lease("10.5.1.0-24", "10.5.1.7");
  const asked = request("10.5.1.7", {
    hostNetwork: HOSTS,
    previousSubnets: [Cidr.parse("10.5.1.0/24")],
    only: true,
  });
  const choice = chooseLease(SMALL, asked, held, () => {
    throw new Error("looked at");
  });
  assert.deepEqual([`${choice.subnets}`, choice.keeps], ["10.5.1.0/24", true]);
});

Deno.test("chooseLease: with hosts in all subnets the network is full, and they are named", () => {
  const config = parseNetworkConfig('{"Network":"10.5.0.0/16","SubnetMax":"10.5.3.0"}');
  assert.throws(
    () => chooseLease(config, request("10.5.1.7", { hostNetwork: HOSTS }), undefined, () => []),
    {
      name: "RuntimeError",
      message:
        "the network 10.5.0.0/16 is full: every /24 from 10.5.1.0 to 10.5.3.0 is leased, or holds a " +
        "host's address (10.5.1.7 of this node, 10.5.2.1 of this node's router, 10.5.3.9 of the store); give " +
        "up leases that nobody uses, or enlarge the network in net-conf",
    },
  );
});

Deno.test("chooseReservation: a subnet that holds a node's address is refused", () => {
  const { publicIps } = request("10.5.1.7");
  for (
    const [subnet, message] of [
      ["10.5.1.0/24", /10\.5\.1\.0\/24 holds 10\.5\.1\.7, the address of its own node/],
      ["10.5.4.0/24", /holds 10\.5\.4\.9, the address of the node of 10\.5\.9\.0-24/],
    ] as const
  ) {
    const asked = { subnets: [Cidr.parse(subnet)], publicIps };
    assert.throws(() => chooseReservation(CONFIG, asked, stored(PEER)), {
      name: "RuntimeError",
      message,
    });
  }
});

Deno.test("chooseReservation: a lease that can't be read is in the way too", () => {
  const subnets = [Cidr.parse("10.5.1.0/24")];
  const { publicIps } = request("10.99.0.1");
  const leases = [{ key: "10.5.0.0-20", lease: undefined }];
  assert.throws(() => chooseReservation(CONFIG, { subnets, publicIps }, leases), {
    name: "RuntimeError",
    message:
      "10.5.1.0-24 can't be reserved: the lease 10.5.0.0-20 is in the way, and can't be read",
  });
});
