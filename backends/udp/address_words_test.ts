import { IpAddress } from "@denim/core/ip";
import assert from "node:assert/strict";
import { AddressWords } from "./address_words.ts";

Deno.test("an address becomes words and an address again", () => {
  for (const text of ["10.5.1.9", "255.255.255.255", "fc00:5:0:1::9", "::", "0.0.0.0"]) {
    assert.equal(`${AddressWords.of(IpAddress.parse(text)).toAddress()}`, text);
  }
});

Deno.test("words are those of one address alone, in every word and in the family", () => {
  const texts = ["10.0.0.0", "a00::", "a00:0:1::", "a00:0:0:0:1::", "a00::1", "10.0.0.1"];
  for (const one of texts) {
    for (const other of texts) {
      const words = AddressWords.of(IpAddress.parse("fd99:1:2:3:4:5:6:7"));
      words.copy(AddressWords.of(IpAddress.parse(one)));
      const address = IpAddress.parse(other);
      const bytes = new Uint8Array(20);
      bytes.set(address.toBytes(), 3);
      assert.equal(words.isAt(address.family, new DataView(bytes.buffer), 3), one === other);
    }
  }
});
