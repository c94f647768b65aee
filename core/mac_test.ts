import assert from "node:assert/strict";
import { MacAddress } from "./mac.ts";

Deno.test("MAC: text, octets and back", () => {
  for (const text of ["02:0a:05:26:00:01", "02:0A:05:26:00:01", "02-0a-05-26-00-01"]) {
    const mac = MacAddress.parse(text);
    assert.equal(`${mac}`, "02:0a:05:26:00:01");
    assert.equal(JSON.stringify({ VtepMAC: mac }), '{"VtepMAC":"02:0a:05:26:00:01"}');
    assert.deepEqual([...mac.toBytes()], [0x02, 0x0a, 0x05, 0x26, 0x00, 0x01]);
    assert.ok(MacAddress.fromBytes(mac.toBytes()).equals(mac));
  }
});

Deno.test("MAC: what is none is refused, by name", () => {
  for (
    const text of [
      "",
      "02:0a:05:26:00",
      "02:0a:05:26:00:01:02",
      "2:a:5:26:0:1",
      "0g:0a:05:26:00:01",
    ]
  ) {
    assert.throws(() => MacAddress.parse(text), {
      name: "TypeError",
      message: `${JSON.stringify(text)} is not an Ethernet address`,
    });
  }
  assert.throws(() => MacAddress.fromBytes(new Uint8Array(8)), RangeError);
});

Deno.test("MAC: a random one is unicast, locally administered, and another each time", () => {
  const macs = Array.from({ length: 64 }, () => MacAddress.random());
  for (const mac of macs) assert.equal(mac.toBytes()[0]! & 0b11, 0b10, `${mac}`);
  assert.equal(new Set(macs.map(String)).size, macs.length);
});
