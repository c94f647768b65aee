import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { vxlanLink } from "../../../tests/support/vxlan_link.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import type { TunLink } from "../../kernel_state.ts";
import { Reconciler } from "./reconciler.ts";
import { bind, socket } from "../sys/sockets.ts";
import { socketAddress } from "../sys/socket_address.ts";
import { readSysctl, writeSysctl } from "../sys/sysctl.ts";
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from "../uapi/socket.ts";

const TUN: TunLink = {
  kind: "link",
  name: "flannel0",
  mtuBytes: 1472,
  info: { type: "tun", queueLength: 1000 },
};

/** A namespace with an outer device, and a reconciler in it. */
class VxlanNode implements Disposable {
  readonly ns = new ScratchNamespace();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler;

  constructor() {
    this.ns.addOuterDevice();
    this.reconciler = this.ns.run(() => new Reconciler({ log: this.log }));
  }

  names(): string[] {
    return this.ns.ipJson("link show").map(({ ifname }) => ifname).toSorted();
  }

  [Symbol.dispose](): void {
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
  }
}

rootTest("another program's VXLAN device with denim's VNI and port is named, and stays", () => {
  using node = new VxlanNode();
  node.ns.ip("link add cilium_vxlan type vxlan id 1 dstport 8472 dev eth0 local 10.99.0.1");
  node.reconciler.set("node", [vxlanLink()]);
  const [failure, ...more] = node.reconciler.apply().failures;
  assert.match(
    failure!,
    /^make device flannel\.1: .*; device cilium_vxlan has VNI 1 and UDP port 8472; remove it \(ip link del cilium_vxlan\)/,
  );
  assert.deepEqual(more, []);
  assert.ok(node.names().includes("cilium_vxlan"));
});

rootTest("another program's VXLAN device that holds denim's port alone is named", () => {
  using node = new VxlanNode();
  // Of another kind, so that the kernel does not let the two share a socket.
  node.ns.ip("link add cilium_vxlan type vxlan external dstport 8472");
  node.ns.ip("link set cilium_vxlan up");
  node.reconciler.set("node", [vxlanLink()]);
  const { failures } = node.reconciler.apply();
  assert.match(failures.join(), /; device cilium_vxlan has VNI 0 and UDP port 8472; remove it/);
});

rootTest("a program that holds denim's port is said to be one", () => {
  using node = new VxlanNode();
  using _socket = node.ns.run(() => {
    const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bind(fd, socketAddress(IpAddress.parse("0.0.0.0"), 8472));
    return fd;
  });
  node.reconciler.set("node", [vxlanLink()]);
  const { failures } = node.reconciler.apply();
  assert.match(failures.join(), /; another program has UDP port 8472 \(ss -ulnp shows which\)/);
});

rootTest("a device with another's VNI and port is made in the same pass as that one goes", () => {
  using node = new VxlanNode();
  const { reconciler } = node;
  reconciler.set("a", [vxlanLink({}, { name: "first" })]);
  assert.deepEqual(reconciler.apply().failures, []);
  reconciler.set("b", [vxlanLink({}, { name: "second" })]);
  reconciler.delete("a");
  assert.deepEqual(reconciler.apply(), { changes: 2, failures: [] });
  assert.deepEqual(node.names(), ["eth0", "eth1", "lo", "second"]);
});

rootTest(
  "a TUN device that a living program reads is left to it, and the program named",
  async () => {
    using node = new VxlanNode();
    // flannel's own way: one queue, and gone with the program.
    const held = new Deno.Command(Deno.execPath(), {
      args: ["eval", HOLD_TUN, node.ns.path],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = held.stdout.getReader();
    await reader.read();
    node.reconciler.set("node", [TUN]);
    const { failures } = node.reconciler.apply();
    assert.deepEqual(failures, [
      `device flannel0 belongs to deno (process ${held.pid}); stop that program, or choose another Backend in net-conf`,
    ]);
    assert.ok(node.names().includes("flannel0"));
    await held.stdin.close();
    await reader.cancel();
    await held.status;
    assert.deepEqual(node.reconciler.check().failures, []);
    const [link] = node.ns.ipJson("-d link show flannel0");
    assert.ok(link.linkinfo.info_data.persist && link.linkinfo.info_data.multi_queue);
  },
);

rootTest(
  "a VXLAN device that takes advertised routes is told not to, and so a check says nothing",
  () => {
    using node = new VxlanNode();
    const { reconciler, ns } = node;
    const setting = "net/ipv6/conf/flannel.1/accept_ra";
    reconciler.set("node", [vxlanLink()]);
    reconciler.check();
    assert.equal(ns.run(() => readSysctl(setting)), "0");
    ns.run(() => writeSysctl(setting, "1"));
    assert.deepEqual(reconciler.check(), { changes: 1, failures: [] });
    assert.equal(ns.run(() => readSysctl(setting)), "0");
    assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
  },
);

rootTest("denim's devices have IPv6 where new devices are made without", () => {
  using node = new VxlanNode();
  const { reconciler, ns } = node;
  ns.run(() => writeSysctl("net/ipv6/conf/default/disable_ipv6", "1"));
  const address = IpAddress.parse("fc00:5:0:1::");
  reconciler.set("node", [
    TUN,
    { kind: "address", device: "flannel0", address, prefixLength: 128 },
    { kind: "route", destination: Cidr.parse("fc00:5::/48"), device: "flannel0", source: address },
  ]);
  assert.deepEqual(reconciler.apply().failures, []);
  assert.match(ns.ip("-6 addr show flannel0"), /fc00:5:0:1::\/128/);
  assert.match(ns.ip("-6 route show"), /fc00:5::\/48 dev flannel0/);
});

rootTest("a device that could not be made as wanted leaves nothing behind", () => {
  using node = new VxlanNode();
  const { reconciler } = node;
  reconciler.set("node", [{ ...TUN, mtuBytes: 10 }]);
  assert.match(reconciler.apply().failures.join(), /^change device flannel0: /);
  assert.deepEqual(node.names(), ["eth0", "eth1", "lo"]);
});

/** A program that opens flannel0 in a namespace, as flanneld does, says so, and reads until its input ends. */
const HOLD_TUN = `
  const { NetworkNamespace } = await import(${
  JSON.stringify(import.meta.resolve("../sys/namespace.ts"))
});
  const libc = await import(${JSON.stringify(import.meta.resolve("../sys/libc.ts"))});
  using namespace = NetworkNamespace.open(Deno.args[0]);
  namespace.enter();
  using tun = libc.open("/dev/net/tun", 2);
  const request = new DataView(new ArrayBuffer(40));
  new TextEncoder().encodeInto("flannel0", new Uint8Array(request.buffer));
  request.setUint16(16, 0x1001, true); // IFF_TUN | IFF_NO_PI
  libc.ioctl(tun, 0x400454ca, request, "TUNSETIFF");
  console.log("held");
  await Deno.stdin.read(new Uint8Array(1));
`;
