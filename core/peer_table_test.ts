import assert from "node:assert/strict";
import * as z from "zod";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { Cidr, IpAddress } from "./ip.ts";
import { type Lease, leaseKey } from "./lease.ts";
import type { LeaseEvent } from "./lease_store.ts";
import { parseNetworkConfig } from "./net_conf.ts";
import { type PeerChanges, PeerTable } from "./peer_table.ts";

const CONFIG = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
const DUAL_CONFIG = parseNetworkConfig(
  '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48"}',
);
const BACKEND = { leaseType: "vxlan", peerData: z.object({ VNI: z.int() }) };

function lease(
  subnets: string,
  { ip = "10.99.0.1", data = { VNI: 1 } as unknown, type = "vxlan", atMs = 1 } = {},
): Lease {
  const halves = subnets.split(" ").map((text) => {
    const subnet = Cidr.parse(text);
    const publicIp = IpAddress.parse(subnet.family === 4 ? ip : "fd99::1");
    return { subnet, publicIp, backendData: data ?? undefined };
  });
  const key = leaseKey(halves.map(({ subnet }) => subnet));
  return { key, backendType: type, halves, expiry: { atMs } };
}

const snapshot = (...leases: Lease[]): LeaseEvent => ({ kind: "snapshot", leases });
const put = (...put: Lease[]): LeaseEvent => ({ kind: "changes", put, removed: [] });
const remove = (...removed: string[]): LeaseEvent => ({ kind: "changes", put: [], removed });

/** What changed, in short: `+key publicIp VNI` and `-key`. */
function brief({ put, removed }: PeerChanges<{ VNI: number }>): string[] {
  return [
    ...put.map(({ key, halves }) =>
      `+${key} ${halves.map(({ publicIp, data }) => `${publicIp} ${data.VNI}`).join(" & ")}`
    ),
    ...removed.map((key) => `-${key}`),
  ];
}

const A = "10.5.1.0/24", B = "10.5.2.0/24", C = "10.5.3.0/24";
const [KEY_A, KEY_B, KEY_C] = [A, B, C].map((text) => leaseKey([Cidr.parse(text)])) as [
  string,
  string,
  string,
];

/** Events, each with what it changes and how many peers there are then. */
const STORIES: readonly (readonly [
  story: string,
  ...events: (readonly [event: LeaseEvent, changes: readonly string[], size: number])[],
])[] = [
  [
    "a snapshot, one more, one less",
    [snapshot(lease(A), lease(B, { ip: "10.99.0.2" })), [
      `+${KEY_A} 10.99.0.1 1`,
      `+${KEY_B} 10.99.0.2 1`,
    ], 2],
    [put(lease(C, { ip: "10.99.0.3" })), [`+${KEY_C} 10.99.0.3 1`], 3],
    [remove(KEY_B), [`-${KEY_B}`], 2],
    [remove(KEY_B, "never seen"), [], 2],
  ],
  [
    "only true differences count: a renewal is none, new data and a new address are",
    [snapshot(lease(A)), [`+${KEY_A} 10.99.0.1 1`], 1],
    [put(lease(A, { atMs: 2 })), [], 1],
    [put(lease(A, { data: { VNI: 2 } })), [`+${KEY_A} 10.99.0.1 2`], 1],
    [put(lease(A, { data: { VNI: 2 }, ip: "10.99.0.9" })), [`+${KEY_A} 10.99.0.9 2`], 1],
    [put(lease(A, { data: { VNI: 2 }, ip: "10.99.0.9" })), [], 1],
  ],
  [
    "a second snapshot says what came and went in between",
    [snapshot(lease(A), lease(B)), [`+${KEY_A} 10.99.0.1 1`, `+${KEY_B} 10.99.0.1 1`], 2],
    [snapshot(lease(B), lease(C)), [`+${KEY_C} 10.99.0.1 1`, `-${KEY_A}`], 2],
    [snapshot(), [`-${KEY_B}`, `-${KEY_C}`], 0],
  ],
  [
    "a peer that turns to another backend leaves, and comes back",
    [snapshot(lease(A)), [`+${KEY_A} 10.99.0.1 1`], 1],
    [put(lease(A, { type: "host-gw" })), [`-${KEY_A}`], 0],
    [put(lease(A, { type: "host-gw", ip: "10.99.0.2" })), [], 0],
    [put(lease(A)), [`+${KEY_A} 10.99.0.1 1`], 1],
  ],
  [
    "what is no peer leaves without a word",
    [snapshot(lease(A, { data: { VNI: "one" } })), [], 0],
    [remove(KEY_A), [], 0],
  ],
];

for (const [story, ...events] of STORIES) {
  Deno.test(`peers: ${story}`, () => {
    const table = new PeerTable(BACKEND, CONFIG, new RecordingLog());
    for (const [index, [event, changes, size]] of events.entries()) {
      assert.deepEqual(brief(table.apply(event)), changes, `event ${index}`);
      assert.equal(table.size, size, `size after event ${index}`);
    }
  });
}

Deno.test("peers: this node's own lease is none", () => {
  const table = new PeerTable(BACKEND, CONFIG, new RecordingLog());
  table.ownKey = KEY_A;
  assert.deepEqual(brief(table.apply(snapshot(lease(A), lease(B)))), [`+${KEY_B} 10.99.0.1 1`]);
  assert.deepEqual(brief(table.apply(put(lease(A, { data: { VNI: 7 } })))), []);
  assert.equal(table.size, 1);
});

Deno.test("peers: who is not followed is said once, with the reason", () => {
  for (
    const [other, reason] of [
      [lease(A, { type: "host-gw" }), "its node runs another backend (host-gw, here vxlan)"],
      [lease(A, { type: "" }), "its node runs another backend (no type, here vxlan)"],
      [lease("10.6.1.0/24"), "10.6.1.0/24 is outside the network 10.5.0.0/16"],
      [lease("fc00:5:0:1::/64"), "it has no family in common"],
      [lease(A, { ip: "127.0.0.1" }), "its public IP 127.0.0.1 is no host's for others"],
      [
        lease(A, { data: { VNI: "one" } }),
        "its backend data: VNI: Invalid input: expected number, received string",
      ],
      [
        lease(A, { data: null }),
        "its backend data: Invalid input: expected object, received undefined",
      ],
    ] as const
  ) {
    const log = new RecordingLog();
    const table = new PeerTable(BACKEND, CONFIG, log);
    table.apply(snapshot(other));
    table.apply(put({ ...other, expiry: { atMs: 2 } }));
    assert.deepEqual(log.lines, [`warn lease ${other.key} is not followed: ${reason}`]);
    table.apply(put(lease(`${other.halves[0]!.subnet}`, { type: "ipip" })));
    assert.equal(log.lines.length, 2, "another value is worth another word");
  }
});

Deno.test("peers: a dual-stack lease has the halves that the cluster uses", () => {
  const both = lease("10.5.1.0/24 fc00:5:0:1::/64");
  for (
    const [config, changes] of [
      [DUAL_CONFIG, [`+${both.key} 10.99.0.1 1 & fd99::1 1`]],
      [CONFIG, [`+${both.key} 10.99.0.1 1`]],
    ] as const
  ) {
    const table = new PeerTable(BACKEND, config, new RecordingLog());
    assert.deepEqual(brief(table.apply(snapshot(both))), changes);
  }
});

Deno.test("peers: udp's leases have no type and no data, and are followed", () => {
  const udp = { leaseType: "", peerData: z.undefined() };
  const table = new PeerTable(udp, CONFIG, new RecordingLog());
  const { put } = table.apply(snapshot(lease(A, { type: "", data: null })));
  assert.deepEqual(put.map(({ key }) => key), [KEY_A]);
});

Deno.test("peers: a table that keeps them tells them again, as they are now", () => {
  for (const keep of [true, false]) {
    const table = new PeerTable(BACKEND, CONFIG, new RecordingLog(), { keep });
    table.apply(snapshot(lease(A), lease(B), lease(C, { type: "host-gw" })));
    table.apply(put(lease(B, { ip: "10.99.0.7" })));
    const kept = [...table].map(({ key, halves }) => `${key} ${halves[0]!.publicIp}`);
    assert.deepEqual(kept, keep ? [`${KEY_A} 10.99.0.1`, `${KEY_B} 10.99.0.7`] : []);
    assert.deepEqual([...table.keys()].length, 3);
    assert.deepEqual([A, C].map((subnet) => table.has(lease(subnet).key)), [true, false]);
  }
});

Deno.test("peers: one more among 20,000 costs the work of one", () => {
  let read = 0;
  const peerData = BACKEND.peerData.transform((data) => {
    read++;
    return data;
  });
  const table = new PeerTable({ ...BACKEND, peerData }, DUAL_CONFIG, new RecordingLog());
  const network = Cidr.parse("10.5.0.0/16");
  const leases = Array.from(
    { length: 20_000 },
    (_, index) => lease(`${new Cidr(network.at(BigInt(index)), 32)}`),
  );
  table.apply(snapshot(...leases));
  read = 0;
  table.apply(put(lease("10.5.255.0/32")));
  assert.equal(read, 1);
  assert.equal(table.size, 20_001);
});

Deno.test("peers: who has what this node must have alone is no peer, and is named", () => {
  const log = new RecordingLog();
  const table = new PeerTable(BACKEND, CONFIG, log, {
    conflict: ({ halves }) => halves[0]!.data.VNI === 7 ? "VTEP MAC 02:…" : undefined,
  });
  const clone = lease(B, { ip: "10.99.0.2", data: { VNI: 7 } });
  const { put: first } = table.apply(snapshot(lease(A), clone));
  assert.deepEqual(first.map(({ key }) => key), [KEY_A]);
  const conflicts = [[KEY_B, "the node 10.99.0.2 has this node's VTEP MAC 02:…"]];
  assert.deepEqual([...table.conflicts], conflicts);
  assert.match(log.lines.join(), /^warn lease 10\.5\.2\.0-24 .* look for a cloned machine$/);
  assert.deepEqual(brief(table.apply(put(lease(B, { ip: "10.99.0.2" })))), [
    `+${KEY_B} 10.99.0.2 1`,
  ]);
  assert.equal(table.conflicts.size, 0);
  assert.deepEqual(brief(table.apply(put(clone))), [`-${KEY_B}`]);
  assert.deepEqual([...table.conflicts], conflicts);
});

Deno.test("PeerTable: a reservation whose node has not run yet is no reason for a warning", () => {
  const log = new RecordingLog();
  const table = new PeerTable(BACKEND, CONFIG, log);
  const reserved: Lease = { ...lease(A, { type: "", data: null }), expiry: "never" };
  assert.deepEqual(brief(table.apply(snapshot(reserved, lease(B, { type: "" })))), []);
  assert.deepEqual(log.events, ["info peer-refused", "warn peer-refused"]);
  assert.match(log.of("peer-refused")[0]!.message, /it is reserved, and no agent of its node/);
  assert.deepEqual(brief(table.apply(put({ ...lease(A), expiry: "never" }))), [
    `+${KEY_A} 10.99.0.1 1`,
  ]);
});
