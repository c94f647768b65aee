/** Every way in which others can change what the reconciler made, on VXLAN and on TUN devices. */

import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { vxlanLink } from "../../../tests/support/vxlan_link.ts";
import { addressBits, Cidr, FAMILIES, type Family, IpAddress } from "../../ip.ts";
import { type KernelState, nexthopId } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import { Reconciler } from "./reconciler.ts";

/** No fault may last longer. */
const HEAL_MS = 1_000;

const NETWORKS: Readonly<Record<Family, Cidr>> = {
  4: Cidr.parse("10.5.0.0/16"),
  6: Cidr.parse("fc00:5::/48"),
};

function subnetOf(number: number, family: Family): Cidr {
  return Cidr.parse(family === 4 ? `10.5.${number}.0/24` : `fc00:5:0:${number}::/64`);
}

function ownAddress(device: string, family: Family): KernelState[number] {
  const { address } = subnetOf(1, family);
  return { kind: "address", device, address, prefixLength: addressBits(family) };
}

/** A VXLAN device for each family, and two peers. */
function vxlanState(): KernelState {
  return FAMILIES.flatMap((family) => {
    const device = family === 4 ? "flannel.1" : "flannel-v6.1";
    const local = IpAddress.parse(family === 4 ? "10.99.0.1" : "fd99::1");
    const mac = MacAddress.parse(`02:0a:05:00:00:0${family}`);
    const link = vxlanLink({ local }, { name: device, mtuBytes: 1430, mac });
    const peers = [2, 3].flatMap((number): KernelState => {
      const subnet = subnetOf(number, family);
      const mac = MacAddress.parse(`02:00:00:00:0${family}:0${number}`);
      const remote = IpAddress.parse(family === 4 ? `10.99.0.${number}` : `fd99::${number}`);
      const id = nexthopId(subnet);
      return [
        { kind: "fdb", device, mac, remote },
        { kind: "neighbour", device, address: subnet.address, mac },
        { kind: "nexthop", id, device, via: subnet.address },
        { kind: "route", destination: subnet, nexthopId: id },
      ];
    });
    return [link, ownAddress(device, family), ...peers];
  });
}

/** A TUN device, and one route a family for the whole network. */
function tunState(): KernelState {
  const device = "flannel0";
  return [
    { kind: "link", name: device, mtuBytes: 1472, info: { type: "tun", queueLength: 1000 } },
    ...FAMILIES.flatMap((family): KernelState => [
      ownAddress(device, family),
      {
        kind: "route",
        destination: NETWORKS[family],
        device,
        source: subnetOf(1, family).address,
      },
    ]),
  ];
}

/** All that matters of a node, as iproute2 prints it. */
function snapshot(ns: ScratchNamespace, devices: readonly string[]): string {
  const lines: string[] = [];
  for (const family of ["-4", "-6"]) {
    for (const { dst, dev, protocol, nhid, prefsrc } of ns.ipJson(`${family} route show`)) {
      if (protocol !== "kernel") lines.push(`route ${dst} ${dev} ${protocol} ${nhid} ${prefsrc}`);
    }
  }
  for (const { type, dst, dev } of ns.ipJson("-4 route show table local 10.5.1.0")) {
    lines.push(`${type} ${dst} ${dev}`);
  }
  for (const { id, gateway, dev } of ns.ipJson("nexthop show")) {
    lines.push(`nexthop ${id} ${gateway} ${dev}`);
  }
  for (const device of devices) {
    const [link] = ns.ipJson(`-d link show ${device}`);
    const { mtu, txqlen, flags, address, linkinfo: { info_kind, info_data } } = link;
    const { id, port, local, local6, link: outer, learning, multi_queue } = info_data;
    lines.push(
      [device, mtu, txqlen, flags.includes("UP"), address, info_kind, id, port, local, local6]
        .concat([outer, learning, multi_queue]).join(" "),
    );
    for (const { addr_info } of ns.ipJson(`addr show dev ${device} scope global`)) {
      for (const { local, prefixlen } of addr_info ?? []) {
        if (local !== undefined) lines.push(`address ${local}/${prefixlen}`);
      }
    }
    for (const { dst, lladdr, state } of ns.ipJson(`neigh show dev ${device} nud permanent`)) {
      lines.push(`neighbour ${dst} ${lladdr} ${state}`);
    }
    if (info_kind === "vxlan") {
      for (const { mac, dst } of ns.fdb(device)) lines.push(`fdb ${mac} ${dst}`);
    }
  }
  return lines.toSorted().join("\n");
}

interface Case {
  readonly name: string;
  readonly state: KernelState;
  /** Commands for `ip`; those that start with `bridge` are for `bridge`. */
  readonly faults: readonly string[];
}

/**
 * The node's address is the lowest of a network of another device, which kernels before 5.14 take for a broadcast
 * address by themselves.
 */
const BROADCAST =
  "route prepend broadcast 10.5.1.0 dev eth0 table local proto kernel scope link src 10.99.0.1";

const CASES: readonly Case[] = [
  {
    name: "VXLAN",
    state: vxlanState(),
    faults: [
      "route del 10.5.2.0/24",
      "-6 route del fc00:5:0:2::/64",
      "route replace 10.5.2.0/24 via 10.99.0.9 dev eth0",
      "-6 route replace fc00:5:0:2::/64 via fd99::9 dev eth0",
      // `ip route flush` of iproute2 6.1 fails on routes by nexthop objects.
      "route del 10.5.2.0/24; route del 10.5.3.0/24; -6 route del fc00:5:0:2::/64; " +
      "-6 route del fc00:5:0:3::/64",
      "route add 10.66.0.0/16 dev flannel.1",
      "neigh del 10.5.2.0 dev flannel.1",
      "neigh replace 10.5.3.0 lladdr 02:00:00:00:00:99 dev flannel.1",
      "neigh replace fc00:5:0:3:: lladdr 02:00:00:00:00:99 dev flannel-v6.1",
      "neigh replace 10.5.3.0 lladdr 02:00:00:00:04:03 nud stale dev flannel.1",
      "neigh flush dev flannel.1 nud permanent",
      "neigh flush dev flannel-v6.1 nud permanent",
      "neigh add 10.5.9.0 lladdr 02:00:00:00:00:99 dev flannel.1",
      "bridge fdb del 02:00:00:00:04:02 dev flannel.1 dst 10.99.0.2",
      "bridge fdb replace 02:00:00:00:04:02 dev flannel.1 dst 10.99.0.77",
      "bridge fdb replace 02:00:00:00:06:02 dev flannel-v6.1 dst fd99::77",
      "bridge fdb add 02:00:00:00:04:99 dev flannel.1 dst 10.99.0.77",
      `nexthop del id ${nexthopId(subnetOf(2, 4))}`,
      `nexthop del id ${nexthopId(subnetOf(2, 6))}`,
      `nexthop replace id ${nexthopId(subnetOf(3, 4))} via 10.99.0.9 dev eth0`,
      "nexthop flush",
      "addr del 10.5.1.0/32 dev flannel.1",
      "addr flush dev flannel-v6.1",
      "addr del 10.5.1.0/32 dev flannel.1; addr add 10.5.1.0/24 dev flannel.1",
      "addr add 10.5.8.0/32 dev flannel.1",
      "addr add 192.168.9.1/24 dev flannel.1",
      "link set flannel.1 down",
      "link set flannel-v6.1 down",
      "link set flannel.1 mtu 1300",
      "link set flannel.1 address 02:00:00:00:00:77",
      "link set flannel-v6.1 address 02:00:00:00:00:77",
      "link set flannel.1 type vxlan learning",
      "link set flannel.1 type vxlan local 10.99.0.7",
      "link set flannel.1 down; link set flannel.1 name mine; link set mine up",
      "link del flannel.1",
      "link del flannel-v6.1",
      // Recreated by another program, and not as wanted.
      "link del flannel.1; link add flannel.1 type vxlan id 1 dstport 4789 dev eth0 local 10.99.0.1",
      BROADCAST,
    ],
  },
  {
    name: "TUN",
    state: tunState(),
    faults: [
      "route del 10.5.0.0/16",
      "-6 route del fc00:5::/48",
      "route replace 10.5.0.0/16 via 10.99.0.9 dev eth0",
      "route flush dev flannel0",
      "-6 route flush dev flannel0",
      "route del 10.5.0.0/16; route add 10.5.0.0/16 dev flannel0",
      "route add 10.66.0.0/16 dev flannel0",
      "addr del 10.5.1.0/32 dev flannel0",
      "addr flush dev flannel0 scope global",
      "addr add 10.5.8.0/32 dev flannel0",
      "link set flannel0 down",
      "link set flannel0 mtu 1300",
      "link set flannel0 txqueuelen 10",
      "link set flannel0 down; link set flannel0 name mine; link set mine up",
      "link del flannel0",
      "link del flannel0; tuntap add flannel0 mode tap",
      BROADCAST,
      `link del flannel0; ${BROADCAST}`,
    ],
  },
];

/** A namespace with an outer device, dual stack, and a reconciler. */
class DriftingNode implements Disposable {
  readonly ns = new ScratchNamespace();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler;

  constructor(state: KernelState) {
    this.ns.addOuterDevice({ ipv6: true });
    this.reconciler = this.ns.run(() => new Reconciler({ log: this.log }));
    this.reconciler.networks = FAMILIES.map((family) => ({
      network: NETWORKS[family],
      subnetLength: family === 4 ? 24 : 64,
    }));
    this.reconciler.set("all", state);
    assert.deepEqual(this.reconciler.check().failures, []);
  }

  run(commands: string): void {
    for (const command of commands.split("; ")) {
      if (command.startsWith("bridge ")) this.ns.bridge(command.slice("bridge ".length));
      else this.ns.ip(command);
    }
  }

  [Symbol.dispose](): void {
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
  }
}

for (const { name, state, faults } of CASES) {
  rootTest(`drift is repaired within a second: ${name}`, async (t) => {
    using node = new DriftingNode(state);
    const { ns, log, reconciler } = node;
    const devices = state.flatMap((object) => object.kind === "link" ? [object.name] : []);
    const look = () => {
      try {
        return snapshot(ns, devices);
      } catch (error) {
        return `${error}`; // a device is away
      }
    };
    const right = look();
    const stop = new AbortController();
    const running = reconciler.run(stop.signal);
    for (const fault of faults) {
      await t.step(fault, async () => {
        node.run(fault);
        assert.notEqual(look(), right, "a fault that changes nothing");
        try {
          await eventually("the repair", () => look() === right, HEAL_MS);
        } catch {
          assert.equal(look(), right);
        }
        // The event of what a listing has shown already may come after it, and is looked into once.
        if (reconciler.check().changes > 0) {
          assert.equal(reconciler.check().changes, 0, "and it stays so");
        }
      });
    }
    stop.abort();
    await running;
    assert.deepEqual(log.lines.filter((line) => line.startsWith("error")), []);
  });
}

rootTest("the node's address is its own, though a network's broadcast address before", () => {
  for (const state of [vxlanState(), tunState()]) {
    for (const isStarting of [false, true]) {
      using node = new DriftingNode([]);
      // An agent that starts makes what it needs, and compares everything once it knows its peers.
      using starting = node.ns.run(() => new Reconciler({ log: node.log }));
      const reconciler = isStarting ? starting : node.reconciler;
      node.run(BROADCAST);
      reconciler.set("all", state);
      assert.deepEqual(reconciler.apply().failures, []);
      assert.deepEqual(reconciler.check().failures, []);
      const entries = node.ns.ipJson("-4 route show table local 10.5.1.0");
      assert.deepEqual(entries.map(({ type }) => type), ["local"]);
    }
  }
});

rootTest(
  "a tunnel goes on when the outer device is away for a while, or has another name",
  async (t) => {
    const state = vxlanState();
    using node = new DriftingNode(state);
    const { ns, log, reconciler } = node;
    const devices = ["flannel.1", "flannel-v6.1"];
    const right = snapshot(ns, devices);
    const stop = new AbortController();
    const running = reconciler.run(stop.signal);
    for (
      const [fault, other] of [
        ["link set eth0 down", ""],
        ["link set eth0 up; addr add fd99::1/64 dev eth0 nodad", ""],
        ["link set eth1 down", ""],
        ["link set eth1 up", ""],
        ["link set eth0 down; link set eth0 name wan0; link set wan0 up", " wan0 "],
        ["link set wan0 down; link set wan0 name eth0; link set eth0 up", ""],
      ] as const
    ) {
      await t.step(fault, async () => {
        node.run(fault);
        const expected = other === "" ? right : right.replaceAll(" eth0 ", other);
        await eventually("the repair", () => snapshot(ns, devices) === expected, HEAL_MS);
        assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
      });
    }
    stop.abort();
    await running;
    assert.deepEqual(log.lines.filter((line) => line.startsWith("error")), []);
  },
);
