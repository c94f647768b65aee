import assert from "node:assert/strict";
import { IpAddress } from "../../ip.ts";
import { MacAddress } from "../../mac.ts";
import { MessageReader, MessageWriter } from "./netlink_codec.ts";
import { NLM_F_ACK, NLM_F_CREATE } from "../uapi/netlink.ts";

function written(writer: MessageWriter): string {
  return writer.bytes.subarray(0, writer.length).toHex().replace(/.{8}(?=.)/g, "$& ");
}

function readerOf(writer: MessageWriter): MessageReader {
  return new MessageReader(writer.bytes, writer.length);
}

Deno.test("MessageWriter packs messages, numbers them, and pads attributes to four octets", () => {
  const writer = new MessageWriter();
  writer.begin(16, NLM_F_CREATE).u8(1).u8(2).u16(3).u32(4).u8Attribute(5, 6).end();
  writer.begin(17, 0).be16Attribute(1, 8472).flagAttribute(2).stringAttribute(3, "lo").end();
  writer.addFlags(NLM_F_ACK);
  assert.equal(writer.count, 2);
  assert.equal(
    written(writer),
    // length, type and flags (NLM_F_REQUEST besides), sequence number, port id
    "20000000 10000104 01000000 00000000 01020300 04000000 05000500 06000000 " +
      "24000000 11000500 02000000 00000000 06000100 21180000 04000200 07000300 6c6f0000",
  );
});

Deno.test("MessageWriter takes back a message that was not ended, and starts again when cleared", () => {
  const writer = new MessageWriter();
  writer.begin(16, 0).u32(1).end();
  const one = written(writer);
  writer.begin(17, 0).u32(2);
  writer.abandon();
  writer.abandon();
  assert.equal(writer.count, 1);
  assert.equal(written(writer), one);
  writer.addFlags(NLM_F_ACK);
  assert.equal(written(writer), one.replace("10000100", "10000500"), "of the message before");
  writer.clear();
  assert.deepEqual([writer.count, writer.length], [0, 0]);
  writer.begin(16, 0).u32(1).end();
  assert.equal(written(writer), one);
});

Deno.test("MessageWriter's padding and socket addresses show nothing of what was written before", () => {
  const writer = new MessageWriter();
  writer.begin(16, 0).bytesAttribute(1, new Uint8Array(100).fill(255)).end();
  writer.clear();
  writer.begin(16, 0).bytesAttribute(1, new Uint8Array([1])).bytesAttribute(2, new Uint8Array())
    .addressAttribute(3, MacAddress.parse("02:0a:05:00:00:02"))
    .socketAddressAttribute(4, IpAddress.parse("10.99.0.2"), 51820)
    .socketAddressAttribute(5, IpAddress.parse("fd99::2"), 51821).end();
  assert.equal(
    written(writer).slice("xxxxxxxx ".length * 4),
    "05000100 01000000 04000200 0a000300 020a0500 00020000 " +
      "14000400 0200ca6c 0a630002 00000000 00000000 " + // struct sockaddr_in
      "20000500 0a00ca6d 00000000 fd990000 00000000 00000000 00000002 00000000", // sockaddr_in6
  );
});

Deno.test("MessageWriter grows beyond its first buffer and keeps what was written", () => {
  const writer = new MessageWriter();
  for (let number = 0; number < 1000; number++) writer.begin(16, 0).u32Attribute(1, number).end();
  const reader = readerOf(writer);
  for (let number = 0; number < 1000; number++) {
    assert.ok(reader.next());
    assert.equal(reader.sequence, number + 1);
    assert.equal(reader.readAttributes(0).u32Attribute(1), number);
  }
  assert.ok(!reader.next());
});

Deno.test("MessageReader reads each kind of attribute, nested ones too", () => {
  const writer = new MessageWriter();
  const mac = MacAddress.parse("02:0a:05:00:00:02"), address = IpAddress.parse("fc00::1");
  writer.begin(16, 0).u32(0)
    .u8Attribute(1, 200).be16Attribute(2, 8472).u32Attribute(3, 0xffff_ffff)
    .stringAttribute(4, "flannel.1").addressAttribute(5, mac).addressAttribute(6, address)
    .flagAttribute(7)
    .nested(8, () => writer.nested(1, () => writer.u32Attribute(3, 7))).end();
  const reader = readerOf(writer);
  assert.ok(reader.next());
  reader.readAttributes(4);
  assert.equal(reader.u8Attribute(1), 200);
  assert.equal(reader.be16Attribute(2), 8472);
  assert.equal(reader.u32Attribute(3), 0xffff_ffff);
  assert.equal(reader.stringAttribute(4), "flannel.1");
  assert.ok(MacAddress.fromBytes(reader.bytesAttribute(5)!).equals(mac));
  assert.ok(IpAddress.fromBytes(reader.bytesAttribute(6)!).equals(address));
  assert.ok(reader.has(7) && !reader.has(9));
  for (const type of [9, 63]) assert.equal(reader.u32Attribute(type), undefined);
  assert.ok(reader.enter(8) && reader.enter(1));
  assert.equal(reader.u32Attribute(3), 7);
  assert.ok(!reader.enter(1));
});

Deno.test("MessageReader forgets a message's attributes with the next one", () => {
  const writer = new MessageWriter();
  writer.begin(16, 0).u32Attribute(1, 7).end();
  writer.begin(16, 0).u32Attribute(2, 8).end();
  const reader = readerOf(writer);
  reader.next();
  reader.readAttributes(0);
  reader.next();
  reader.readAttributes(0);
  assert.equal(reader.u32Attribute(1), undefined);
  assert.equal(reader.u32Attribute(2), 8);
});

Deno.test("MessageReader stops at what is cut off or has an impossible length", () => {
  const writer = new MessageWriter();
  writer.begin(16, 0).u32Attribute(1, 7).u32Attribute(2, 8).end();
  writer.begin(17, 0).u32(0).end();
  assert.ok(readerOf(writer).next());
  const cut = new MessageReader(writer.bytes, writer.length - 4);
  assert.ok(cut.next());
  assert.ok(!cut.next(), "the second message is not whole");
  const view = new DataView(writer.bytes.buffer);
  view.setUint16(24, 3, true); // the second attribute's length: less than its own header
  const reader = readerOf(writer);
  reader.next();
  assert.equal(reader.readAttributes(0).u32Attribute(1), 7);
  assert.equal(reader.u32Attribute(2), undefined);
});
