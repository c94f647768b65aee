import { Cidr, IpAddress } from "@denim/core/ip";
import assert from "node:assert/strict";
import { AddressWords } from "./address_words.ts";
import { PeerLookup } from "./peer_lookup.ts";
import { PeerMapWriter } from "./peer_map.ts";

Deno.test("what was found last is found again, until the table or the address changes", () => {
  const peers = new PeerMapWriter(16);
  const lookup = new PeerLookup(peers);
  const put = (subnet: string, publicIp: string) =>
    peers.put({
      subnet: Cidr.parse(subnet),
      publicIp: IpAddress.parse(publicIp),
      partialChecksums: false,
    }, 0);
  const find = (text: string) => {
    const address = IpAddress.parse(text);
    const slot = lookup.find(address.family, new DataView(address.toBytes().buffer), 0);
    if (slot < 0) return undefined;
    const found = new AddressWords();
    peers.readPublic(slot, found);
    return `${found.toAddress()}`;
  };
  assert.equal(find("10.5.1.1"), undefined);
  put("10.5.1.0/24", "10.99.0.1");
  put("fc00:5::/64", "fd99::1");
  assert.equal(find("10.5.1.1"), "10.99.0.1");
  assert.equal(find("10.5.1.1"), "10.99.0.1");
  assert.equal(find("10.5.2.1"), undefined);
  assert.equal(find("fc00:5::1"), "fd99::1");
  put("10.5.1.0/24", "10.99.0.2");
  assert.equal(find("10.5.1.1"), "10.99.0.2");
  peers.remove(Cidr.parse("10.5.1.0/24"), 0);
  assert.equal(find("10.5.1.1"), undefined);
});
