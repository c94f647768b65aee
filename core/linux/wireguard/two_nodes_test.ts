/** Two nodes with WireGuard, each by the kernel's or by a program's, as far as this machine has them. */

import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { report } from "../../../tests/support/report.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { eventually } from "../../../tests/support/wait.ts";
import {
  octets,
  publicKeyOf,
  wireguardDevice,
  wireguardLink,
  wireguardPeer,
} from "../../../tests/support/wireguard_objects.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import type { KernelObject, WireguardPeer } from "../../kernel_state.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { Reconciler } from "../reconciler/reconciler.ts";

const HANDS = ["kernel", "program"] as const;
type Hand = typeof HANDS[number];

/** A node with this number, in its address, its key and its subnet. */
class Node implements Disposable {
  readonly ns = new ScratchNamespace();
  reconciler: Reconciler = this.#agent();
  /** Of its own: programs' sockets share a folder. */
  readonly device = `wg${crypto.getRandomValues(new Uint8Array(4)).toHex()}`;
  readonly number: number;

  constructor(number: number, hand: Hand) {
    this.number = number;
    this.ns.ip("link set lo up");
    this.ns.ip(`addr add 10.5.${number}.1/32 dev lo`);
    // A device that there is already is taken over, whichever it is.
    if (hand === "program") this.ns.run(() => sh(`wireguard-go ${this.device}`));
  }

  get source(): IpAddress {
    return IpAddress.parse(`10.5.${this.number}.0`);
  }

  #agent(): Reconciler {
    return this.ns.run(() => new Reconciler({ log: new RecordingLog() }));
  }

  start(): void {
    this.#want();
    assert.deepEqual(this.reconciler.check().failures, []);
  }

  /** Another agent takes over, which knows of no peer yet. */
  restart(): void {
    this.reconciler[Symbol.dispose]();
    this.reconciler = this.#agent();
    this.#want();
    assert.deepEqual(this.reconciler.apply().failures, []);
  }

  #want(): void {
    const { device, number, source } = this;
    const privateKey = new WireguardSecret(octets(number));
    const objects: KernelObject[] = [
      wireguardLink(device),
      wireguardDevice({ device, privateKey }),
      { kind: "address", device, address: source, prefixLength: 32 },
      { kind: "route", destination: Cidr.parse("10.5.0.0/16"), device, source },
    ];
    this.reconciler.set("node", objects);
  }

  async know(other: Node, changes: Partial<WireguardPeer> = {}): Promise<void> {
    const publicKey = await publicKeyOf(octets(other.number));
    this.reconciler.set("peer", [
      wireguardPeer(other.number, { device: this.device, publicKey, ...changes }),
    ]);
    assert.deepEqual(this.reconciler.apply().failures, []);
  }

  reaches(other: Node): boolean {
    const ping = `ping -c 1 -W 1 -I 10.5.${this.number}.1 10.5.${other.number}.1 >/dev/null`;
    return this.ns.run(() => sh(`${ping} && echo yes || :`)) !== "";
  }

  [Symbol.dispose](): void {
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
    sh(`rm -f /run/wireguard/${this.device}.sock`);
  }
}

function wire(a: Node, b: Node): void {
  a.ns.ip(`link add eth0 type veth peer name eth0 netns ${b.ns.name}`);
  for (const node of [a, b]) {
    node.ns.ip(`addr add 10.99.0.${node.number}/24 dev eth0`);
    node.ns.ip("link set eth0 up");
  }
}

for (const ours of HANDS) {
  for (const theirs of HANDS) {
    const needs = {
      ...[ours, theirs].includes("program") && { program: "wireguard-go" },
      ...[ours, theirs].includes("kernel") && { linkType: "wireguard" },
    };
    rootTest(`WireGuard: a node by the ${ours}'s and one by the ${theirs}'s talk`, async () => {
      using a = new Node(1, ours);
      using b = new Node(2, theirs);
      wire(a, b);
      for (const node of [a, b]) node.start();
      const presharedKey = new WireguardSecret(octets(9));
      // Only one of them begins, and when the other one knows it: else each might miss the other's beginning.
      await b.know(a, { presharedKey, begins: false });
      await a.know(b, { presharedKey });
      await eventually("a packet there and back", () => a.reaches(b), 5_000);
      // Both are as wanted, and where the other is heard is right.
      for (const { reconciler } of [a, b]) {
        assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
      }
      // Another agent of a's leaves alone what is as wanted: packets go where b was heard last, and none is lost.
      const wg = (words: string) => sh(`nsenter --net=${a.ns.path} wg ${words}`);
      b.ns.ip("addr add 10.99.0.12/24 dev eth0");
      wg(`set ${a.device} peer ${wg(`show ${a.device} peers`).trim()} endpoint 10.99.0.12:51820`);
      a.restart();
      await a.know(b, { presharedKey });
      assert.match(wg(`show ${a.device} endpoints`), /\t10\.99\.0\.12:51820\n/);
      assert.deepEqual(a.reconciler.check(), { changes: 0, failures: [] });
      // b's device goes down: the kernel's forgets what it agreed on. a does not know, and b has nothing to say.
      const stop = new AbortController();
      const running = b.reconciler.run(stop.signal);
      b.ns.ip(`link set ${b.device} down`);
      await eventually("up again", () => b.ns.ip(`link show ${b.device}`).includes(",UP"));
      await eventually("a packet again", () => a.reaches(b), 4_000);
      stop.abort();
      await running;
    }, needs);
  }
}

for (const hand of HANDS) {
  const needs = hand === "kernel" ? { linkType: "wireguard" } : { program: "wireguard-go" };
  rootTest(
    `WireGuard: peers by the ${hand}'s that are to begin and do not are greeted`,
    async () => {
      using a = new Node(1, hand);
      using b = new Node(2, hand);
      wire(a, b);
      const stop = new AbortController();
      const running = [a, b].map((node) => {
        node.start();
        return node.reconciler.run(stop.signal);
      });
      // Each waits for the other, and no packet makes either speak.
      await a.know(b, { begins: false, keepaliveSeconds: 25 });
      await b.know(a, { begins: false });
      const met = ({ ns, device }: Node) =>
        !/\t0\n/.test(sh(`nsenter --net=${ns.path} wg show ${device} latest-handshakes`));
      assert.ok(!met(a) && !met(b));
      await eventually("they have met", () => met(a) && met(b), 4_000);
      await eventually(
        "the keepalive",
        () =>
          sh(`nsenter --net=${a.ns.path} wg show ${a.device} persistent-keepalive`).includes(
            "\t25\n",
          ),
      );
      for (const { reconciler } of [a, b]) {
        assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
      }
      stop.abort();
      await Promise.all(running);
    },
    needs,
  );
}

const PEERS = 1_000;

/** How long wg(8) takes to give a device of the kernel's the same peers, in milliseconds. */
function setconfMs({ ns }: Node, peers: readonly WireguardPeer[]): number {
  const lines = peers.map(({ publicKey, endpoint, allowedIps }) =>
    `[Peer]\nPublicKey = ${publicKey}\nEndpoint = ${endpoint.address}:${endpoint.port}\n` +
    `AllowedIPs = ${allowedIps.join()}\n`
  );
  const file = Deno.makeTempFileSync();
  try {
    // Without a key a device has nothing to compute for a peer.
    const key = `[Interface]\nPrivateKey = ${octets(1).toBase64()}\n`;
    Deno.writeTextFileSync(file, key + lines.join(""));
    ns.ip("link add beside type wireguard");
    ns.ip("link set beside up");
    const startMs = performance.now();
    sh(`nsenter --net=${ns.path} wg setconf beside ${file}`);
    return performance.now() - startMs;
  } finally {
    Deno.removeSync(file);
  }
}

for (const hand of HANDS) {
  const needs = hand === "kernel" ? { linkType: "wireguard" } : { program: "wireguard-go" };
  rootTest(`WireGuard: ${PEERS} peers by the ${hand}'s, and then one less`, async () => {
    using node = new Node(1, hand);
    const { reconciler, device, ns } = node;
    node.start();
    const peers = await Promise.all(Array.from({ length: PEERS }, async (_, index) => {
      const key = new Uint8Array(32).fill(2);
      new DataView(key.buffer).setUint32(4, index);
      return wireguardPeer(2, {
        device,
        publicKey: await publicKeyOf(key),
        allowedIps: [new Cidr(new IpAddress(4, 0x0a06_0000n + BigInt(index) * 256n), 24)],
      });
    }));
    const startMs = performance.now();
    for (const peer of peers) reconciler.set(peer.publicKey, [peer]);
    assert.deepEqual(reconciler.apply(), { changes: PEERS, failures: [] });
    const tookMs = performance.now() - startMs;
    const wgMs = hand === "kernel" ? setconfMs(node, peers) : undefined;
    const count = () => sh(`nsenter --net=${ns.path} wg show ${device} peers | wc -l`).trim();
    assert.equal(count(), `${PEERS}`);
    const dumpMs = performance.now();
    assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
    const checkMs = performance.now() - dumpMs;
    const goneMs = performance.now();
    reconciler.delete(peers[7]!.publicKey);
    reconciler.apply();
    report(
      `WireGuard by the ${hand}'s: ${PEERS} peers in ${tookMs.toFixed()} ms` +
        `${wgMs === undefined ? "" : ` (wg setconf: ${wgMs.toFixed()} ms)`}, a check ` +
        `${checkMs.toFixed()} ms, one gone in ${(performance.now() - goneMs).toFixed(1)} ms`,
    );
    assert.equal(count(), `${PEERS - 1}`);
  }, needs);
}
