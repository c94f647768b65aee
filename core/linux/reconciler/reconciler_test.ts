import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { vxlanLink } from "../../../tests/support/vxlan_link.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import {
  ALL_DEVICES,
  type KernelState,
  nexthopId,
  type PodNetwork,
  type VxlanLink,
} from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { DesiredView } from "./kernel_table.ts";
import { LinuxTables, type UnderlayNews } from "./linux_tables.ts";
import { Reconciler, type ReconcilerOptions } from "./reconciler.ts";
import { readSysctl, writeSysctl } from "../sys/sysctl.ts";

const DEVICE = "flannel.1";

/** A namespace with an outer device, dual stack, and a reconciler in it. */
class ReconciledNode implements Disposable {
  readonly ns = new ScratchNamespace();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler;

  constructor() {
    this.ns.addOuterDevice({ ipv6: true });
    this.reconciler = this.open();
  }

  open(cluster = 5, options: Partial<ReconcilerOptions> = {}): Reconciler {
    const reconciler = this.ns.run(() => new Reconciler({ log: this.log, ...options }));
    reconciler.networks = networks(cluster);
    return reconciler;
  }

  /** Every route that is not the kernel's own, of both families, as `destination device`. */
  routes(): string[] {
    return ["-4", "-6"].flatMap((family) => this.ns.ipJson(`${family} route show`))
      .filter(({ protocol }) => protocol !== "kernel").map(({ dst, dev }) => `${dst} ${dev}`);
  }

  neighbours(): string[] {
    return this.ns.ipJson(`neigh show dev ${DEVICE}`).map(({ dst, lladdr, state }) =>
      `${dst} ${lladdr} ${state}`
    );
  }

  /** How many neighbours, FDB entries, nexthops and routes there are. */
  counts(): number[] {
    const count = (what: () => unknown[]) => {
      try {
        return what().length;
      } catch {
        return 0; // no such device
      }
    };
    return [
      count(() => this.neighbours()),
      count(() => this.ns.fdb(DEVICE)),
      count(() => this.ns.ipJson("nexthop show")),
      count(() => this.routes()),
    ];
  }

  [Symbol.dispose](): void {
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
  }
}

/** Counts how often anybody lists the kernel's objects. */
class DumpCounter extends NetlinkSocket {
  static dumps = 0;

  override dump<T>(...args: Parameters<typeof NetlinkSocket.prototype.dump<T>>): T[] {
    DumpCounter.dumps++;
    return super.dump(...args);
  }
}

/** The networks of a cluster; all tests but one have one cluster, number 5. */
function networks(cluster: number): PodNetwork[] {
  return [
    { network: Cidr.parse(`10.${cluster}.0.0/16`), subnetLength: 24 },
    { network: Cidr.parse(`fc00:${cluster}::/48`), subnetLength: 64 },
  ];
}

function subnetOf(number: number, family: 4 | 6 = 4, cluster = 5): Cidr {
  return Cidr.parse(
    family === 4 ? `10.${cluster}.${number}.0/24` : `fc00:${cluster}:0:${number}::/64`,
  );
}

function own(link = vxlanLink(), cluster = 5): KernelState {
  const { address } = subnetOf(0, 4, cluster);
  return [link, { kind: "address", device: link.name, address, prefixLength: 32 }];
}

function peer(number: number, family: 4 | 6 = 4, cluster = 5, device = DEVICE): KernelState {
  const subnet = subnetOf(number, family, cluster);
  const mac = MacAddress.fromBytes(new Uint8Array([2, 0, 0, 0, family, number]));
  const id = nexthopId(subnet);
  return [
    { kind: "fdb", device, mac, remote: IpAddress.parse(`10.99.0.${number}`) },
    { kind: "neighbour", device, address: subnet.address, mac },
    { kind: "nexthop", id, device, via: subnet.address },
    { kind: "route", destination: subnet, nexthopId: id },
  ];
}

/** A peer on the same link, reached without a tunnel. */
function directPeer(number: number, family: 4 | 6 = 4, cluster = 5): KernelState {
  const subnet = subnetOf(number, family, cluster);
  const via = IpAddress.parse(family === 4 ? `10.99.0.${number}` : `fd99::${number}`);
  const id = nexthopId(subnet);
  return [
    { kind: "nexthop", id, device: "eth0", via },
    { kind: "route", destination: subnet, nexthopId: id },
  ];
}

rootTest("the kernel gets what owners want, and loses what they give up", () => {
  using node = new ReconciledNode();
  const { reconciler, ns } = node;
  reconciler.set("node", own());
  reconciler.set("a", [...peer(2), ...peer(3, 6)]);
  reconciler.set("b", peer(4));
  assert.deepEqual(reconciler.check().failures, []);
  const [link] = ns.ipJson(`-d link show ${DEVICE}`);
  assert.equal(link.mtu, 1450);
  assert.equal(link.address, `${vxlanLink().mac}`);
  assert.equal(ns.run(() => readSysctl(`net/ipv6/conf/${DEVICE}/accept_ra`)), "0");
  const { id, port, local, link: outer, learning } = link.linkinfo.info_data;
  assert.deepEqual([id, port, local, outer, learning], [1, 8472, "10.99.0.1", "eth0", false]);
  assert.deepEqual(node.routes(), [
    `10.5.2.0/24 ${DEVICE}`,
    `10.5.4.0/24 ${DEVICE}`,
    `fc00:5:0:3::/64 ${DEVICE}`,
  ]);
  assert.ok(node.neighbours().includes("fc00:5:0:3:: 02:00:00:00:06:03 PERMANENT"));
  assert.deepEqual(node.counts(), [3, 3, 3, 3]);
  assert.equal(reconciler.check().changes, 0, "what is right is left alone");

  reconciler.set("b", peer(5));
  reconciler.delete("a");
  assert.deepEqual(reconciler.apply().failures, []);
  assert.deepEqual(node.routes(), [`10.5.5.0/24 ${DEVICE}`]);
  assert.deepEqual(node.counts(), [1, 1, 1, 1]);

  reconciler.delete("b");
  reconciler.delete("node");
  assert.deepEqual(reconciler.apply().failures, []);
  assert.throws(() => ns.ip(`link show ${DEVICE}`));
});

rootTest("a peer that comes back under another owner in one step keeps what it has", () => {
  using node = new ReconciledNode();
  const { reconciler } = node;
  reconciler.set("node", own());
  reconciler.set("old", peer(2));
  reconciler.check();
  reconciler.set("new", peer(2));
  reconciler.delete("old");
  assert.equal(reconciler.apply().changes, 0);
  assert.deepEqual(node.counts(), [1, 1, 1, 1]);
});

rootTest("what several want stays until the last of them gives it up", () => {
  using node = new ReconciledNode();
  const { reconciler, ns } = node;
  // A node with a new lease keeps its VTEP, and its old lease lives on for a while.
  const [fdb] = peer(2);
  const later = { ...fdb, remote: IpAddress.parse("10.99.0.77") } as typeof fdb;
  reconciler.set("node", own());
  reconciler.set("new", [fdb!]);
  reconciler.set("old", [later!]);
  reconciler.set("third", [fdb!]);
  reconciler.set("old", [later!]);
  reconciler.check();
  const remotes = () => ns.fdb(DEVICE).map(({ dst }) => dst);
  assert.deepEqual(remotes(), ["10.99.0.77"]);
  reconciler.delete("third");
  reconciler.delete("old");
  assert.deepEqual(reconciler.apply().failures, []);
  assert.deepEqual(remotes(), ["10.99.0.2"]);
  reconciler.delete("new");
  reconciler.apply();
  assert.deepEqual(remotes(), []);
});

rootTest("of routes to the same place, strangers' on their own devices stay", () => {
  using node = new ReconciledNode();
  const { reconciler, ns } = node;
  reconciler.set("node", own());
  reconciler.set("peer", [...peer(2), ...peer(3, 6)]);
  reconciler.check();
  for (
    const [first, second] of [
      ["route add 10.66.0.0/16 via 10.99.0.9 dev eth0", "route append 10.66.0.0/16 dev"],
      ["-6 route add fc66::/64 via fd99::9 dev eth0", "-6 route append fc66::/64 dev"],
      ["route append 10.5.2.0/24 via 10.99.0.9 dev eth0", "route append 10.5.2.0/24 dev"],
      [
        "-6 route append fc00:5:0:3::/64 via fd99::9 dev eth0",
        "-6 route append fc00:5:0:3::/64 dev",
      ],
    ] as const
  ) {
    ns.ip(first);
    ns.ip(`${second} ${DEVICE}`);
  }
  assert.deepEqual(reconciler.check().failures, []);
  assert.equal(reconciler.check().changes, 0);
  assert.deepEqual(node.routes().toSorted(), [
    "10.5.2.0/24 eth0",
    `10.5.2.0/24 ${DEVICE}`,
    "10.66.0.0/16 eth0",
    "fc00:5:0:3::/64 eth0",
    `fc00:5:0:3::/64 ${DEVICE}`,
    "fc66::/64 eth0",
  ]);
});

rootTest("a device that goes in the middle of a check is a failure, and is made again", () => {
  using node = new ReconciledNode();
  const { ns } = node;
  class DeletingLog extends RecordingLog {
    // Said while devices are made, after they were listed.
    override readonly info = () => ns.ip(`link del ${DEVICE}`);
  }
  using reconciler = ns.run(() => new Reconciler({ log: new DeletingLog() }));
  const second = (port: number) => vxlanLink({ vni: 2, port }, { name: "flannel.2" });
  reconciler.set("node", [...own(), second(8472)]);
  assert.deepEqual(reconciler.check().failures, []);
  reconciler.set("node", [...own(), second(4789)]);
  assert.match(reconciler.check().failures.join(), /no such device \(ENODEV\)/);
  assert.deepEqual(reconciler.check().failures, []);
  assert.match(ns.ip(`-4 addr show ${DEVICE}`), /10\.5\.0\.0\/32/);
});

rootTest("what flanneld left is taken over, what no owner wants goes, others' stays", () => {
  using node = new ReconciledNode();
  const { ns, reconciler } = node;
  ns.ip(
    `link add ${DEVICE} address ${vxlanLink().mac} mtu 1450 type vxlan id 1 dstport 8472 local 10.99.0.1 ` +
      "dev eth0 nolearning",
  );
  ns.ip(`link set ${DEVICE} up`);
  ns.ip(`addr add 10.5.0.0/32 dev ${DEVICE}`);
  ns.ip(`addr add 10.5.9.0/32 dev ${DEVICE}`);
  const { ifindex } = ns.ipJson(`link show ${DEVICE}`)[0];
  for (const number of [2, 7]) {
    ns.ip(`neigh add 10.5.${number}.0 lladdr 02:00:00:00:04:0${number} dev ${DEVICE}`);
    ns.ip(`route add 10.5.${number}.0/24 via 10.5.${number}.0 dev ${DEVICE} onlink`);
  }
  ns.ip("route add 10.77.0.0/16 via 10.99.0.9 dev eth0");
  ns.ip("nexthop add id 5 via 10.99.0.9 dev eth0");
  reconciler.set("node", own());
  reconciler.set("peer", peer(2));
  assert.deepEqual(reconciler.check().failures, []);
  assert.equal(ns.ipJson(`link show ${DEVICE}`)[0].ifindex, ifindex, "the device is the same");
  assert.deepEqual(node.routes(), [`10.5.2.0/24 ${DEVICE}`, "10.77.0.0/16 eth0"]);
  assert.equal(ns.ipJson("route show 10.5.2.0/24")[0].nhid, nexthopId(Cidr.parse("10.5.2.0/24")));
  assert.deepEqual(node.neighbours(), ["10.5.2.0 02:00:00:00:04:02 PERMANENT"]);
  const addresses = ns.ipJson(`-4 addr show ${DEVICE}`)[0].addr_info;
  assert.deepEqual(addresses.map(({ local }: { local: string }) => local), ["10.5.0.0"]);
  assert.equal(ns.ipJson("nexthop show").length, 2);
});

rootTest("a second reconciler finds nothing to do in what the first one left", () => {
  using node = new ReconciledNode();
  node.reconciler.set("node", own());
  node.reconciler.set("peer", peer(2));
  node.reconciler.check();
  using second = node.open();
  second.set("node", own());
  assert.equal(second.apply().changes, 1, "the address is set again, which changes nothing");
  second.set("peer", peer(2));
  assert.equal(second.check().changes, 0);
});

rootTest(
  "a device of another VNI or port is made again, one of another MTU or address changed",
  () => {
    using node = new ReconciledNode();
    const { ns, reconciler } = node;
    const index = () => ns.ipJson(`link show ${DEVICE}`)[0].ifindex;
    reconciler.set("node", own());
    reconciler.set("peer", peer(2));
    reconciler.check();
    const first = index();
    const changed = vxlanLink({ local: IpAddress.parse("10.99.0.77"), learning: true }, {
      mtuBytes: 1400,
    });
    reconciler.set("node", own(changed));
    assert.deepEqual(reconciler.apply().failures, []);
    assert.equal(index(), first);
    const [link] = ns.ipJson(`-d link show ${DEVICE}`);
    assert.deepEqual([link.mtu, link.linkinfo.info_data.local], [1400, "10.99.0.77"]);
    assert.deepEqual(node.neighbours().length, 1, "a change costs no neighbour");
    reconciler.set("node", own(vxlanLink({ port: 4789 })));
    assert.deepEqual(reconciler.apply().failures, []);
    assert.notEqual(index(), first);
    assert.deepEqual(node.counts(), [1, 1, 1, 1], "and what lay on it is there again");
  },
);

rootTest("a device's new name is reported also if a check sees it first", async () => {
  using node = new ReconciledNode();
  const news: UnderlayNews[] = [];
  using reconciler = node.open(5, { onUnderlay: (it) => news.push(it) });
  const stopping = new AbortController();
  const running = reconciler.run(stopping.signal);
  node.ns.ip("link set eth0 down");
  node.ns.ip("link set eth0 name uplink0");
  reconciler.check();
  stopping.abort();
  await running;
  assert.ok(news.some(({ device }) => device === "eth0"));
});

rootTest("agents of two clusters in one namespace leave each other alone", async () => {
  using node = new ReconciledNode();
  const { ns } = node;
  const news: UnderlayNews[] = [];
  const clusters = [5, 6].map((cluster) => {
    const name = `flannel.${cluster - 4}`;
    const onUnderlay = (it: UnderlayNews) => news.push(it);
    const open = (desired: DesiredView) =>
      new LinuxTables({ desired, log: node.log, onUnderlay, openSocket: () => new DumpCounter() });
    const reconciler = node.open(cluster, { open });
    const peers = (first: number) => [
      ...peer(first, 4, cluster, name),
      ...peer(first, 6, cluster, name),
      ...directPeer(first + 1, 4, cluster),
      ...directPeer(first + 1, 6, cluster),
    ];
    reconciler.set("node", own(vxlanLink({ vni: cluster - 4 }, { name }), cluster));
    reconciler.set("peers", peers(2));
    return { reconciler, peers };
  });
  const [a, b] = clusters as [typeof clusters[0], typeof clusters[0]];
  using _a = a.reconciler;
  using _b = b.reconciler;
  for (const { reconciler } of clusters) assert.deepEqual(reconciler.check().failures, []);
  for (let round = 0; round < 3; round++) {
    for (const { reconciler } of clusters) assert.equal(reconciler.check().changes, 0);
  }
  assert.equal(node.routes().length, 8);

  const stop = new AbortController();
  const running = a.reconciler.run(stop.signal);
  // What the kernel says of this comes after all that it said before.
  const heardAll = () => {
    ns.ip("route del 10.5.2.0/24");
    return eventually("the route", () => node.routes().includes("10.5.2.0/24 flannel.1"));
  };
  await heardAll();
  news.length = 0;
  const before = DumpCounter.dumps;
  for (const first of [12, 22]) {
    b.reconciler.set("peers", b.peers(first));
    assert.deepEqual(b.reconciler.apply().failures, []);
  }
  ns.ip("link set flannel.2 down");
  ns.ip("link set flannel.2 up");
  await heardAll();
  const dumps = DumpCounter.dumps - before;
  stop.abort();
  await running;
  assert.equal(dumps, 0, "the other's doings are no cause for a check");
  assert.deepEqual(
    [...new Set(news.map(({ device, destination }) => `${device ?? destination}`))],
    [
      "flannel.2",
      "fe80::/64",
    ],
  );
  assert.deepEqual(
    node.log.lines,
    Array(2).fill(
      "warn another program changed the kernel's state; repaired: put route 10.5.2.0/24",
    ),
  );

  // A later run that wants nothing of what this one made, and knows nothing of it.
  using later = node.open(5);
  later.set("node", own());
  assert.deepEqual(later.check().failures, []);
  assert.equal(b.reconciler.check().changes, 6, "what lay on flannel.2 when it was set down");
  assert.deepEqual(node.routes().toSorted(), [
    "10.6.22.0/24 flannel.2",
    "10.6.23.0/24 eth0",
    "fc00:6:0:22::/64 flannel.2",
    "fc00:6:0:23::/64 eth0",
  ]);
  assert.equal(ns.ipJson("nexthop show").length, 4);
});

rootTest("a stranger's route in the way is named and left, until it goes", async () => {
  using node = new ReconciledNode();
  const { ns, reconciler } = node;
  ns.ip("route add 10.5.2.0/24 via 10.99.0.9 dev eth0");
  reconciler.set("node", own());
  reconciler.set("peer", peer(2));
  const { failures } = reconciler.check();
  assert.equal(failures.length, 1);
  assert.match(failures[0]!, /route 10\.5\.2\.0\/24: another program's stands in the way/);
  assert.deepEqual(node.routes(), ["10.5.2.0/24 eth0"]);
  const stop = new AbortController();
  const running = reconciler.run(stop.signal);
  await eventually("the complaint", () => node.log.of("reconcile-failed").length > 0);
  assert.match(node.log.of("reconcile-failed")[0]!.message, /put route 10\.5\.2\.0\/24/);
  // As a routing daemon does that says the same again.
  ns.ip("route replace 10.5.2.0/24 via 10.99.0.8 dev eth0");
  assert.match(reconciler.check().failures.join(), /10\.5\.2\.0/);
  assert.deepEqual(node.routes(), ["10.5.2.0/24 eth0"]);
  assert.deepEqual(node.log.of("drift-repaired"), []);
  ns.ip("route del 10.5.2.0/24");
  await eventually("the route", () => node.routes()[0] === `10.5.2.0/24 ${DEVICE}`);
  stop.abort();
  await running;
});

rootTest("a kernel that lacks the kind of device says so, and what to do", () => {
  using node = new ReconciledNode();
  // This kernel has VXLAN; a kind that no kernel has stands in for it.
  const info = { ...vxlanLink().info, type: "denim-none" } as unknown as VxlanLink["info"];
  node.reconciler.set("node", [vxlanLink({}, { info })]);
  const { failures } = node.reconciler.apply();
  assert.match(failures.join(), /Unknown device type \(EOPNOTSUPP\); load the kernel's module/);
});

rootTest("what can't be written for want of its device fails alone", () => {
  using node = new ReconciledNode();
  const { ns, reconciler } = node;
  const address = IpAddress.parse("10.88.0.1");
  reconciler.set("good", [{ kind: "address", device: "eth0", address, prefixLength: 32 }]);
  reconciler.set("bad", [
    { kind: "address", device: "gone", address, prefixLength: 32 },
    { kind: "nexthop", id: 7, device: "gone", via: address },
  ]);
  const { failures } = reconciler.apply();
  assert.equal(failures.length, 2, failures.join("\n"));
  for (const failure of failures) assert.match(failure, /no such device \(ENODEV\)/);
  assert.match(ns.ip("addr show eth0"), /10\.88\.0\.1\/32/);
});

rootTest("a node that stops forwarding is made to forward again", async (t) => {
  using node = new ReconciledNode();
  const { ns, reconciler } = node;
  const read = (path: string) => ns.run(() => readSysctl(`net/${path}`));
  const write = (path: string, value: string) => ns.run(() => writeSysctl(`net/${path}`, value));
  const names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/eth0/forwarding"];
  const forwarding = (family: 4 | 6, device: string) =>
    ({ kind: "forwarding", family, device }) as const;
  for (const name of names) write(name, "0");
  reconciler.set("node", own());
  reconciler.set("host", [
    forwarding(4, ALL_DEVICES),
    forwarding(6, ALL_DEVICES),
    forwarding(4, "eth0"),
    forwarding(4, "eth7"), // not there: nothing is amiss
    forwarding(4, DEVICE),
  ]);
  assert.deepEqual(reconciler.check().failures, []);
  for (const name of names) assert.equal(read(name), "1", name);
  assert.equal(reconciler.check().changes, 0);

  const stop = new AbortController();
  const running = reconciler.run(stop.signal);
  for (const name of [...names, `ipv4/conf/${DEVICE}/forwarding`]) {
    await t.step(name, async () => {
      if (name === "ipv4/conf/eth0/forwarding") {
        // A stranger's, on no way of pods' packets.
        write("ipv4/conf/eth1/forwarding", "0");
      }
      write(name, "0");
      await eventually("the repair", () => read(name) === "1", 1000);
    });
  }
  assert.equal(read("ipv4/conf/eth1/forwarding"), "0");
  assert.ok(
    node.log.of("drift-repaired").some(({ message }) => message.includes("put IPv6 forwarding")),
    node.log.lines.join("\n"),
  );

  await t.step("a device that comes later", async () => {
    write("ipv4/conf/default/forwarding", "0");
    ns.ip("link add eth7 type veth peer name eth8");
    ns.ip("link set eth8 up");
    ns.ip("link set eth7 up");
    await eventually("the repair", () => read("ipv4/conf/eth7/forwarding") === "1", 1000);
    assert.equal(read("ipv4/conf/eth8/forwarding"), "0");
  });

  reconciler.delete("host");
  assert.equal(reconciler.apply().changes, 0);
  assert.equal(read("ipv4/ip_forward"), "1", "others may rely on it by now");
  write("ipv4/ip_forward", "0");
  assert.equal(reconciler.check().changes, 0);
  assert.equal(read("ipv4/ip_forward"), "0");
  stop.abort();
  await running;
  assert.deepEqual(node.log.lines.filter((line) => line.startsWith("error")), []);
});

rootTest("routes by the outer device come back with it, and with its carrier", async (t) => {
  using node = new ReconciledNode();
  const { ns, reconciler } = node;
  reconciler.set("peer", directPeer(2));
  assert.deepEqual(reconciler.check().failures, []);
  const stop = new AbortController();
  const running = reconciler.run(stop.signal);
  for (
    const [fault, end] of [
      // Carrier: the other end of the cable.
      ["link set eth1 down", "link set eth1 up"],
      ["link set eth0 down", "link set eth0 up"],
    ] as const
  ) {
    await t.step(fault, async () => {
      ns.ip(fault);
      await eventually("the loss", () => ns.ipJson("nexthop show").length === 0);
      ns.ip(end);
      await eventually("the repair", () => node.routes().length === 1, 1000);
    });
  }
  stop.abort();
  await running;
});
