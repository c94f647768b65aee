import assert from "node:assert/strict";
import { parseWireguardKey, WireguardSecret } from "./wireguard_key.ts";

const TEXT = "YAnz5TF+lXXJte14tjiYUaHpqzEYZGvKATRS13nV+Vo=";

Deno.test("a key is 32 octets in base64, and nothing else is", () => {
  assert.equal(parseWireguardKey(TEXT)!.toBase64(), TEXT);
  for (const text of ["", "AAAA", `${TEXT}AAAA`, "not base64!", TEXT.slice(0, 40)]) {
    assert.equal(parseWireguardKey(text), undefined, text);
  }
});

Deno.test("a secret shows itself to no log, no JSON and no error", () => {
  const secret = new WireguardSecret(parseWireguardKey(TEXT)!);
  for (const text of [`${secret}`, JSON.stringify({ secret }), Deno.inspect({ secret })]) {
    assert.ok(!text.includes("YAnz") && !text.includes("96, 9"), text);
  }
  assert.equal(secret.reveal().toBase64(), TEXT);
  assert.throws(() => new WireguardSecret(new Uint8Array([96, 9])), /has 32 octets, not 2/);
});

Deno.test("secrets are equal by their octets; no secret equals none alone", () => {
  const a = new WireguardSecret(parseWireguardKey(TEXT)!);
  assert.ok(WireguardSecret.equal(a, new WireguardSecret(a.reveal())));
  assert.ok(!WireguardSecret.equal(a, new WireguardSecret(new Uint8Array(32))));
  assert.ok(!WireguardSecret.equal(a, undefined));
  assert.ok(WireguardSecret.equal(undefined, undefined));
});
