/**
 * A million datagrams, most of them broken in some way, always the same ones. The judge looks at octets and
 * shares no code with what it judges.
 */

import { Cidr, IpAddress } from "@denim/core";
import { IOVEC_LEN } from "@denim/core/linux/packet-memory";
import assert from "node:assert/strict";
import { buildPacket, type PacketSpec, readPacket } from "../../tests/support/packet.ts";
import { randomNumbers } from "../../tests/support/random.ts";
import { AddressWords } from "./address_words.ts";
import { Counters, DROP, DROPS } from "./counters.ts";
import { Inbound } from "./inbound.ts";
import { PeerMapWriter } from "./peer_map.ts";

const DATAGRAMS = 1_000_000;
const SEED = 0x2545_f491;
const MAX_SERIES = 8;

/** Who may send what: the outer address, and the first octets of the sources that it may use. */
const SENDERS = [
  { address: "10.99.0.2", prefix: [10, 5, 2] },
  { address: "10.99.0.3", prefix: [10, 5, 3] },
  { address: "fd99::2", prefix: [0xfc, 0, 0, 5, 0, 0, 0, 2] },
  { address: "10.99.0.66", prefix: undefined },
] as const;
const OWN = { 4: [10, 5, 1], 6: [0xfc, 0, 0, 5, 0, 0, 0, 1] } as const;

/** Packets of flows, each the next of the one before it, so that some can be joined. */
function corpus(): Uint8Array[] {
  const flows: readonly Partial<PacketSpec>[] = [
    {},
    { checksum: "right" },
    { protocol: "udp" },
    { from: "fc00:5:0:2::7", to: "fc00:5:0:1::9" },
    { from: "fc00:5:0:2::7", to: "fc00:5:0:1::9", protocol: "udp", checksum: "right" },
    { options: [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8] },
    { from: "10.5.3.7", flags: 0x18 },
    { protocol: 1 },
  ];
  return flows.flatMap((change) =>
    Array.from({ length: MAX_SERIES }, (_, index) =>
      buildPacket({
        ...{ protocol: "tcp", from: "10.5.2.7", to: "10.5.1.9", checksum: "partial" },
        ...{ sequence: 1000 + index * 24, id: index, payload: new Uint8Array(24).fill(index) },
        ...change,
      } as PacketSpec))
  );
}

const startsWith = (octets: Uint8Array, at: number, prefix: readonly number[]) =>
  prefix.every((octet, index) => octets[at + index] === octet);

Deno.test("a million mutated datagrams: nothing is delivered that should not be, and nothing throws", () => {
  const peers = new PeerMapWriter(64);
  peers.setOwn([Cidr.parse("10.5.1.0/24"), Cidr.parse("fc00:5:0:1::/64")]);
  const subnets = ["10.5.2.0/24", "10.5.3.0/24", "fc00:5:0:2::/64"];
  subnets.forEach((subnet, index) => {
    const publicIp = IpAddress.parse(SENDERS[index]!.address);
    peers.put({ subnet: Cidr.parse(subnet), publicIp, partialChecksums: true }, 0);
  });
  const words = SENDERS.map(({ address }) => AddressWords.of(IpAddress.parse(address)));
  const counters = new Counters(Counters.memory(64, 1), 64, 0);

  let sender: typeof SENDERS[number] = SENDERS[0];
  let input = new Uint8Array(0), step = 0, delivered = 0, joined = 0;
  const judge = { write };
  const options = { header: true, checksums: true, tcp: true, udp: true };
  const inbound = new Inbound(peers, counters, judge, options);
  const { memory, data } = inbound;

  function write(count: number): number {
    const element = (index: number) => memory.readIovec(inbound.writeIovec + index * IOVEC_LEN);
    const { offset, byteLength } = element(1);
    const { bytes, view } = memory;
    const version = bytes[offset]! >> 4;
    assert.ok(version === 4 || version === 6);
    assert.ok(sender.prefix !== undefined, "a stranger's");
    assert.ok(startsWith(bytes, offset + (version === 4 ? 12 : 8), sender.prefix), "the source");
    assert.ok(
      startsWith(bytes, offset + (version === 4 ? 16 : 24), OWN[version]),
      "the destination",
    );
    let total = byteLength;
    for (let index = 2; index <= count - 1; index++) total += element(index).byteLength;
    const says = version === 4 ? view.getUint16(offset + 2) : 40 + view.getUint16(offset + 4);
    assert.equal(says, total, "the length");
    for (let index = 1; index < count; index++) {
      const part = element(index);
      assert.ok(part.byteLength > 0 && part.offset >= data);
      assert.ok(part.offset + part.byteLength <= data + input.length, "beyond what was received");
    }
    delivered += count - 1;
    const { offset: header } = element(0);
    const [flags, gsoType] = [bytes[header]!, bytes[header + 1]!];
    const at16 = (at: number) => view.getUint16(header + at, true);
    assert.ok(flags === 0 || at16(6) + at16(8) + 2 <= byteLength, "the checksum's place");
    assert.equal(gsoType !== 0, count > 2);
    if (count > 2) {
      joined += count - 1;
      assert.ok(flags === 1 && at16(4) > 0);
      // Joined is only what was right: nobody after this can tell any more.
      for (let index = 1; index < count; index++) {
        const start = Math.floor((element(index).offset - data) / step) * step;
        const original = input.subarray(start, Math.min(start + step, input.length));
        const length = version === 4
          ? original[2]! * 256 + original[3]!
          : 40 + original[4]! * 256 + original[5]!;
        const reading = readPacket(original.subarray(0, length));
        assert.ok(reading.headerRight && reading.checksum !== "wrong", "a fault covered up");
      }
    }
    return 1;
  }

  const random = randomNumbers(SEED);
  const packets = corpus();
  const series = new Uint8Array(MAX_SERIES * 256);
  let fed = 0;
  while (fed < DATAGRAMS) {
    // A series of a flow, mostly; then up to four faults in it.
    const count = 1 + random(MAX_SERIES);
    const flow = random(packets.length / MAX_SERIES) * MAX_SERIES;
    let length = 0;
    for (let index = 0; index < count; index++) {
      const packet = packets[random(20) === 0 ? random(packets.length) : flow + index]!;
      series.set(packet, length);
      length += packet.length;
    }
    step = packets[flow]!.length;
    for (let faults = random(5); faults > 0; faults--) {
      // Where headers are, faults tell most.
      const at = random(3) === 0 ? random(length) : random(count) * step + random(60);
      switch (random(4)) {
        case 0:
          series[at] = series[at]! ^ (1 << random(8));
          break;
        case 1:
          series[at] = random(256);
          break;
        case 2:
          series.copyWithin(at, random(length), random(length));
          break;
        case 3:
          series[at] = [0, 1, 0x45, 0x60, 0x7f, 0x80, 0xff, 6][random(8)]!;
      }
    }
    if (random(10) === 0) length = random(length + 1);
    if (random(20) === 0) step = 1 + random(200);
    input = series.slice(0, length);
    const chosen = random(8) === 0
      ? random(SENDERS.length)
      : flow === 24 || flow === 32
      ? 2
      : flow === 48
      ? 1
      : 0;
    sender = SENDERS[chosen]!;
    memory.bytes.set(input, data);
    inbound.setSource(words[chosen]!);
    const single = random(16) === 0;
    if (single) step = Math.max(length, 1);
    inbound.takeSeries(length, single ? 0 : step);
    fed += Math.max(Math.ceil(length / step), 1);
  }
  const dropped = DROPS.reduce((sum, name) => sum + counters.drops(DROP[name]), 0);
  assert.equal(delivered + dropped, fed, "every datagram is delivered or counted");
  // Broken as they are, enough of them get through, and get joined, to make it a test.
  assert.ok(delivered > fed / 10 && joined > fed / 50, `${delivered} delivered, ${joined} joined`);
  for (const reason of ["inMalformed", "inStranger", "inForged", "inNotOurs"] as const) {
    assert.ok(counters.drops(DROP[reason]) > fed / 1000, reason);
  }
});
