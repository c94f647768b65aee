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
    stored(lease("10.5.1.0-24", "10.99.0.1"), lease("10.5.2.0-24", "10.99.0.2")),
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
  assert.deepEqual(log.lines, [
    "warn the lease x gives way to 10.5.9.0-24: it can't be read",
    "warn the lease 10.6.1.0-24 gives way to 10.5.9.0-24: net-conf does not allow it any more",
    "warn the lease 10.5.1.0-24 gives way to 10.5.9.0-24: it overlaps an older one",
    "warn the lease 10.5.1.0-24 gives way to 10.5.9.0-24: this node's pods live in the other subnet",
  ]);
});

Deno.test("chooseLease: the others are not looked at if the node keeps its lease", () => {
  const choice = chooseLease(
    CONFIG,
    request("10.99.0.1"),
    lease("10.5.1.0-24", "10.99.0.1"),
    () => {
      throw new Error("looked at");
    },
  );
  assert.deepEqual([choice.subnets.map(String), choice.keeps], [["10.5.1.0/24"], true]);
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
