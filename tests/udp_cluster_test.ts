/**
 * The UDP backend on whole nodes: what only it does. What all backends do is in tests/contracts/backend.ts.
 */

import { IpAddress } from "@denim/core";
import { findLink, NetlinkSocket, NetworkNamespace, PacketSocket } from "@denim/core/linux";
import { openTunnelSockets } from "@denim/core/linux/udp-socket";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import type { Lab, LabNode, Pod } from "@denim/agent/lab";
import { pollInput } from "../core/linux/sys/poll.ts";
import { receive, send } from "../core/linux/sys/sockets.ts";
import { socketAddress } from "../core/linux/sys/socket_address.ts";
import { iproute } from "./support/iproute.ts";
import { FaultyWire, innerPackets } from "./support/faulty_wire.ts";
import { ip, ipJson } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { buildPacket, checksumOf, readPacket } from "./support/packet.ts";
import { RunningPing } from "./support/ping.ts";
import { reached } from "./support/reached.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { eventually, NEVER } from "./support/wait.ts";

const PORT = 8285;
const MIB = 1024 * 1024;
/** In the first subnet of the network, which no node is ever given: the others are given at random. */
const NEVER_LEASED = "10.5.0.9";

const netConf = (options: Record<string, unknown> = {}) => ({
  Network: "10.5.0.0/16",
  Backend: { Type: "udp", ...options },
});

/** Two nodes, each with a pod, that reach each other. */
async function twoPods(lab: Lab): Promise<readonly [Pod, Pod]> {
  await lab.startAgents(NEVER);
  const [a, b] = await Promise.all(
    lab.nodes.map((node, index) => node.addPod(`pod${index + 1}`)),
  ) as [Pod, Pod];
  await reached(a, b.address);
  return [a, b];
}

async function transfer(from: Pod, to: Pod, bytes: number): Promise<void> {
  const { port } = await to.listen();
  const sent = await from.send(to.address, port, bytes);
  assert.deepEqual(await to.received(), { sha256: sent.sha256, bytes });
}

/** Debian's ping, with all that it says. */
async function pingSays(pod: Pod, ...args: string[]): Promise<string> {
  using namespace = pod.open();
  const command = new Deno.Command("ping", {
    args,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { stdout, stderr } = await namespace.run(() => command.spawn()).output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

labTest("udp: the device is as flannel has it", { nodes: 2, netConf: netConf() }, async (lab) => {
  await twoPods(lab);
  const [node] = lab.nodes as [LabNode];
  const [link] = ipJson(node, "-d link show flannel0");
  assert.deepEqual([link.mtu, link.linkinfo.info_kind, link.linkinfo.info_data.persist], [
    1500 - 28,
    "tun",
    true,
  ]);
  const subnet = node.subnet();
  const addresses = ipJson(node, "-4 addr show flannel0")[0].addr_info;
  assert.deepEqual(
    addresses.map(({ local, prefixlen }: Record<string, unknown>) => `${local}/${prefixlen}`),
    [`${subnet.address}/32`],
  );
  const [route] = ipJson(node, "route show 10.5.0.0/16");
  assert.deepEqual([route.dev, route.prefsrc], ["flannel0", `${subnet.address}`]);
});

labTest(
  "udp: a stop or a crash is some hundred milliseconds of silence, and connections outlive it",
  { nodes: 2, netConf: netConf() },
  async (lab, t) => {
    const [a, b] = await twoPods(lab);
    const [node] = lab.nodes as [LabNode];
    for (const how of ["SIGTERM", "SIGKILL"] as const) {
      await t.step(how, async () => {
        const lines = await talkingLine(a, b, async () => {
          using namespace = a.open();
          const args = ["-i", "0.01", "-c", "150", "-W", "1", `${b.address}`];
          const pinging = new RunningPing(namespace, args);
          // One that starts late would miss the silence.
          await pinging.reaches(1);
          const ended = await node.stopAgent(how);
          assert.equal(ended?.signal, how === "SIGKILL" ? how : null, "it stops when told to");
          await node.startAgent(NEVER);
          const { sent, received } = await pinging.finish();
          // At one each 10 ms.
          assert.ok(
            sent - received > 0 && sent - received <= 30,
            `${sent - received} of ${sent} lost`,
          );
        });
        assert.deepEqual(lines, Array.from(lines, (_, index) => `${index}`), "whole and in order");
        assert.ok(lines.length > 50);
      });
    }
  },
);

/** A TCP connection on which lines travel while something is done; what arrived. */
async function talkingLine(from: Pod, to: Pod, work: () => Promise<void>): Promise<string[]> {
  using toNamespace = to.open();
  using listener = toNamespace.run(() => Deno.listen({ hostname: `${to.address}`, port: 0 }));
  const { port } = listener.addr as Deno.NetAddr;
  using fromNamespace = from.open();
  // bash, since a connection of Deno's own would be made on another thread.
  const script = `exec 3<>/dev/tcp/${to.address}/${port}; i=0; ` +
    "while echo $((i++)) >&3 && read -t 0.02 x; [ $? -gt 128 ]; do :; done";
  const talker = fromNamespace.run(() =>
    new Deno.Command("bash", { args: ["-c", script], stdin: "piped", stderr: "null" }).spawn()
  );
  const connection = await listener.accept();
  await work();
  // The end of its input is the end of its talk.
  await talker.stdin.close();
  await talker.status;
  const text = await new Response(connection.readable).text();
  return text.trim().split("\n");
}

labTest("udp: a device taken away comes back", { nodes: 2, netConf: netConf() }, async (lab) => {
  const [a, b] = await twoPods(lab);
  ip(lab.nodes[0]!, "link del flannel0");
  const answers = async () => (await a.ping(b.address, { timeoutMs: 100 })).timeMs !== undefined;
  await eventually("pod1 → pod2 again", answers, 5000);
  await transfer(a, b, MIB);
  ip(lab.nodes[0]!, "link set flannel0 down");
  await eventually("pod1 → pod2 once more", answers, 5000);
});

for (const options of [{}, { Offloads: false }, { PartialChecksums: false }]) {
  const name = Object.keys(options)[0];
  labTest(
    `udp: over a wire that loses, doubles and reorders, transfers arrive whole${
      name ? ` (${name})` : ""
    }`,
    { nodes: 2, netConf: netConf(options) },
    async (lab) => {
      const [a, b] = await twoPods(lab);
      using net = NetworkNamespace.open(`/run/netns/${lab.prefix}-net`);
      for (const node of lab.nodes) {
        iproute("ip", `${lab.prefix}-net`, `link set ${node.name} nomaster`);
      }
      const faults = { loss: 0.1, duplication: 0.05, reordering: 0.1 };
      await using wire = new FaultyWire(net, ["node1", "node2"], PORT, faults);
      await transfer(a, b, MIB / 4);
      await transfer(b, a, MIB / 4);
      const { lost, doubled, late } = wire.counts;
      assert.ok(lost > 10 && doubled > 5 && late > 10, JSON.stringify(wire.counts));
    },
  );
}

labTest(
  "udp: among nodes that take no partial checksums every segment's checksum is right",
  { nodes: 2, netConf: netConf({ PartialChecksums: false }) },
  async (lab) => {
    const [a, b] = await twoPods(lab);
    using namespace = lab.nodes[0]!.open();
    using capture = namespace.run(() => {
      using netlink = new NetlinkSocket();
      return new PacketSocket(findLink(netlink, "eth0")!.index);
    });
    const seen: Uint8Array[] = [];
    const look = () =>
      seen.push(...capture.frames().flatMap((frame) => innerPackets(frame.subarray(14 + 28))));
    const { port } = await b.listen();
    await a.send(b.address, port, MIB);
    let arrived = false;
    const receiving = b.received().then(() => arrived = true);
    await eventually("the end", () => (look(), arrived));
    await receiving;
    look();
    const readings = seen.filter((packet) => packet[9] === 6).map((packet) => readPacket(packet));
    assert.ok(readings.length > 700, `${readings.length} segments`);
    assert.ok(readings.every(({ checksum, headerRight }) => checksum === "right" && headerRight));
  },
);

/** A peer as flannel's: its lease says nothing, it takes and sends one packet a datagram, and is no program. */
labTest(
  "udp: a flannel node is understood, and understands",
  { nodes: 2, netConf: netConf() },
  async (lab) => {
    const [node, other] = lab.nodes as [LabNode, LabNode];
    await node.startAgent(NEVER);
    const pod = await node.addPod("pod1");
    await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
    const lease = await store.acquire({
      publicIps: new Map([[4 as const, other.publicIp]]),
      previousSubnets: [],
      backendType: "",
      backendData: new Map(),
    }, NEVER);
    assert.equal(lease.halves[0]!.backendData, undefined);
    using namespace = other.open();
    const [socket] = namespace.run(() => openTunnelSockets(other.publicIp, PORT, 1, false));
    using tunnel = socket!;
    const buffer = new Uint8Array(new ArrayBuffer(65_536));
    const host = `${lease.halves[0]!.subnet.at(9n)}`;
    /** The next packet of a protocol that comes from the pod: the node asks its peers, too. */
    const next = (protocol: number, patienceMs: number) => {
      const deadlineMs = performance.now() + patienceMs;
      while (performance.now() < deadlineMs) {
        if (!pollInput(tunnel.descriptor, 100)) continue;
        const packet = buffer.slice(0, receive(tunnel.descriptor, buffer));
        const from = IpAddress.fromBytes(packet.slice(12, 16));
        if (packet[9] === protocol && from.equals(pod.address)) return packet;
      }
    };

    // To the pod, and its answer: ICMP's checksum covers a whole datagram.
    const echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1, ...new Uint8Array(48)];
    const sum = checksumOf(echo);
    echo.splice(2, 2, sum >> 8, sum & 255);
    const request = buildPacket({
      ...{ protocol: 1, from: host, to: `${pod.address}` },
      payload: new Uint8Array(echo),
    });
    let answer: Uint8Array | undefined;
    await eventually("an answer", () => {
      send(
        tunnel.descriptor,
        new Uint8Array(request),
        request.length,
        socketAddress(node.publicIp, PORT),
      );
      return (answer = next(1, 200)) !== undefined;
    });
    assert.deepEqual([...answer!.slice(20, 28)].filter((_, at) => at !== 2 && at !== 3), [
      ...[0, 0, 0x12, 0x34, 0, 1],
    ]);
    assert.equal(checksumOf([...answer!.slice(20)]), 0);
    assert.deepEqual(IpAddress.fromBytes(answer!.slice(16, 20)), IpAddress.parse(host));

    // What the pod says first: TCP with its checksum whole, though the pod's kernel leaves it undone.
    using podNamespace = pod.open();
    const caller = podNamespace.run(() =>
      new Deno.Command("bash", { args: ["-c", `exec 3<>/dev/tcp/${host}/9`], stderr: "null" })
        .spawn()
    );
    const syn = readPacket(next(6, 10_000)!);
    caller.kill("SIGKILL");
    await caller.status;
    assert.deepEqual([syn.flags, syn.checksum, syn.headerRight], [2, "right", true]);
  },
);

labTest("udp: forged packets go nowhere", { nodes: 2, netConf: netConf() }, async (lab) => {
  const [a, b] = await twoPods(lab);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  using namespace = other.open();
  const socket = namespace.run(() => openTunnelSockets(other.publicIp, PORT + 1, 1, false))[0]!;
  using tunnel = socket;
  const heard = namespaceSocket(a, "eth0");
  using capture = heard;
  const put = (from: string, to: string) => {
    const packet = buildPacket({
      protocol: "udp",
      from,
      to,
      payload: new TextEncoder().encode("forged"),
    });
    send(
      tunnel.descriptor,
      new Uint8Array(packet),
      packet.length,
      socketAddress(node.publicIp, PORT),
    );
  };
  put(NEVER_LEASED, `${a.address}`);
  put("8.8.8.8", `${a.address}`);
  put(`${a.address}`, `${a.address}`);
  put(`${b.address}`, NEVER_LEASED);
  put(`${b.address}`, `${a.address}`);
  const forged: string[] = [];
  await eventually("the one that is right", () => {
    for (const frame of capture.frames()) {
      // The pod's own complaint, that nobody listens, quotes it.
      const udp = frame[14 + 9] === 17;
      if (!udp || new TextDecoder().decode(frame.subarray(-6)) !== "forged") continue;
      forged.push(`${IpAddress.fromBytes(frame.slice(26, 30))}`);
    }
    return forged.length > 0;
  });
  assert.deepEqual(forged, [`${b.address}`]);
});

function namespaceSocket(pod: Pod, device: string): PacketSocket {
  using namespace = pod.open();
  return namespace.run(() => {
    using netlink = new NetlinkSocket();
    return new PacketSocket(findLink(netlink, device)!.index);
  });
}

labTest("udp: a router's word to the pods", { nodes: 2, netConf: netConf() }, async (lab, t) => {
  const [a, b] = await twoPods(lab);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  await t.step("time exceeded, from the device's address", async () => {
    const said = await pingSays(a, "-c", "1", "-W", "5", "-t", "2", `${b.address}`);
    assert.match(said, new RegExp(`From ${node.subnet().address} .*Time to live exceeded`));
  });
  await t.step("network unreachable", async () => {
    const said = await pingSays(a, "-c", "1", "-W", "5", NEVER_LEASED);
    assert.match(said, new RegExp(`From ${node.subnet().address} .*Destination Net Unreachable`));
  });
  await t.step("fragmentation needed, with the MTU of the path", async () => {
    ip(node, `route add ${other.publicIp} dev eth0 mtu 1300`);
    const refused = await pingSays(
      a,
      "-c",
      "1",
      "-W",
      "5",
      "-M",
      "do",
      "-s",
      "1400",
      `${b.address}`,
    );
    assert.match(refused, /mtu = 1272/);
    const passed = await pingSays(
      a,
      "-c",
      "1",
      "-W",
      "5",
      "-M",
      "dont",
      "-s",
      "1400",
      `${b.address}`,
    );
    assert.match(passed, / 0% packet loss/);
    await transfer(a, b, MIB);
  });
});

labTest(
  "udp: the port can be another",
  { nodes: 2, netConf: netConf({ port: 9000 }) },
  async (lab) => {
    await twoPods(lab);
    const { stdout } = await lab.nodes[0]!.spawn(["cat", "/proc/net/udp"], { stdout: "piped" })
      .output();
    assert.match(new TextDecoder().decode(stdout), /:2328 /);
  },
);
