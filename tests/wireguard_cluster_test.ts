/** WireGuard on whole nodes: what the wire shows, whom a node believes, and keys that come and go. */

import type { LabNode, Pod } from "@denim/agent/lab";
import { IpAddress } from "@denim/core";
import { findLink, NetlinkSocket, type NetworkNamespace, PacketSocket } from "@denim/core/linux";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { ip } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { buildPacket } from "./support/packet.ts";
import { RunningPing } from "./support/ping.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { sh } from "./support/sh.ts";
import { eventually, NEVER } from "./support/wait.ts";
import { inNode, wg } from "./support/wg.ts";

const PSK = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";

function setting(options: Readonly<Record<string, unknown>> = {}, nodes = 3) {
  const netConf = { Network: "10.5.0.0/16", Backend: { Type: "wireguard", ...options } };
  return { nodes, netConf, program: "wireguard-go" };
}

function peerKeys(node: LabNode): string[] {
  return wg(node, "show flannel-wg peers").trim().split("\n").filter((key) => key !== "");
}

function publicKey(node: LabNode): string {
  return wg(node, "show flannel-wg public-key").trim();
}

async function reaches(from: Pod, to: Pod): Promise<boolean> {
  return (await from.ping(to.address, { timeoutMs: 500 })).timeMs !== undefined;
}

function capture(namespace: NetworkNamespace, device: string): PacketSocket {
  return namespace.run(() => {
    using netlink = new NetlinkSocket();
    return new PacketSocket(findLink(netlink, device)!.index);
  });
}

/** Whether one of the frames has these octets anywhere. */
function hold(frames: readonly Uint8Array[], octets: Uint8Array): boolean {
  const hex = octets.toHex();
  return frames.some((frame) => frame.toHex().includes(hex));
}

labTest(
  "WireGuard: nothing of a pod's packet is on the wire in clear, and strangers' are dropped",
  {
    ...setting({ PSK }),
  },
  async (lab) => {
    const [node, other, stranger] = lab.nodes as [LabNode, LabNode, LabNode];
    await Promise.all([node.startAgent(NEVER), other.startAgent(NEVER)]);
    const [a, b] = [await node.addPod("a"), await other.addPod("b")];
    const text = new TextEncoder().encode("denim's secret");
    using otherNs = other.open();
    using podNs = b.open();
    using aNs = a.open();
    using wire = capture(otherNs, "eth0");
    using inPod = capture(podNs, "eth0");
    await eventually("b", () => reaches(a, b));
    wire.frames();
    const pattern = ["-c", "3", "-i", "0.2", "-p", text.toHex(), "-s", "500", `${b.address}`];
    assert.equal((await new RunningPing(aNs, pattern).finish()).received, 3);
    const seen = wire.frames();
    assert.ok(seen.length >= 6, "the pings and their answers");
    const addresses = new Uint8Array([...a.address.toBytes(), ...b.address.toBytes()]);
    assert.ok(!hold(seen, text) && !hold(seen, addresses), "neither data nor header");
    assert.ok(hold(inPod.frames(), text), "the pod has it in clear");

    // From the right underlay address, as the right pod: plain, in WireGuard's clothes, and by a device with another key.
    await new RunningPing(stranger.open(), ["-c", "1", `${other.publicIp}`]).finish();
    ip(stranger, `addr add ${node.publicIp}/32 dev lo`);
    ip(stranger, `route add ${other.publicIp} dev eth0 src ${node.publicIp}`);
    const packet = buildPacket({
      protocol: "udp",
      from: `${a.address}`,
      to: `${b.address}`,
      fromPort: 7,
      toPort: 7,
      payload: text,
    });
    using strangerNs = stranger.open();
    const send = (octets: Uint8Array) => {
      const file = `${stranger.directory}/packet`;
      Deno.writeFileSync(file, octets);
      strangerNs.run(() => sh('bash -c "cat $1 >/dev/udp/$2/51820"', [file, `${other.publicIp}`]));
    };
    send(packet);
    send(
      new Uint8Array([
        4,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        ...new Uint8Array(8),
        ...packet,
        ...new Uint8Array(16),
      ]),
    );
    const device = `wg${lab.prefix.slice(-6)}`;
    strangerNs.run(() => {
      sh(
        'wireguard-go "$1" && wg genkey >"$4" && wg set "$1" private-key "$4" listen-port 51820 ' +
          'peer "$2" endpoint "$3:51820" allowed-ips 10.5.0.0/16 persistent-keepalive 1',
        [device, publicKey(other), `${other.publicIp}`, `${stranger.directory}/key`],
      );
      sh(
        `ip addr add ${a.address}/32 dev ${device}; ip link set ${device} up; ip route add 10.5.0.0/16 dev ${device}`,
      );
    });
    try {
      const pinging = ["-c", "3", "-i", "0.2", "-W", "1", "-I", `${a.address}`, "-p", text.toHex()];
      const { received } = await new RunningPing(strangerNs, [...pinging, `${b.address}`]).finish();
      assert.equal(received, 0);
      assert.match(strangerNs.run(() => sh(`wg show ${device} latest-handshakes`)), /\t0\n/);
    } finally {
      sh(`rm -f /run/wireguard/${device}.sock`);
    }
    assert.ok(hold(wire.frames(), packet), "the stranger's packet came as far as the node");
    assert.ok(!hold(inPod.frames(), text), "and no further");
    for (const { logFile, directory } of [node, other]) {
      const log = Deno.readTextFileSync(logFile);
      const key = Deno.readTextFileSync(`${directory}/wgkey`);
      assert.ok(!log.includes(PSK) && !log.includes(key));
    }
  },
);

labTest(
  "WireGuard: a lost key changes the lease and no subnet; a lease's end takes the key at once",
  {
    ...setting(),
  },
  async (lab) => {
    await lab.startAgents(NEVER);
    const [node, other, third] = lab.nodes as [LabNode, LabNode, LabNode];
    const pods = [await node.addPod("a"), await other.addPod("b")] as const;
    await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
    const before = publicKey(other), subnet = `${other.subnet()}`;
    const first = [before, publicKey(third)].sort();
    await eventually("both keys", () => `${peerKeys(node).sort()}` === `${first}`);
    await other.stopAgent();
    Deno.removeSync(`${other.directory}/wgkey`);
    await other.startAgent(NEVER);
    assert.notEqual(publicKey(other), before);
    assert.equal(`${other.subnet()}`, subnet);
    const keys = [publicKey(other), publicKey(third)].sort();
    await eventually("the new key alone", () => `${peerKeys(node).sort()}` === `${keys}`, 1_000);
    await eventually("the pods talk", () => reaches(...pods), 1_000);

    await third.stopAgent();
    await store.release(`${third.subnet()}`.replace("/", "-"), NEVER);
    await eventually("its key is gone", () => `${peerKeys(node)}` === publicKey(other), 1_000);
  },
);

labTest(
  "WireGuard: a device that was down, or whose program died, agrees anew with its peers at once",
  {
    ...setting({}, 2),
  },
  async (lab) => {
    await lab.startAgents(NEVER);
    const [node, other] = lab.nodes as [LabNode, LabNode];
    const [a, b] = [await node.addPod("a"), await other.addPod("b")];
    await eventually("b", () => reaches(a, b));
    // Only the peer speaks: it does not know, and node1 has nothing to say.
    ip(other, "link set flannel-wg down");
    await eventually("b, when its device was down", () => reaches(a, b), 3_000);
    if (!ip(node, "-d link show flannel-wg").includes("tun")) return; // the kernel's does not die
    // Its socket is its life line: without it the program ends.
    Deno.removeSync(`${node.wireguardSockets}/flannel-wg.sock`);
    await eventually("another one", () => {
      try {
        return peerKeys(node).length === 1;
      } catch {
        return false;
      }
    }, 3_000);
    await eventually("a to b", () => reaches(a, b), 2_000);
    await eventually("b to a", () => reaches(b, a), 2_000);
  },
);

labTest("WireGuard: a node by the kernel's and one by a program's", {
  ...setting({}, 2),
  linkType: "wireguard",
}, async (lab) => {
  const [node, other] = lab.nodes as [LabNode, LabNode];
  // An agent goes on with the device that it finds, whoever made it.
  inNode(other, "wireguard-go flannel-wg");
  await lab.startAgents(NEVER);
  const [a, b] = [await node.addPod("a"), await other.addPod("b")];
  const link = (of: LabNode) => ip(of, "-d link show flannel-wg");
  assert.match(link(node), /\n +wireguard /);
  assert.match(link(other), /\n +tun /);
  await eventually("a to b", () => reaches(a, b));
  await eventually("b to a", () => reaches(b, a));
  // The program's goes, and the agent makes another: in the kernel, since it can.
  ip(other, "link del flannel-wg");
  await eventually("the kernel's", () => link(other).includes("wireguard"), 3_000);
  await eventually("a to b", () => reaches(a, b), 3_000);
});

labTest("WireGuard: a clone with the same key is refused, and named", {
  ...setting({}, 2),
}, async (lab) => {
  const [node, clone] = lab.nodes as [LabNode, LabNode];
  await node.startAgent(NEVER);
  Deno.copyFileSync(`${node.directory}/wgkey`, `${clone.directory}/wgkey`);
  await assert.rejects(
    clone.startAgent(NEVER),
    /the node 10\.99\.0\.1 has this node's WireGuard key .*: .*if this machine is a clone/,
  );
  assert.deepEqual(peerKeys(node), []);
});

labTest("WireGuard: several nodes behind one public address are told apart by their keys", {
  ...setting({ PersistentKeepaliveInterval: 5 }),
  segments: 2,
}, async (lab) => {
  const [first, second, outside] = lab.nodes as [LabNode, LabNode, LabNode];
  await lab.startAgents(NEVER);
  const pods = [await first.addPod("a"), await second.addPod("b"), await outside.addPod("c")];
  for (const node of [first, second]) await node.stopAgent();
  // The router between the segments hides the first, and lets in what belongs to what went out.
  sh(
    'ip netns exec "$1-net" nft "table ip nat { chain post { type nat hook postrouting priority 100; ' +
      "ip saddr 10.99.0.0/24 ip daddr 10.99.1.0/24 masquerade; }; chain in { type filter hook forward priority 0; " +
      'ip saddr 10.99.1.0/24 ip daddr 10.99.0.0/24 ct state new drop; }; }"',
    [lab.prefix],
  );
  const publicIp = IpAddress.parse("10.99.1.254");
  await Promise.all(
    [first, second].map((node) =>
      node.startAgent(NEVER, ["--iface", "eth0", "--public-ip", `${publicIp}`])
    ),
  );
  const [a, b, c] = pods as [Pod, Pod, Pod];
  const talk = async () => {
    for (const pod of [a, b]) {
      await eventually(`${pod.name} → c`, () => reaches(pod, c));
      await eventually(`c → ${pod.name}`, () => reaches(c, pod));
    }
  };
  await talk();
  const endpoints = () =>
    wg(outside, "show flannel-wg endpoints").trim().split("\n").map((line) => line.split("\t")[1]!);
  const before = endpoints().sort();
  assert.equal(new Set(before).size, 2);
  assert.ok(before.every((endpoint) => endpoint.startsWith(`${publicIp}:`)), `${before}`);
  for (const { logFile } of lab.nodes) {
    assert.doesNotMatch(Deno.readTextFileSync(logFile), /cloned machine/);
  }
  // A check of all finds them elsewhere than their leases say, and leaves them there.
  await outside.stopAgent();
  await outside.startAgent(NEVER);
  assert.deepEqual(endpoints().sort(), before);
  await talk();
});

for (
  const [Mode, devices, endpoints] of [
    ["separate", ["flannel-wg", "flannel-wg-v6"], [["10.99.0.2:5001"], ["[fd99::2]:5002"]]],
    ["ipv4", ["flannel-wg"], [["10.99.0.2:5001"]]],
    ["ipv6", ["flannel-wg"], [["[fd99::2]:5001"]]],
    ["auto", ["flannel-wg"], [["10.99.0.2:5001"]]],
  ] as const
) {
  labTest(
    `WireGuard: both families in mode ${Mode}, by ports of its own and with a shared secret`,
    {
      nodes: 2,
      program: "wireguard-go",
      netConf: {
        ...{ Network: "10.5.0.0/16", EnableIPv6: true, IPv6Network: "fc00:5::/48" },
        Backend: { Type: "wireguard", Mode, PSK, ListenPort: 5001, ListenPortV6: 5002 },
      },
    },
    async (lab) => {
      await lab.startAgents(NEVER);
      const [node, other] = lab.nodes as [LabNode, LabNode];
      const [a, b] = [await node.addPod("a"), await other.addPod("b")];
      for (const address of b.addresses) {
        await eventually(
          `${address}`,
          async () => (await a.ping(address, { timeoutMs: 500 })).timeMs !== undefined,
        );
      }
      assert.deepEqual(wg(node, "show interfaces").trim().split(/\s+/).sort(), devices);
      const of = (device: string, what: string) =>
        wg(node, `show ${device} ${what}`).trim().split("\n").map((line) => line.split("\t")[1]!);
      assert.deepEqual(devices.map((device) => of(device, "endpoints")), endpoints);
      for (const device of devices) assert.deepEqual(of(device, "preshared-keys"), [PSK]);
    },
  );
}
