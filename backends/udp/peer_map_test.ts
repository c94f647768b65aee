import { Cidr, IpAddress } from "@denim/core";
import assert from "node:assert/strict";
import { AddressWords } from "./address_words.ts";
import { PeerMap, PeerMapWriter } from "./peer_map.ts";

const words = (text: string) => AddressWords.of(IpAddress.parse(text));

/** The public address of the record that an address is found to belong to. */
function find(map: PeerMap, text: string): string | undefined {
  const slot = map.find(words(text));
  if (slot < 0) return undefined;
  const found = new AddressWords();
  map.readPublic(slot, found);
  assert.equal(map.publicFamily(slot), found.family);
  return `${found.toAddress()}`;
}

const record = (subnet: string, publicIp: string, partialChecksums = false) => ({
  subnet: Cidr.parse(subnet),
  publicIp: IpAddress.parse(publicIp),
  partialChecksums,
});

Deno.test("a reader in the same memory finds what was put, and the longest prefix of several", () => {
  const writer = new PeerMapWriter(16);
  const reader = new PeerMap(writer.shared, writer.capacity);
  const before = reader.version;
  assert.equal(find(reader, "10.5.1.9"), undefined);
  writer.put(record("10.5.1.0/24", "10.99.0.1"), 0);
  writer.put(record("10.5.0.0/16", "10.99.0.2"), 0);
  writer.put(record("10.5.1.64/26", "10.99.0.3"), 0);
  writer.put(record("fc00:5:0:7::/64", "fd99::7"), 0);
  assert.notEqual(reader.version, before);
  assert.equal(find(reader, "10.5.1.9"), "10.99.0.1");
  assert.equal(find(reader, "10.5.1.127"), "10.99.0.3");
  assert.equal(find(reader, "10.5.2.1"), "10.99.0.2");
  assert.equal(find(reader, "10.6.0.1"), undefined);
  assert.equal(find(reader, "fc00:5:0:7::1"), "fd99::7");
  assert.equal(find(reader, "fc00:5:0:8::1"), undefined);
});

Deno.test("a record put again takes the place of the old one; removed, it is not found", () => {
  const writer = new PeerMapWriter(16);
  writer.put(record("10.5.1.0/24", "10.99.0.1"), 0);
  const counter = writer.counter(writer.find(words("10.5.1.1")));
  writer.put(record("10.5.1.0/24", "10.99.0.9", true), 0);
  assert.equal(find(writer, "10.5.1.1"), "10.99.0.9");
  assert.equal(writer.counter(writer.find(words("10.5.1.1"))), counter, "it is the same peer");
  const slot = writer.find(words("10.5.1.1"));
  assert.equal(writer.takesPartialChecksums(slot), true);
  assert.ok(writer.findByAddress(words("10.99.0.9")) >= 0);
  assert.equal(writer.findByAddress(words("10.99.0.1")), -1);
  writer.remove(Cidr.parse("10.5.1.0/24"), 0);
  writer.remove(Cidr.parse("10.5.1.0/24"), 0);
  assert.equal(find(writer, "10.5.1.1"), undefined);
  assert.equal(writer.findByAddress(words("10.99.0.9")), -1);
});

Deno.test("memory rests before it is used again; a full table refuses", () => {
  const writer = new PeerMapWriter(2);
  assert.equal(writer.put(record("10.5.1.0/24", "10.99.0.1"), 0), true);
  assert.equal(writer.put(record("10.5.2.0/24", "10.99.0.2"), 0), true);
  assert.equal(writer.put(record("10.5.3.0/24", "10.99.0.3"), 0), false);
  writer.remove(Cidr.parse("10.5.1.0/24"), 0);
  assert.equal(writer.put(record("10.5.3.0/24", "10.99.0.3"), 1_000), false);
  assert.equal(writer.put(record("10.5.3.0/24", "10.99.0.3"), 60_000), true);
  assert.equal(find(writer, "10.5.3.1"), "10.99.0.3");
  assert.equal(find(writer, "10.5.2.1"), "10.99.0.2");
});

Deno.test("own addresses, and the broadcast among them", () => {
  const writer = new PeerMapWriter(2);
  const own = (text: string) => {
    const address = IpAddress.parse(text);
    return writer.isOwn(address.family, new DataView(address.toBytes().buffer), 0);
  };
  assert.equal(own("0.0.0.0") || own("::"), false, "without a lease nothing is");
  writer.setOwn([Cidr.parse("10.5.4.0/24"), Cidr.parse("fc00:5:0:4::/64")]);
  assert.deepEqual(["10.5.4.0", "10.5.4.255", "fc00:5:0:4::9"].map(own), [true, true, true]);
  assert.deepEqual(["10.5.5.0", "10.5.3.255", "fc00:5:0:5::9"].map(own), [false, false, false]);
  assert.equal(writer.isOwnBroadcast(words("10.5.4.255").a), true);
  assert.equal(writer.isOwnBroadcast(words("10.5.4.254").a), false);
});

Deno.test("a lookup among 60,000 peers costs no more than among 60", () => {
  const nsPerLookup = (peers: number) => {
    const writer = new PeerMapWriter(1 << 17);
    const subnet = (index: number) =>
      new Cidr(new IpAddress(4, BigInt(0x0a00_0000 + index * 256)), 24);
    for (let index = 1; index <= peers; index++) {
      const publicIp = new IpAddress(4, BigInt(0xac10_0000 + index));
      writer.put({ subnet: subnet(index), publicIp, partialChecksums: true }, 0);
    }
    const address = new AddressWords();
    const lookups = 200_000;
    let best = Infinity, found = 0;
    for (let run = 0; run < 5; run++) {
      const startMs = performance.now();
      for (let index = 0; index < lookups; index++) {
        const peer = 1 + Math.imul(index, 0x9e37_79b1) % peers;
        address.a = 0x0a00_0001 + Math.abs(peer) * 256;
        if (writer.find(address) >= 0) found++;
      }
      best = Math.min(best, (performance.now() - startMs) * 1e6 / lookups);
    }
    assert.ok(found > lookups);
    return best;
  };
  const [few, many] = [nsPerLookup(60), nsPerLookup(60_000)];
  // The memory of 60,000 is in no cache; that is all that may differ.
  assert.ok(many < 20 * few + 500, `${few} ns among 60, ${many} ns among 60,000`);
});
