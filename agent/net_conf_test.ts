import { builtin } from "@denim/backends";
import assert from "node:assert/strict";
import { checkNetConf, findBackend } from "./net_conf.ts";

const conf = (type: string) => JSON.stringify({ Network: "10.5.0.0/16", Backend: { type } });

Deno.test("net-conf names a backend in any case, as flannel has it", () => {
  for (const [named, type] of [["vxlan", "vxlan"], ["VXLAN", "vxlan"], ["Host-gw", "host-gw"]]) {
    assert.equal(findBackend(checkNetConf(conf(named!), builtin), builtin).type, type);
  }
});

Deno.test("a backend that there is not is refused with those that there are", () => {
  assert.throws(() => checkNetConf(conf("ipip"), builtin), {
    name: "ConfigError",
    message:
      'net-conf: Backend.Type "ipip" is none of denim\'s; it has "vxlan", "host-gw", "udp", ' +
      '"alloc", "extension"',
  });
});
