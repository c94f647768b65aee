import assert from "node:assert/strict";
import { ConfObject } from "./conf_object.ts";
import { parseResolvConf, readDns } from "./host_local_conf.ts";

Deno.test("parseResolvConf reads what a resolver reads", () => {
  const text = "# mine\nnameserver 10.0.0.1\n ; no\nnameserver 10.0.0.2\ndomain a.b\n" +
    "search a.b c.d\noptions ndots:5 rotate\nnameserver\n";
  assert.deepEqual(parseResolvConf(text), {
    nameservers: ["10.0.0.1", "10.0.0.2"],
    domain: "a.b",
    search: ["a.b", "c.d"],
    options: ["ndots:5", "rotate"],
  });
  assert.equal(parseResolvConf("# nothing\n"), undefined);
});

Deno.test("readDns leaves out what is empty", () => {
  const read = (json: Record<string, unknown>) => readDns(new ConfObject(json, "dns"));
  assert.deepEqual(read({ search: ["a.b"], nameservers: [] }), { search: ["a.b"] });
  assert.equal(read({ nameservers: [], domain: "" }), undefined);
  assert.throws(() => read({ nameservers: "10.0.0.1" }), { code: 7 });
});
