/** `--ip-blackhole-route`: packets to a node's own addresses that no pod has. */

import { type Cidr, FAMILIES, type Family, IpAddress } from "@denim/core";
import { findLink, NetlinkSocket, PacketSocket } from "@denim/core/linux";
import type { LabNode } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { ip, ipJson } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { shIn } from "./support/sh.ts";
import { eventually, NEVER } from "./support/wait.ts";

const NET_CONF = {
  Network: "10.5.0.0/16",
  EnableIPv6: true,
  IPv6Network: "fc00:5::/48",
  Backend: { Type: "vxlan" },
};
/** Addresses outside to which the node certainly sends. */
const OUTSIDE: Readonly<Record<Family, IpAddress>> = {
  4: IpAddress.parse("192.0.2.9"),
  6: IpAddress.parse("2001:db8::9"),
};

/** Whether a datagram from the node to an address leaves it by eth0: those that leave do so in order. */
async function leaves(node: LabNode, to: IpAddress): Promise<boolean> {
  using namespace = node.open();
  using capture = namespace.run(() => {
    using socket = new NetlinkSocket();
    return new PacketSocket(findLink(socket, "eth0")!.index);
  });
  let frames: Uint8Array[] = [];
  const seen = (address: IpAddress) => {
    frames = frames.concat(capture.frames());
    const octets = address.toBytes().toHex();
    return frames.some((frame) => destinationOf(frame) === octets);
  };
  for (const address of [to, OUTSIDE[to.family]]) {
    shIn(node, `bash -c 'echo > /dev/udp/${address}/9' 2>/dev/null || true`);
    if (address !== to) await eventually(`a datagram to ${address}`, () => seen(address));
  }
  return seen(to);
}

/** Where an IP packet in an Ethernet frame goes, in hexadecimal digits. */
function destinationOf(frame: Uint8Array): string | undefined {
  const type = new DataView(frame.buffer, frame.byteOffset).getUint16(12);
  if (type === 0x0800) return frame.subarray(30, 34).toHex();
  return type === 0x86dd ? frame.subarray(38, 54).toHex() : undefined;
}

/** The node's routes that drop packets. */
function blackholes(node: LabNode): string[] {
  return FAMILIES.flatMap((family) =>
    ipJson(node, `-${family} route show type blackhole`)
      .map(({ dst, metric, protocol }) => `${dst} ${metric} ${protocol}`)
  );
}

const wantedFor = (subnets: readonly Cidr[]) => subnets.map((subnet) => `${subnet} 4294967295 155`);

labTest("packets to addresses that no pod has leave the node, unless it is told otherwise", {
  nodes: 1,
  netConf: NET_CONF,
}, async (lab, t) => {
  const [node] = lab.nodes as [LabNode];
  const nobody = () => node.subnets().map((subnet) => subnet.at(200n));

  await t.step("without the flag they leave", async () => {
    await node.startAgent(NEVER);
    for (const address of nobody()) assert.ok(await leaves(node, address), `${address}`);
    assert.deepEqual(blackholes(node), []);
    await node.stopAgent();
  });

  await t.step("with it they do not", async () => {
    await node.startAgent(NEVER, ["--ip-blackhole-route"]);
    assert.deepEqual(blackholes(node), wantedFor(node.subnets()));
    for (const address of nobody()) assert.ok(!await leaves(node, address), `${address}`);
  });

  await t.step("pods are reached, by the bridge and by a route of another plugin", async () => {
    const pod = await node.addPod("a");
    for (const address of pod.addresses) {
      shIn(node, `ping -c 1 -W 2 ${address}`);
      ip(node, "link add lxc0 type veth peer name lxc1");
      ip(node, "link set lxc0 up");
      ip(node, `route add ${address} dev lxc0`);
      assert.equal(ipJson(node, `route get ${address}`)[0].dev, "lxc0");
      ip(node, "link del lxc0");
    }
    // Where there is no bridge any more, nothing leaves either.
    ip(node, "link del cni0");
    for (const address of pod.addresses) assert.ok(!await leaves(node, address), `${address}`);
  });

  await t.step("removed, or made another's, they come back", async () => {
    const wanted = wantedFor(node.subnets());
    for (const subnet of node.subnets()) {
      const which = `${subnet} metric 4294967295`;
      for (
        const change of [
          `route del blackhole ${which}`,
          `route replace unreachable ${which}`,
          `route replace ${which} dev eth0`,
        ]
      ) {
        ip(node, change);
        const tookMs = await eventually(change, () => `${blackholes(node)}` === `${wanted}`, 2000);
        assert.ok(tookMs < 1000, `${change}: ${tookMs} ms`);
        for (const address of nobody()) assert.ok(!await leaves(node, address), `${address}`);
      }
    }
  });

  await t.step("without the flag again they go, and nobody else's do", async () => {
    ip(node, "route add blackhole 10.9.0.0/16");
    ip(node, "route add blackhole 10.5.0.0/17 proto static");
    await node.stopAgent();
    assert.equal(blackholes(node).length, 4, "the data path stays as it is");
    await node.startAgent(NEVER);
    assert.deepEqual(blackholes(node).map((line) => line.split(" ")[0]), [
      "10.5.0.0/17",
      "10.9.0.0/16",
    ]);
  });
});
