import { Cidr, type Family, IpAddress } from "@denim/core";
import { IOVEC_LEN, type PacketMemory } from "@denim/core/linux/packet-memory";
import assert from "node:assert/strict";
import {
  buildPacket,
  checksumOf,
  type PacketSpec,
  readPacket,
} from "../../tests/support/packet.ts";
import { Counters, DROP, type Drop } from "./counters.ts";
import { Outbound, type OutboundKernel } from "./outbound.ts";
import { PeerMapWriter } from "./peer_map.ts";

/** One call of the kernel. */
interface Sent {
  readonly to: string;
  readonly fragments: boolean;
  readonly datagrams: readonly Uint8Array[];
}

/** Flags and kinds of virtio's header, from the kernel's own documentation. */
const NEEDS_CSUM = 1, TCPV4 = 1, TCPV6 = 4, UDP_L4 = 5, ECN = 0x80;

interface Header {
  readonly flags?: number;
  readonly type?: number;
  readonly size?: number;
  readonly start?: number;
  readonly offset?: number;
}

/** An outbound side with a kernel that remembers. */
class OutboundRig implements OutboundKernel {
  readonly peers = new PeerMapWriter(64);
  readonly sent: Sent[] = [];
  readonly errors: Uint8Array[] = [];
  readonly counters: Counters;
  readonly outbound: Outbound;
  /** What a send comes to; by default the kernel takes everything. */
  result: (sent: Sent) => number = () => 1;
  pathMtu: number | undefined = 1500;
  time = 0;

  constructor(options: { segment?: boolean; header?: boolean } = {}) {
    this.peers.setOwn([Cidr.parse("10.5.1.0/24"), Cidr.parse("fc00:5:0:1::/64")]);
    this.put("10.5.2.0/24", "10.99.0.2", true);
    this.put("10.5.3.0/24", "10.99.0.3", false);
    this.put("fc00:5:0:2::/64", "fd99::2", true);
    this.put("fc00:5:0:3::/64", "fd99::3", false);
    this.counters = new Counters(Counters.memory(64, 1), 64, 0);
    const { segment = true, header = true } = options;
    this.outbound = new Outbound(this.peers, this.counters, this, { port: 8285, header, segment });
  }

  put(subnet: string, publicIp: string, partialChecksums: boolean): void {
    const record = { subnet: Cidr.parse(subnet), publicIp: IpAddress.parse(publicIp) };
    this.peers.put({ ...record, partialChecksums }, 0);
  }

  /** Reads a packet as if it came from the TUN device. */
  read(packet: Uint8Array, header: Header = {}): void {
    const { outbound } = this;
    const { memory } = outbound;
    outbound.prepareRead();
    let iovec = outbound.readIovec;
    let length = packet.length;
    if (outbound.readIovecCount === 2) {
      const { flags = 0, type = 0, size = 0, start = 0, offset = 0 } = header;
      const at = memory.readIovec(iovec).offset;
      memory.bytes.set([flags, type], at);
      memory.halves.set([0, size, start, offset], (at + 2) >> 1);
      iovec += IOVEC_LEN;
      length += 10;
    }
    memory.bytes.set(packet, memory.readIovec(iovec).offset);
    outbound.take(length);
  }

  send(family: Family, fragments: boolean): number {
    const { memory, message } = this.outbound;
    // The kernel's msghdr is three pairs of an address and a length: name, iovec, control.
    const name = memory.readIovec(message);
    const iovecs = memory.readIovec(message + 16);
    const control = memory.readIovec(message + 32);
    const data = gather(memory, iovecs.offset, iovecs.byteLength);
    const size = control.byteLength === 0
      ? data.length
      : memory.view.getUint16(control.offset + 16, true);
    const datagrams = [];
    for (let at = 0; at < data.length; at += size) datagrams.push(data.slice(at, at + size));
    const address = memory.bytes.slice(name.offset, name.offset + name.byteLength);
    assert.equal(memory.view.getUint16(name.offset + 2), 8285);
    assert.equal(name.byteLength, family === 4 ? 16 : 28);
    const to = IpAddress.fromBytes(family === 4 ? address.slice(4, 8) : address.slice(8, 24));
    const sent = { to: `${to}`, fragments, datagrams };
    const result = this.result(sent);
    if (result >= 0) this.sent.push(sent);
    return result;
  }

  sendPacket(_family: Family, offset: number, byteLength: number): void {
    this.errors.push(this.outbound.memory.bytes.slice(offset, offset + byteLength));
  }

  pathMtuBytes(): number | undefined {
    return this.pathMtu;
  }

  nowMs(): number {
    return this.time;
  }

  drops(reason: Drop): number {
    return this.counters.drops(DROP[reason]);
  }
}

function gather(memory: PacketMemory, at: number, count: number): Uint8Array {
  const parts = Array.from(
    { length: count },
    (_, index) => memory.readIovec(at + index * IOVEC_LEN),
  );
  return new Uint8Array(
    parts.flatMap((
      { offset, byteLength },
    ) => [...memory.bytes.subarray(offset, offset + byteLength)]),
  );
}

const payloadOf = (length: number) => Uint8Array.from({ length }, (_, index) => (index * 7) & 255);
const FROM4 = "10.5.1.9", FROM6 = "fc00:5:0:1::9";
const TIMESTAMPS = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

Deno.test("a packet goes to the node of its destination, with a hop less and all else as it was", () => {
  for (
    const [from, to, node] of [
      [FROM4, "10.5.2.7", "10.99.0.2"],
      [FROM4, "10.5.3.7", "10.99.0.3"],
      [FROM6, "fc00:5:0:2::7", "fd99::2"],
    ] as const
  ) {
    for (const header of [true, false]) {
      const rig = new OutboundRig({ header });
      const spec: PacketSpec = { protocol: "udp", from, to, payload: payloadOf(100), ttl: 64 };
      rig.read(buildPacket(spec));
      assert.deepEqual(rig.sent, [], "it waits for company");
      rig.outbound.flush();
      const expected = {
        to: node,
        fragments: false,
        datagrams: [buildPacket({ ...spec, ttl: 63 })],
      };
      assert.deepEqual(rig.sent, [expected]);
    }
  }
});

Deno.test("TTL: every header checksum comes out right", () => {
  const rig = new OutboundRig({ segment: false });
  for (let ttl = 2; ttl < 256; ttl++) {
    const spec = { protocol: "udp", from: FROM4, to: "10.5.2.7", id: ttl * 257 } as const;
    rig.read(buildPacket({ ...spec, ttl }));
    rig.outbound.flush();
    assert.deepEqual(rig.sent.pop()!.datagrams, [buildPacket({ ...spec, ttl: ttl - 1 })]);
  }
});

Deno.test("a large TCP packet is cut as a kernel would cut it", async (t) => {
  const cases = [
    { name: "IPv4, partial", from: FROM4, to: "10.5.2.7", partial: true },
    { name: "IPv4, whole checksums", from: FROM4, to: "10.5.3.7", partial: false },
    { name: "IPv6, partial", from: FROM6, to: "fc00:5:0:2::7", partial: true },
    { name: "IPv6, whole checksums", from: FROM6, to: "fc00:5:0:3::7", partial: false },
  ];
  for (const { name, from, to, partial } of cases) {
    for (const options of [[], TIMESTAMPS]) {
      for (const length of [1, 1399, 1400, 1401, 2800, 14_001, 60_000]) {
        await t.step(`${name}, ${options.length} octets of options, ${length} of payload`, () => {
          const rig = new OutboundRig();
          const ipv4 = from === FROM4;
          const payload = payloadOf(length);
          // FIN, PSH, ACK and CWR; a sequence number and an id that wrap.
          const sequence = 0xffff_f000, id = 0xfffe;
          const spec: PacketSpec = {
            ...{
              protocol: "tcp",
              from,
              to,
              options,
              id,
              sequence,
              flags: 0x99,
              checksum: "partial",
            },
            payload,
          } as const;
          rig.read(buildPacket(spec), {
            flags: NEEDS_CSUM,
            type: (ipv4 ? TCPV4 : TCPV6) | ECN,
            size: 1400,
            start: ipv4 ? 20 : 40,
            offset: 16,
          });
          rig.outbound.flush();
          const expected: Uint8Array[] = [];
          for (let at = 0, index = 0; at < length; at += 1400, index++) {
            const last = at + 1400 >= length;
            expected.push(buildPacket({
              ...spec,
              ttl: 63,
              payload: payload.slice(at, at + 1400),
              sequence: (sequence + at) % 2 ** 32,
              id: (id + index) % 65_536,
              flags: 0x10 | (last ? 0x09 : 0) | (index === 0 ? 0x80 : 0),
              checksum: partial ? "partial" : "right",
            }));
          }
          const datagrams = rig.sent.flatMap((sent) => sent.datagrams);
          assert.equal(datagrams.length, expected.length);
          datagrams.forEach((datagram, index) => assert.deepEqual(datagram, expected[index]));
          for (const sent of rig.sent) {
            const total = sent.datagrams.reduce((sum, datagram) => sum + datagram.length, 0);
            assert.ok(sent.datagrams.length <= 64 && total <= 65_507);
          }
        });
      }
    }
  }
});

Deno.test("a large UDP packet is cut into datagrams", () => {
  for (const [to, checksum] of [["10.5.2.7", "partial"], ["10.5.3.7", "right"]] as const) {
    const rig = new OutboundRig();
    const payload = payloadOf(3000);
    const spec: PacketSpec = {
      protocol: "udp",
      from: FROM4,
      to,
      checksum: "partial",
      payload,
      id: 3,
    };
    rig.read(buildPacket(spec), {
      flags: NEEDS_CSUM,
      type: UDP_L4,
      size: 1200,
      start: 20,
      offset: 6,
    });
    rig.outbound.flush();
    const expected = [0, 1200, 2400].map((at, index) =>
      buildPacket({
        ...spec,
        ttl: 63,
        checksum,
        payload: payload.slice(at, at + 1200),
        id: 3 + index,
      })
    );
    assert.deepEqual(rig.sent.flatMap(({ datagrams }) => datagrams), expected);
  }
});

Deno.test("a checksum left to do is done for those who don't take it undone", () => {
  for (const protocol of ["tcp", "udp"] as const) {
    for (const [to, expected] of [["10.5.2.7", "partial"], ["10.5.3.7", "right"]] as const) {
      const rig = new OutboundRig();
      const spec: PacketSpec = { protocol, from: FROM4, to, payload: payloadOf(333) };
      const offset = protocol === "tcp" ? 16 : 6;
      const partial = buildPacket({ ...spec, checksum: "partial" });
      rig.read(partial, { flags: NEEDS_CSUM, start: 20, offset });
      rig.outbound.flush();
      assert.equal(readPacket(rig.sent[0]!.datagrams[0]!).checksum, expected, `${protocol} ${to}`);
    }
  }
});

Deno.test("a checksum left to do deeper inside, of a tunnel in the tunnel, is always done", () => {
  const rig = new OutboundRig();
  const inner = buildPacket({
    protocol: "udp",
    from: "1.1.1.1",
    to: "2.2.2.2",
    checksum: "partial",
  });
  const outer = buildPacket({ protocol: 4, from: FROM4, to: "10.5.2.7", payload: inner });
  rig.read(outer, { flags: NEEDS_CSUM, start: 40, offset: 6 });
  rig.outbound.flush();
  assert.equal(readPacket(rig.sent[0]!.datagrams[0]!.slice(20)).checksum, "right");
});

Deno.test("batches: one size and one peer, and only the last datagram shorter", () => {
  const rig = new OutboundRig();
  const put = (to: string, length: number) =>
    rig.read(buildPacket({ protocol: "udp", from: FROM4, to, payload: payloadOf(length) }));
  for (const length of [500, 500, 300, 500, 800, 800]) put("10.5.2.7", length);
  put("10.5.3.7", 800);
  rig.outbound.flush();
  const sizes = rig.sent.map((
    { to, datagrams },
  ) => [to, ...datagrams.map((one) => one.length - 28)]);
  assert.deepEqual(sizes, [
    ["10.99.0.2", 500, 500, 300],
    ["10.99.0.2", 500],
    ["10.99.0.2", 800, 800],
    ["10.99.0.3", 800],
  ]);
  assert.deepEqual(rig.counters.traffic("outbound", 0, 1), {
    packets: 6,
    bytes: 3400 + 6 * 28,
    drops: 0,
  });
});

Deno.test("batches: as many as the kernel takes, and one at a time if it takes no more", () => {
  for (const [segment, most] of [[true, 64], [false, 1]] as const) {
    const rig = new OutboundRig({ segment });
    for (let index = 0; index < 200; index++) {
      rig.read(
        buildPacket({ protocol: "udp", from: FROM4, to: "10.5.2.7", payload: payloadOf(9) }),
      );
    }
    rig.outbound.flush();
    assert.equal(rig.sent.flatMap(({ datagrams }) => datagrams).length, 200);
    assert.equal(Math.max(...rig.sent.map(({ datagrams }) => datagrams.length)), most);
  }
});

Deno.test("batches: no longer than a datagram can be", () => {
  const rig = new OutboundRig();
  for (let index = 0; index < 64; index++) {
    rig.read(
      buildPacket({ protocol: "udp", from: FROM4, to: "10.5.2.7", payload: payloadOf(1400) }),
    );
  }
  rig.outbound.flush();
  const counts = rig.sent.map(({ datagrams }) => datagrams.length);
  assert.equal(counts.reduce((sum, count) => sum + count), 64);
  assert.equal(Math.max(...counts), 45);
});

Deno.test("large packets and small ones in any order: none is overwritten before it is sent", () => {
  const rig = new OutboundRig();
  let state = 7;
  const random = (below: number) => {
    state = Math.imul(state, 1664525) + 1013904223;
    return (state >>> 8) % below;
  };
  const expected: number[] = [];
  for (let index = 0; index < 600; index++) {
    // Full segments leave a batch open for what comes next.
    const length = [1400 * (29 + random(16)), 1400 * (1 + random(3)), 2 + random(200)][random(3)]!;
    const payload = new Uint8Array(length).fill(random(256));
    for (let at = 0; at < length; at += 1400) payload.set([index >> 8, index & 255], at);
    const header = buildPacket({
      protocol: "tcp",
      from: FROM4,
      to: "10.5.2.7",
      checksum: "partial",
    });
    const packet = new Uint8Array([...header, ...payload]);
    new DataView(packet.buffer).setUint16(2, packet.length);
    const gso = length > 1400 ? { type: TCPV4, size: 1400 } : {};
    rig.read(packet, { flags: NEEDS_CSUM, start: 20, offset: 16, ...gso });
    expected.push(hashOf(payload));
    if (random(8) === 0) rig.outbound.flush();
  }
  rig.outbound.flush();
  const parts: number[][] = [];
  for (const datagram of rig.sent.flatMap((sent) => sent.datagrams)) {
    const payload = datagram.subarray(40);
    (parts[payload[0]! * 256 + payload[1]!] ??= []).push(...payload);
  }
  assert.deepEqual(parts.map(hashOf), expected);
});

/** FNV-1a. */
function hashOf(octets: Iterable<number>): number {
  let hash = 0x811c_9dc5;
  for (const octet of octets) hash = Math.imul(hash ^ octet, 0x0100_0193);
  return hash >>> 0;
}

Deno.test("a peer that comes, moves and goes is followed at the next packet", () => {
  const rig = new OutboundRig();
  const packet = buildPacket({ protocol: "udp", from: FROM4, to: "10.5.9.1" });
  const try_ = () => {
    rig.read(packet);
    rig.outbound.flush();
    return rig.sent.pop()?.to;
  };
  assert.equal(try_(), undefined);
  rig.put("10.5.9.0/24", "10.99.0.9", true);
  assert.equal(try_(), "10.99.0.9");
  rig.put("10.5.9.0/24", "10.99.0.10", true);
  assert.equal(try_(), "10.99.0.10");
  rig.peers.remove(Cidr.parse("10.5.9.0/24"), 0);
  assert.equal(try_(), undefined);
  assert.equal(rig.drops("outNoPeer"), 2);
});

/** Type, code, the word behind them, and what is quoted of an ICMP error. */
function readError(packet: Uint8Array) {
  const ipv4 = packet[0]! >> 4 === 4;
  const header = ipv4 ? 20 : 40;
  const octets = [...packet];
  const icmp = octets.slice(header);
  const pseudo = ipv4 ? [] : [...octets.slice(8, 40), 0, 0, ...octets.slice(4, 6), 0, 0, 0, 58];
  assert.equal(checksumOf([...pseudo, ...icmp]), 0, "ICMP's checksum");
  if (ipv4) assert.equal(checksumOf(octets.slice(0, 20)), 0, "IP's checksum");
  const address = (from: number, to: number) => `${IpAddress.fromBytes(packet.slice(from, to))}`;
  return {
    from: ipv4 ? address(12, 16) : address(8, 24),
    to: ipv4 ? address(16, 20) : address(24, 40),
    type: icmp[0],
    code: icmp[1],
    mtuBytes: icmp[4]! * 2 ** 24 + icmp[5]! * 2 ** 16 + icmp[6]! * 256 + icmp[7]!,
    quoted: packet.slice(header + 8),
  };
}

Deno.test("what can't go on is dropped, and its sender told", async (t) => {
  const ipv4 = { from: "10.5.1.0", to: FROM4, code: 0, mtuBytes: 0 };
  const ipv6 = { from: "fc00:5:0:1::", to: FROM6, code: 0, mtuBytes: 0 };
  const cases: readonly (readonly [string, PacketSpec, Drop, object])[] = [
    ["TTL 1", { protocol: "udp", from: FROM4, to: "10.5.2.7", ttl: 1 }, "outExpired", {
      ...ipv4,
      type: 11,
    }],
    ["hop limit 1", { protocol: "udp", from: FROM6, to: "fc00:5:0:2::7", ttl: 1 }, "outExpired", {
      ...ipv6,
      type: 3,
    }],
    ["no peer", { protocol: "udp", from: FROM4, to: "10.5.99.1" }, "outNoPeer", {
      ...ipv4,
      type: 3,
    }],
    ["no IPv6 peer", { protocol: "tcp", from: FROM6, to: "fc00:5:0:99::1" }, "outNoPeer", {
      ...ipv6,
      type: 1,
    }],
  ];
  for (const [name, spec, reason, expected] of cases) {
    await t.step(name, () => {
      const rig = new OutboundRig();
      const packet = buildPacket({ ...spec, payload: payloadOf(1300) });
      rig.read(packet);
      rig.outbound.flush();
      assert.deepEqual(rig.sent, []);
      assert.equal(rig.drops(reason), 1);
      const { quoted, ...error } = readError(rig.errors[0]!);
      assert.deepEqual(error, expected);
      // RFC 1812 and RFC 4443: as much as fits into 576 or 1,280 octets.
      const most = packet[0]! >> 4 === 4 ? 576 - 28 : 1280 - 48;
      assert.deepEqual(quoted, packet.slice(0, most));
    });
  }
});

Deno.test("nothing is said of errors, later fragments, groups and crowds", async (t) => {
  const icmp = (type: number) => new Uint8Array([type, 0, 0, 0, 0, 0, 0, 0]);
  const nowhere = "10.5.99.1", nowhere6 = "fc00:5:0:99::1";
  const silent: readonly (readonly [string, PacketSpec])[] = [
    ...[3, 4, 5, 11, 12].map((type) =>
      [`ICMP ${type}`, { protocol: 1, from: FROM4, to: nowhere, payload: icmp(type) }] as const
    ),
    ...[1, 2, 3, 4, 127, 137].map((type) =>
      [`ICMPv6 ${type}`, { protocol: 58, from: FROM6, to: nowhere6, payload: icmp(type) }] as const
    ),
    ["a later fragment", { protocol: 17, from: FROM4, to: nowhere, fragment: 5 }],
    ["a later fragment of IPv6", {
      ...{ protocol: 44, from: FROM6, to: nowhere6 },
      payload: new Uint8Array([17, 0, 0, 8, 0, 0, 0, 1]),
    }],
    ["to a group", { protocol: "udp", from: FROM4, to: "224.0.0.5" }],
    ["to all", { protocol: "udp", from: FROM4, to: "255.255.255.255" }],
    ["to an IPv6 group", { protocol: "udp", from: FROM6, to: "ff02::2" }],
    ["from a group", { protocol: "udp", from: "224.0.0.5", to: nowhere }],
    ["from the broadcast", { protocol: "udp", from: "10.5.1.255", to: nowhere }],
    ["from nobody", { protocol: "udp", from: "0.0.0.0", to: nowhere }],
    ["from an IPv6 group", { protocol: "udp", from: "ff02::5", to: nowhere6 }],
    ["from another node's pod", { protocol: "udp", from: "10.5.2.7", to: nowhere }],
  ];
  for (const [name, spec] of silent) {
    await t.step(name, () => {
      const rig = new OutboundRig();
      rig.read(buildPacket(spec));
      rig.outbound.flush();
      assert.deepEqual([rig.sent, rig.errors], [[], []]);
    });
  }
  const told: readonly (readonly [string, PacketSpec])[] = [
    ["an echo request", { protocol: 1, from: FROM4, to: nowhere, payload: icmp(8) }],
    ["an ICMPv6 echo request", { protocol: 58, from: FROM6, to: nowhere6, payload: icmp(128) }],
    ["a first fragment", { protocol: 17, from: FROM4, to: nowhere, fragment: 0x2000 }],
  ];
  for (const [name, spec] of told) {
    await t.step(name, () => {
      const rig = new OutboundRig();
      rig.read(buildPacket(spec));
      assert.equal(rig.errors.length, 1);
    });
  }
});

Deno.test("errors are told at a rate, to one pod a fifth of it, and again after a while", () => {
  const rig = new OutboundRig();
  const complain = (from: string, times: number) => {
    const before = rig.errors.length;
    for (let index = 0; index < times; index++) {
      rig.read(buildPacket({ protocol: "udp", from, to: "10.5.99.1" }));
    }
    return rig.errors.length - before;
  };
  assert.equal(complain("10.5.1.9", 500), 10);
  assert.equal(complain("10.5.1.10", 5), 5);
  let all = 0;
  for (let host = 11; host < 61; host++) all += complain(`10.5.1.${host}`, 20);
  assert.equal(all, 50 - 15);
  rig.time = 10;
  assert.equal(complain("10.5.1.9", 500), 2);
  rig.time = 60_000;
  assert.equal(complain("10.5.1.9", 500), 10);
});

Deno.test("too large for the path: told with the right MTU, or sent in fragments", async (t) => {
  const cases: readonly (readonly [string, PacketSpec, number | "fragments"])[] = [
    ["don't fragment", { protocol: "udp", from: FROM4, to: "10.5.2.7" }, 1300 - 28],
    ["may fragment", { protocol: "udp", from: FROM4, to: "10.5.2.7", fragment: 0 }, "fragments"],
    ["IPv6", { protocol: "udp", from: FROM6, to: "fc00:5:0:2::7" }, 1280],
  ];
  for (const [name, spec, expected] of cases) {
    await t.step(name, () => {
      const rig = new OutboundRig();
      rig.pathMtu = 1300;
      rig.result = ({ datagrams, fragments }) =>
        !fragments && datagrams.some((one) => one.length > 1300 - 28) ? -90 : 1;
      rig.read(buildPacket({ ...spec, payload: payloadOf(1350) }));
      rig.read(buildPacket({ ...spec, payload: payloadOf(1000) }));
      rig.outbound.flush();
      const sizes = rig.sent.map(({ fragments, datagrams }) =>
        `${datagrams.map((one) => readPacket(one).payload.length)}${fragments ? " fragments" : ""}`
      );
      if (expected === "fragments") {
        assert.deepEqual(sizes, ["1350 fragments", "1000"]);
        assert.deepEqual(rig.errors, []);
      } else {
        assert.deepEqual(sizes, ["1000"]);
        assert.equal(readError(rig.errors[0]!).mtuBytes, expected);
        assert.equal(rig.drops("outTooBig"), 1);
      }
    });
  }
});

Deno.test("a series that the kernel refuses goes one by one; what fails for good is counted", () => {
  const rig = new OutboundRig();
  const put = () =>
    rig.read(buildPacket({ protocol: "udp", from: FROM4, to: "10.5.2.7", payload: payloadOf(9) }));
  for (const refused of [-22, -5]) {
    rig.result = ({ datagrams }) => datagrams.length > 1 ? refused : 1;
    for (let index = 0; index < 3; index++) put();
    rig.outbound.flush();
    assert.deepEqual(rig.sent.splice(0).map(({ datagrams }) => datagrams.length), [1, 1, 1]);
  }
  let calls = 0;
  rig.result = () => (calls++, -105);
  for (let index = 0; index < 3; index++) put();
  rig.outbound.flush();
  assert.equal(calls, 1, "no use in trying each");
  assert.equal(rig.drops("outFailed"), 3);
  assert.deepEqual(rig.counters.traffic("outbound", 0, 1), { packets: 6, bytes: 6 * 37, drops: 3 });
});

Deno.test("too large for a path that is gone: counted, and nobody is told", () => {
  const rig = new OutboundRig();
  rig.pathMtu = undefined;
  rig.result = () => -90;
  rig.read(buildPacket({ protocol: "udp", from: FROM4, to: "10.5.2.7", payload: payloadOf(1350) }));
  rig.outbound.flush();
  assert.deepEqual([rig.drops("outFailed"), rig.drops("outTooBig"), rig.errors], [1, 0, []]);
});

Deno.test("what is no IP packet is dropped", () => {
  const rig = new OutboundRig();
  const bad = [
    new Uint8Array(0),
    new Uint8Array(20),
    new Uint8Array([0x45, 0, 0]),
    new Uint8Array([0x44, ...new Uint8Array(30)]),
    new Uint8Array([0x4f, ...new Uint8Array(30)]),
    new Uint8Array([0x60, ...new Uint8Array(30)]),
  ];
  for (const packet of bad) rig.read(packet);
  const header = { flags: NEEDS_CSUM, type: TCPV4, start: 20, offset: 16 };
  const tcp = buildPacket({ protocol: "tcp", from: FROM4, to: "10.5.2.7", payload: payloadOf(90) });
  rig.read(tcp, { ...header, size: 0 });
  rig.read(tcp, { ...header, size: 40, start: 8 });
  rig.read(tcp, { ...header, size: 40, start: 400 });
  rig.outbound.flush();
  assert.deepEqual(rig.sent, []);
  assert.equal(rig.drops("outMalformed"), bad.length + 3);
});
