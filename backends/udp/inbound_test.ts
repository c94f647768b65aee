import { Cidr, IpAddress } from "@denim/core";
import { IOVEC_LEN } from "@denim/core/linux/packet-memory";
import assert from "node:assert/strict";
import { buildPacket, type PacketSpec, readPacket } from "../../tests/support/packet.ts";
import { AddressWords } from "./address_words.ts";
import { Counters, DROP, type Drop, DROPS } from "./counters.ts";
import { Inbound, type InboundOptions } from "./inbound.ts";
import { PeerMapWriter } from "./peer_map.ts";

/** What was handed to the TUN device: the header of virtio, and the packet. */
interface Written {
  readonly flags: number;
  readonly type: number;
  readonly size: number;
  readonly start: number;
  readonly offset: number;
  readonly packet: Uint8Array;
}

const NEEDS_CSUM = 1, NONE = 0, TCPV4 = 1, TCPV6 = 4, UDP_L4 = 5;
const PEER = "10.99.0.2", PEER6 = "fd99::2";
const FROM4 = "10.5.2.7", TO4 = "10.5.1.9", FROM6 = "fc00:5:0:2::7", TO6 = "fc00:5:0:1::9";

/** An inbound side with a device that remembers. */
class InboundRig {
  readonly peers = new PeerMapWriter(64);
  readonly counters = new Counters(Counters.memory(64, 1), 64, 0);
  readonly written: Written[] = [];
  readonly inbound: Inbound;
  readonly options: InboundOptions;
  result = 1;

  constructor(options: Partial<InboundOptions> = {}) {
    this.peers.setOwn([Cidr.parse("10.5.1.0/24"), Cidr.parse("fc00:5:0:1::/64")]);
    this.put("10.5.2.0/24", PEER);
    this.put("10.5.3.0/24", "10.99.0.3");
    this.put("fc00:5:0:2::/64", PEER6);
    this.options = { header: true, checksums: true, tcp: true, udp: true, ...options };
    this.inbound = new Inbound(this.peers, this.counters, this, this.options);
  }

  put(subnet: string, publicIp: string): void {
    const record = { subnet: Cidr.parse(subnet), publicIp: IpAddress.parse(publicIp) };
    this.peers.put({ ...record, partialChecksums: true }, 0);
  }

  write(count: number): number {
    const { memory, writeIovec } = this.inbound;
    const parts = Array.from({ length: count }, (_, index) => {
      const { offset, byteLength } = memory.readIovec(writeIovec + index * IOVEC_LEN);
      return memory.bytes.slice(offset, offset + byteLength);
    });
    const header = this.options.header ? parts.shift()! : new Uint8Array(10);
    const view = new DataView(header.buffer);
    const at16 = (at: number) => view.getUint16(at, true);
    const [flags, type, size, start, offset] = [header[0]!, header[1]!, at16(4), at16(6), at16(8)];
    const packet = new Uint8Array(parts.flatMap((part) => [...part]));
    if (this.result >= 0) this.written.push({ flags, type, size, start, offset, packet });
    return this.result;
  }

  /** Receives packets as the kernel gives them: in a series if they are of one size. */
  receive(
    packets: readonly Uint8Array[],
    from = PEER,
    segmentBytes = packets[0]?.length ?? 0,
  ): Written[] {
    const { inbound } = this;
    const data = new Uint8Array(packets.flatMap((packet) => [...packet]));
    inbound.memory.bytes.set(data, inbound.data);
    inbound.setSource(AddressWords.of(IpAddress.parse(from)));
    inbound.takeSeries(data.length, packets.length > 1 ? segmentBytes : 0);
    return this.written.splice(0);
  }

  drops(): Partial<Record<Drop, number>> {
    const all = DROPS.map((name) => [name, this.counters.drops(DROP[name])] as const);
    return Object.fromEntries(all.filter(([, count]) => count > 0));
  }
}

const payloadOf = (length: number, seed = 0) =>
  Uint8Array.from({ length }, (_, index) => (index * 7 + seed) & 255);

/** A flow's packets, each with `payload` octets. */
function flow(count: number, change: (index: number) => Partial<PacketSpec> = () => ({})) {
  return Array.from({ length: count }, (_, index) =>
    buildPacket({
      protocol: "tcp",
      from: FROM4,
      to: TO4,
      sequence: (0xffff_ff00 + index * 100) % 2 ** 32,
      id: (0xfffe + index) % 65_536,
      payload: payloadOf(100, index),
      checksum: "partial",
      ...change(index),
    }));
}

Deno.test("a packet from a peer's pod is handed on as it came", () => {
  for (
    const [from, source, to] of [[PEER, FROM4, TO4], [PEER6, FROM6, TO6]] as const
  ) {
    for (const protocol of ["tcp", "udp", 99] as const) {
      for (const header of [true, false]) {
        const rig = new InboundRig(
          header ? {} : { header, checksums: false, tcp: false, udp: false },
        );
        const packet = buildPacket({ protocol, from: source, to, payload: payloadOf(50) });
        const plain = { flags: 0, type: NONE, size: 0, start: 0, offset: 0 };
        assert.deepEqual(rig.receive([packet], from), [{ ...plain, packet }]);
      }
    }
  }
});

Deno.test("a checksum left to do is said to be left to do; what is done is not", () => {
  const rig = new InboundRig();
  for (const [protocol, offset] of [["tcp", 16], ["udp", 6]] as const) {
    for (
      const [from, source, to, start] of [[PEER, FROM4, TO4, 20], [PEER6, FROM6, TO6, 40]] as const
    ) {
      const spec = { protocol, from: source, to, payload: payloadOf(31) } as const;
      const partial = buildPacket({ ...spec, checksum: "partial" });
      const [written] = rig.receive([partial], from);
      assert.deepEqual(written, {
        ...{ flags: NEEDS_CSUM, type: NONE, size: 0, start, offset },
        packet: partial,
      });
      for (const checksum of ["right", "wrong"] as const) {
        const packet = buildPacket({ ...spec, checksum });
        const [written] = rig.receive([packet], from);
        assert.deepEqual([written!.flags, written!.packet], [0, packet], "the kernel judges it");
      }
    }
  }
});

Deno.test("what does not belong is dropped and counted, by reason and by peer", async (t) => {
  const good: PacketSpec = { protocol: "udp", from: FROM4, to: TO4 };
  const cases: readonly (readonly [string, Uint8Array, string, Drop, number])[] = [
    ["from a stranger's address", buildPacket(good), "10.99.0.77", "inStranger", 0],
    ["another peer's pod", buildPacket({ ...good, from: "10.5.3.7" }), PEER, "inForged", 1],
    ["no pod", buildPacket({ ...good, from: "8.8.8.8" }), PEER, "inForged", 1],
    ["this node's pod", buildPacket({ ...good, from: "10.5.1.7" }), PEER, "inForged", 1],
    ["to another node", buildPacket({ ...good, to: "10.5.3.9" }), PEER, "inNotOurs", 1],
    ["to the world", buildPacket({ ...good, to: "8.8.8.8" }), PEER, "inNotOurs", 1],
    ["to a group", buildPacket({ ...good, to: "224.0.0.1" }), PEER, "inNotOurs", 1],
    ["IPv6 of another", buildPacket({ ...good, from: "fd00::1", to: TO6 }), PEER6, "inForged", 1],
    [
      "IPv6 in the other tunnel",
      buildPacket({ ...good, from: FROM6, to: TO6 }),
      PEER,
      "inForged",
      1,
    ],
    [
      "to another's IPv6",
      buildPacket({ ...good, from: FROM6, to: "fd00::1" }),
      PEER6,
      "inNotOurs",
      1,
    ],
    ["nothing", new Uint8Array(0), PEER, "inMalformed", 0],
    ["zeros", new Uint8Array(40), PEER, "inMalformed", 1],
    ["cut short", buildPacket(good).slice(0, 27), PEER, "inMalformed", 1],
    ["half a header", buildPacket(good).slice(0, 19), PEER, "inMalformed", 1],
    [
      "IPv6 cut short",
      buildPacket({ ...good, from: FROM6, to: TO6 }).slice(0, 47),
      PEER6,
      "inMalformed",
      1,
    ],
  ];
  for (const [name, packet, from, reason, peerDrops] of cases) {
    await t.step(name, () => {
      const rig = new InboundRig();
      assert.deepEqual(rig.receive([packet], from), []);
      assert.deepEqual(rig.drops(), { [reason]: 1 });
      const counter = from === PEER6 ? 2 : 0;
      assert.deepEqual(rig.counters.traffic("inbound", counter, counter + 1), {
        packets: 0,
        bytes: 0,
        drops: peerDrops,
      });
    });
  }
  await t.step("a datagram longer than its packet loses the rest", () => {
    const packet = buildPacket({ ...good, payload: payloadOf(10) });
    const [written] = new InboundRig().receive([new Uint8Array([...packet, 1, 2, 3])]);
    assert.deepEqual(written!.packet, packet);
  });
  await t.step("what the device refuses is counted", () => {
    const rig = new InboundRig();
    rig.result = -5;
    rig.receive(flow(3));
    assert.deepEqual(rig.drops(), { inFailed: 3 });
  });
});

/** Cuts a large packet as the kernel does, octet by octet. */
function cut(
  { packet, type, size }: Written,
): { payload: Uint8Array; flags: number | undefined }[] {
  const whole = readPacket(packet);
  assert.ok(whole.headerRight, "IPv4's header checksum");
  assert.equal(whole.checksum, "partial", "the sum of the pseudo header of the whole");
  assert.ok(whole.payload.length > size);
  const parts = [];
  for (let at = 0; at < whole.payload.length; at += size) {
    const last = at + size >= whole.payload.length;
    const flags = type === UDP_L4 ? undefined : whole.flags! & ~(last ? 0 : 0x09);
    parts.push({ payload: whole.payload.slice(at, at + size), flags });
  }
  return parts;
}

Deno.test("packets of one flow become one, which cut up again is what they were", async (t) => {
  const v6 = { from: FROM6, to: TO6 };
  const cases: readonly (readonly [string, string, number, number, Uint8Array[]])[] = [
    ["TCP", PEER, TCPV4, 20, flow(9)],
    ["TCP with whole checksums", PEER, TCPV4, 20, flow(9, () => ({ checksum: "right" }))],
    ["TCP with both", PEER, TCPV4, 20, flow(9, (n) => ({ checksum: n % 2 ? "right" : "partial" }))],
    ["TCP that ends", PEER, TCPV4, 20, flow(4, (n) => ({ flags: n === 3 ? 0x19 : 0x10 }))],
    ["TCP with ECN's echo", PEER, TCPV4, 20, flow(4, () => ({ flags: 0x50 }))],
    [
      "TCP with options",
      PEER,
      TCPV4,
      20,
      flow(4, () => ({ options: [1, 1, 8, 10, 9, 9, 9, 9, 0, 0, 0, 1] })),
    ],
    ["TCP that may be fragmented", PEER, TCPV4, 20, flow(4, () => ({ fragment: 0 }))],
    [
      "TCP, the last one shorter",
      PEER,
      TCPV4,
      20,
      flow(4, (n) => n === 3 ? { payload: payloadOf(33) } : {}),
    ],
    ["TCP over IPv6", PEER6, TCPV6, 40, flow(9, () => v6)],
    ["UDP", PEER, UDP_L4, 20, flow(9, () => ({ protocol: "udp" }))],
    [
      "UDP with whole checksums",
      PEER,
      UDP_L4,
      20,
      flow(9, () => ({ protocol: "udp", checksum: "right" })),
    ],
    ["UDP over IPv6", PEER6, UDP_L4, 40, flow(9, () => ({ protocol: "udp", ...v6 }))],
  ];
  for (const [name, from, type, start, packets] of cases) {
    await t.step(name, () => {
      const written = new InboundRig().receive(packets, from);
      assert.equal(written.length, 1);
      const { packet, ...header } = written[0]!;
      const before = packets.map((one) => readPacket(one));
      assert.deepEqual(header, {
        ...{ flags: NEEDS_CSUM, type, start, offset: type === UDP_L4 ? 6 : 16 },
        size: before[0]!.payload.length,
      });
      const expected = before.map(({ payload, flags }) => ({ payload, flags }));
      assert.deepEqual(cut(written[0]!), expected);
      const { sequence, id, ttl } = readPacket(packet);
      assert.deepEqual({ sequence, id, ttl }, {
        sequence: before[0]!.sequence,
        id: before[0]!.id,
        ttl: before[0]!.ttl,
      });
    });
  }
});

Deno.test("what differs in anything goes by itself, in order, and untouched", async (t) => {
  const odd = (change: Partial<PacketSpec>) => (index: number) => index === 1 ? change : {};
  const udp = (change: Partial<PacketSpec>) => (index: number): Partial<PacketSpec> => ({
    protocol: "udp",
    ...odd(change)(index),
  });
  // How many of three packets end up in each write.
  const cases: readonly (readonly [string, (index: number) => Partial<PacketSpec>, number[]])[] = [
    ["a gap", odd({ sequence: 5 }), [1, 1, 1]],
    ["other ports", odd({ fromPort: 1 }), [1, 1, 1]],
    ["another pod", odd({ from: "10.5.2.8" }), [1, 1, 1]],
    ["to another pod", odd({ to: "10.5.1.10" }), [1, 1, 1]],
    ["another TTL", odd({ ttl: 9 }), [1, 1, 1]],
    ["another acknowledgement", odd({ acknowledgement: 9 }), [1, 1, 1]],
    ["another window", odd({ window: 9 }), [1, 1, 1]],
    ["PSH in the middle", odd({ flags: 0x18 }), [3]],
    ["FIN in the middle", odd({ flags: 0x11 }), [2, 1]],
    ["RST", odd({ flags: 0x14 }), [1, 1, 1]],
    ["SYN", odd({ flags: 0x12 }), [1, 1, 1]],
    ["URG", odd({ flags: 0x30 }), [1, 1, 1]],
    ["CWR", odd({ flags: 0x90 }), [1, 1, 1]],
    ["another don't-fragment", odd({ fragment: 0 }), [1, 1, 1]],
    ["a number left out that counts", (n) => ({ fragment: 0, id: n * 2 }), [1, 1, 1]],
    ["a first fragment", odd({ fragment: 0x2000 }), [1, 1, 1]],
    ["a wrong checksum", odd({ checksum: "wrong" }), [1, 1, 1]],
    ["a wrong first checksum", (n) => n === 0 ? { checksum: "wrong" } : {}, [1, 2]],
    ["UDP without a checksum", udp({ checksum: "none" }), [1, 1, 1]],
    ["UDP to another port", udp({ toPort: 9 }), [1, 1, 1]],
    ["UDP with a wrong checksum", udp({ checksum: "wrong" }), [1, 1, 1]],
  ];
  for (const [name, change, expected] of cases) {
    await t.step(name, () => {
      const packets = flow(3, change);
      const written = new InboundRig().receive(packets);
      const counts = written.map(({ size, packet }) =>
        size === 0 ? 1 : Math.ceil(readPacket(packet).payload.length / size)
      );
      assert.deepEqual(counts, expected);
      let index = 0;
      for (const one of written) {
        if (one.size === 0) assert.deepEqual(one.packet, packets[index++]);
        else index += cut(one).length;
      }
    });
  }
  await t.step("a wrong IPv4 header checksum", () => {
    const packets = flow(3);
    packets[1]![10]! ^= 1;
    assert.equal(new InboundRig().receive(packets).length, 3);
  });
  await t.step("PSH in the middle is the whole's", () => {
    const [written] = new InboundRig().receive(flow(3, odd({ flags: 0x18 })));
    assert.equal(readPacket(written!.packet).flags, 0x18);
  });
  await t.step("a shorter one ends the chain", () => {
    const packets = flow(2, (index) => index === 1 ? { payload: payloadOf(60) } : {});
    assert.equal(new InboundRig().receive(packets).length, 1);
  });
  await t.step("datagrams of one size whose packets are not", () => {
    const packets = flow(4, (index) => ({
      sequence: [0, 100, 160, 260][index]!,
      payload: payloadOf(index === 1 ? 60 : 100),
    }));
    packets[1] = new Uint8Array([...packets[1]!, ...new Uint8Array(40)]);
    const [first, second] = new InboundRig().receive(packets);
    assert.deepEqual(cut(first!).map(({ payload }) => payload.length), [100, 60]);
    assert.equal(cut(second!).length, 2);
    const shortFirst = new InboundRig().receive([packets[1], packets[2]!]);
    assert.deepEqual(shortFirst.map(({ size }) => size), [0, 0]);
  });
  await t.step("a kernel that takes no large UDP packets gets small ones", () => {
    assert.equal(
      new InboundRig({ udp: false }).receive(flow(3, () => ({ protocol: "udp" }))).length,
      3,
    );
    assert.equal(new InboundRig({ tcp: false }).receive(flow(3)).length, 3);
  });
});

Deno.test("two flows in turns, and acknowledgements without data, are left alone", () => {
  const rig = new InboundRig();
  const turns = flow(8, (index) => ({ fromPort: 100 + index % 2 }));
  assert.deepEqual(rig.receive(turns).map(({ packet }) => packet), turns);
  const acks = flow(8, () => ({ payload: new Uint8Array(0) }));
  assert.deepEqual(rig.receive(acks).map(({ packet }) => packet), acks);
});
