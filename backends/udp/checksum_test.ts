import { PacketMemory } from "@denim/core/linux/packet-memory";
import assert from "node:assert/strict";
import { checksumOf } from "../../tests/support/packet.ts";
import { complement, fold, sumBytes, sumHeader } from "./checksum.ts";

Deno.test("sums agree with octets added one by one, from every alignment and of every length", () => {
  const memory = new PacketMemory(4096);
  let state = 1;
  for (let index = 0; index < memory.bytes.length; index++) {
    state = Math.imul(state, 1103515245) + 12345;
    memory.bytes[index] = state >>> 16;
  }
  for (let offset = 0; offset < 8; offset++) {
    for (const length of [...Array(40).keys(), 1399, 1400, 1401, 1402, 1403]) {
      const octets = [...memory.bytes.subarray(offset, offset + length)];
      const sum = sumBytes(memory, offset, length);
      // All ones is zero too (RFC 1071): 0 and 0xffff are the same sum.
      assert.equal((0xffff - checksumOf(octets)) % 0xffff, sum % 0xffff, `${offset}+${length}`);
      if (length % 4 === 0) {
        assert.equal(sumHeader(memory, offset, length) % 0xffff, sum % 0xffff);
      }
    }
  }
});

Deno.test("the largest packet of ones does not overflow", () => {
  const memory = new PacketMemory(65_536);
  memory.bytes.fill(0xff);
  assert.equal(sumBytes(memory, 0, 65_535), fold(0xffff * 32_767 + 0xff00));
});

Deno.test("UDP has no checksum of zero", () => {
  assert.equal(complement(0xffff, false), 0);
  assert.equal(complement(0xffff, true), 0xffff);
  assert.equal(complement(0x1_2345, true), 0xffff - 0x2346);
});
