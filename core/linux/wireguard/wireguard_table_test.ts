import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { hasLinkType, rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { eventually } from "../../../tests/support/wait.ts";
import {
  octets,
  wireguardDevice,
  wireguardLink,
  wireguardPeer,
} from "../../../tests/support/wireguard_objects.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import { socketAddress } from "../sys/socket_address.ts";
import { bind, socket } from "../sys/sockets.ts";
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from "../uapi/socket.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { Reconciler } from "../reconciler/reconciler.ts";
import type { FoundPeer } from "./wireguard_hand.ts";
import { WireguardTable } from "./wireguard_table.ts";

/** A namespace with a device of a name of its own, since programs' sockets share a folder; and a reconciler. */
class WireguardNode implements Disposable {
  readonly ns = new ScratchNamespace();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler = this.ns.run(() => new Reconciler({ log: this.log }));
  readonly device = `wg${crypto.getRandomValues(new Uint8Array(4)).toHex()}`;

  state(changes: Parameters<typeof wireguardDevice>[0] = {}) {
    const { device } = this;
    return [wireguardLink(device), wireguardDevice({ device, ...changes })];
  }

  peer(...[number, changes]: Parameters<typeof wireguardPeer>) {
    return wireguardPeer(number, { device: this.device, ...changes });
  }

  /** What wg(8) says of the device: its port, and a line for each peer. */
  dump(): string[] {
    const [own, ...peers] = this.wg("show", "dump").trim().split("\n");
    const words = peers.map((peer) => peer.split("\t"));
    return [
      own!.split("\t")[2]!,
      ...words.map((peer) => [...peer.slice(0, 4), peer[7]].join(" ")).sort(),
    ];
  }

  wg(command: "show" | "set", rest: string): string {
    return sh(`nsenter --net=${this.ns.path} wg ${command} ${this.device} ${rest}`);
  }

  [Symbol.dispose](): void {
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
    // A program ends when its socket goes.
    sh(`rm -f /run/wireguard/${this.device}.sock`);
  }
}

/** wg's line for a peer, without what it counts. */
function line(number: number, subnet = `10.5.${number}.0/24`, keepalive = "off"): string {
  return `${octets(number).toBase64()} (none) 10.99.0.${number}:51820 ${subnet} ${keepalive}`;
}

const NEEDS = { program: "wireguard-go" };

rootTest("WireGuard: a device has what owners want, and others' peers go", () => {
  using node = new WireguardNode();
  const { reconciler } = node;
  reconciler.set("node", node.state());
  reconciler.set("a", [node.peer(2)]);
  reconciler.set("b", [node.peer(3, { keepaliveSeconds: 25 })]);
  assert.deepEqual(reconciler.apply().failures, []);
  const b = line(3, undefined, "25");
  assert.deepEqual(node.dump(), ["51820", line(2), b]);
  assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });

  // Others' changes.
  node.wg("set", `peer ${octets(9).toBase64()} allowed-ips 10.5.9.0/24`);
  node.wg("set", `peer ${octets(2).toBase64()} remove`);
  node.wg("set", `peer ${octets(3).toBase64()} allowed-ips 10.5.77.0/24 persistent-keepalive 7`);
  node.wg("set", "listen-port 7777");
  assert.deepEqual(reconciler.check(), { changes: 4, failures: [] });
  assert.deepEqual(node.dump(), ["51820", line(2), b]);

  // A peer that has lost its key: its subnet goes to the new one, and the old one at once.
  reconciler.set("a", [node.peer(4, { allowedIps: [Cidr.parse("10.5.2.0/24")] })]);
  reconciler.delete("b");
  assert.deepEqual(reconciler.apply().failures, []);
  assert.deepEqual(node.dump(), ["51820", line(4, "10.5.2.0/24")]);

  reconciler.delete("node");
  assert.deepEqual(reconciler.apply().failures, []);
  assert.deepEqual(node.ns.ipJson("link show").map(({ ifname }) => ifname), ["lo"]);
}, NEEDS);

rootTest("WireGuard: of two owners with one key the last has it, and then the other again", () => {
  using node = new WireguardNode();
  const { reconciler } = node;
  reconciler.set("node", node.state());
  reconciler.set("old", [node.peer(2)]);
  reconciler.set("new", [node.peer(2, { allowedIps: [Cidr.parse("10.5.7.0/24")] })]);
  reconciler.check();
  assert.deepEqual(node.dump().slice(1), [line(2, "10.5.7.0/24")]);
  reconciler.delete("old");
  reconciler.apply();
  assert.deepEqual(node.dump().slice(1), [line(2, "10.5.7.0/24")]);
}, NEEDS);

rootTest("WireGuard: a device that goes is made again with its peers", async () => {
  using node = new WireguardNode();
  const { reconciler, ns } = node;
  reconciler.set("node", node.state());
  reconciler.set("a", [node.peer(2)]);
  reconciler.check();
  const stop = new AbortController();
  const running = reconciler.run(stop.signal);
  const index = () => ns.ipJson("link show").find(({ ifname }) => ifname === node.device)?.ifindex;
  const before = index();
  ns.ip(`link del ${node.device}`);
  await eventually("another device", () => ![undefined, before].includes(index()));
  await eventually("its peers", () => node.dump().join() === ["51820", line(2)].join());
  stop.abort();
  await running;
}, NEEDS);

rootTest("WireGuard: a program that holds denim's port is said to be one", () => {
  using node = new WireguardNode();
  using _socket = node.ns.run(() => {
    const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bind(fd, socketAddress(IpAddress.parse("0.0.0.0"), 51820));
    return fd;
  });
  node.reconciler.set("node", node.state());
  node.reconciler.set("a", [node.peer(2)]);
  const { failures } = node.reconciler.apply();
  assert.match(failures[0]!, /: another program has UDP port 51820 \(ss -ulnp shows which\)/);
  assert.deepEqual(node.dump().slice(1), [], "its peers wait for the port");
}, NEEDS);

rootTest("WireGuard: without the kernel's and without a program, both remedies are named", () => {
  if (hasLinkType("wireguard")) return; // it needs no program
  using node = new WireguardNode();
  const link = wireguardLink(node.device, "no-such-program");
  node.reconciler.set("node", [link, wireguardDevice({ device: node.device })]);
  const [failure, ...more] = node.reconciler.apply().failures;
  assert.match(
    failure!,
    /no WireGuard, and the program no-such-program .* \(modprobe wireguard\), or install wireguard-go$/,
  );
  assert.deepEqual(more, []);
  assert.deepEqual(node.ns.ipJson("link show").map(({ ifname }) => ifname), ["lo"]);
});

Deno.test("WireGuard: where a peer is heard from is right, whatever its lease says", () => {
  using table = new WireguardTable({
    links: { named: () => undefined },
    context: { isUp: () => true },
    desired: { get: () => undefined, of: () => new Map() },
  });
  const wanted = wireguardPeer(2);
  const elsewhere = { address: IpAddress.parse("192.0.2.7"), port: 4711 };
  const other = new WireguardSecret(octets(8));
  for (
    const [what, changes, expected] of [
      ["the same", {}, true],
      ["elsewhere, silent", { endpoint: elsewhere, isHeard: false }, false],
      ["elsewhere, heard", { endpoint: elsewhere, isHeard: true }, true],
      ["nowhere", { endpoint: undefined, isHeard: false }, false],
      ["another secret", { presharedKey: other, isHeard: true }, false],
      ["keepalive", { keepaliveSeconds: 5, isHeard: true }, false],
      ["networks more", { allowedIps: [...wanted.allowedIps, Cidr.parse("10.5.9.0/24")] }, false],
      ["other networks", { allowedIps: [Cidr.parse("10.5.9.0/24")] }, false],
    ] as const
  ) {
    const found: FoundPeer = { ...wanted, ...changes };
    assert.equal(table.equal(wanted, found), expected, what);
  }
});
