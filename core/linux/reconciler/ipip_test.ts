/** IPIP devices, and routes by them, in a kernel that has them. */

import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import { type KernelObject, nexthopId } from "../../kernel_state.ts";
import { Reconciler } from "./reconciler.ts";

const NEEDS = { linkType: "ipip" };
const DEVICE = "flannel.ipip";

/** A node with this number, in its address and its subnet. */
class Node implements Disposable {
  readonly ns = new ScratchNamespace();
  readonly reconciler: Reconciler = this.ns.run(() => new Reconciler({ log: new RecordingLog() }));
  readonly number: number;

  constructor(number: number) {
    this.number = number;
  }

  state(changes: { readonly local?: string; readonly mtuBytes?: number } = {}): KernelObject[] {
    const { local = `10.99.0.${this.number}`, mtuBytes = 1480 } = changes;
    const info = { type: "ipip", local: IpAddress.parse(local) } as const;
    const address = IpAddress.parse(`10.5.${this.number}.0`);
    return [
      { kind: "link", name: DEVICE, mtuBytes, info },
      { kind: "address", device: DEVICE, address, prefixLength: 32 },
    ];
  }

  peer(number: number): KernelObject[] {
    const destination = Cidr.parse(`10.5.${number}.0/24`);
    const id = nexthopId(destination);
    const via = IpAddress.parse(`10.99.0.${number}`);
    return [
      { kind: "nexthop", id, device: DEVICE, via },
      { kind: "route", destination, nexthopId: id },
    ];
  }

  /** What the kernel has, as iproute2 tells it. */
  link(): { readonly local: string; readonly pmtudisc: boolean; readonly mtu: number } {
    const [{ linkinfo: { info_data: { local, pmtudisc } }, mtu }] = this.ns.ipJson(
      `-d link show ${DEVICE}`,
    );
    return { local, pmtudisc, mtu };
  }

  [Symbol.dispose](): void {
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
  }
}

rootTest("IPIP: two nodes talk by one device each, up to the largest packet", () => {
  using a = new Node(1);
  using b = new Node(2);
  a.ns.ip(`link add eth0 type veth peer name eth0 netns ${b.ns.name}`);
  for (const [node, other] of [[a, 2], [b, 1]] as const) {
    node.ns.ip("link set lo up");
    node.ns.ip(`addr add 10.99.0.${node.number}/24 dev eth0`);
    node.ns.ip("link set eth0 up");
    node.reconciler.set("node", node.state());
    node.reconciler.set("peer", node.peer(other));
    assert.deepEqual(node.reconciler.check().failures, []);
    assert.deepEqual(node.reconciler.check(), { changes: 0, failures: [] });
    assert.deepEqual(node.link(), { local: `10.99.0.${node.number}`, pmtudisc: false, mtu: 1480 });
  }
  // 1480 less 20 of IPv4's header and 8 of ICMP's.
  a.ns.run(() => sh("ping -c 2 -i 0.2 -W 2 -M do -s 1452 10.5.2.0"));
}, NEEDS);

rootTest("IPIP: flannel's device is taken over, one from another address made again", () => {
  using node = new Node(1);
  const { ns, reconciler } = node;
  ns.addOuterDevice();
  ns.ip(`link add ${DEVICE} type ipip local 10.99.0.1 nopmtudisc`);
  ns.ip(`link set ${DEVICE} up mtu 1480`);
  const index = () => ns.ipJson(`link show ${DEVICE}`)[0].ifindex;
  const before = index();
  reconciler.set("node", node.state());
  reconciler.set("peer", node.peer(2));
  assert.deepEqual(reconciler.check().failures, []);
  assert.equal(index(), before);
  reconciler.set("node", node.state({ local: "10.99.0.7", mtuBytes: 1400 }));
  assert.deepEqual(reconciler.apply().failures, []);
  assert.equal(node.link().local, "10.99.0.7");
  assert.equal(node.link().mtu, 1400);
  assert.match(ns.ip("route show 10.5.2.0/24"), /via 10\.99\.0\.2 dev flannel\.ipip/);
  reconciler.delete("node");
  reconciler.delete("peer");
  assert.deepEqual(reconciler.apply().failures, []);
  assert.ok(!ns.ip("link show").includes(DEVICE));
}, NEEDS);

rootTest("IPIP: another tunnel from the same address is named", () => {
  using node = new Node(1);
  node.ns.addOuterDevice();
  node.ns.ip("link add theirs type ipip local 10.99.0.1");
  node.reconciler.set("node", node.state());
  assert.match(
    node.reconciler.apply().failures.join(),
    /make device flannel\.ipip: .*; device theirs is a tunnel from 10\.99\.0\.1 too; remove it/,
  );
}, NEEDS);
