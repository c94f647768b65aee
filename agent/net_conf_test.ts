import { builtin } from "@denim/backends";
import assert from "node:assert/strict";
import { checkNetConf, findBackend } from "./net_conf.ts";

const conf = (type: string) => JSON.stringify({ Network: "10.5.0.0/16", Backend: { type } });

Deno.test("net-conf names a backend in any case, as in flannel", () => {
  for (const [named, type] of [["vxlan", "vxlan"], ["VXLAN", "vxlan"], ["Host-gw", "host-gw"]]) {
    assert.equal(
      findBackend(checkNetConf(conf(named!), { backends: builtin }), builtin).type,
      type,
    );
  }
});

Deno.test("an unknown backend is refused, and the known ones are named", () => {
  assert.throws(() => checkNetConf(conf("ipsec"), { backends: builtin }), {
    name: "ConfigError",
    message: 'net-conf: denim has no Backend.Type "ipsec"; it has "vxlan", "host-gw", ' +
      '"wireguard", "ipip", "udp", "alloc", "extension"',
  });
});
