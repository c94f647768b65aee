import assert from "node:assert/strict";
import { circles, type Edge, violations } from "./arrows.ts";

const allowed: readonly [from: string, to: string, specifier?: string][] = [
  ["core/mod.ts", "core/ip.ts"],
  ["core/net_conf.ts", "npm:zod@4.6.7", "zod"],
  ["core/linux/route.ts", "core/ip.ts"],
  ["core/linux/libc.ts", "node:process", "node:process"],
  ["core/stores/sqlite/mod.ts", "core/lease.ts"],
  ["core/stores/sqlite/mod.ts", "core/stores/json.ts"],
  ["core/stores/sqlite/a.ts", "core/stores/sqlite/b.ts"],
  ["core/stores/etcd/endpoint.ts", "npm:/etcd3@1.1.2", "etcd3"],
  ["core/stores/kubernetes/kubeconfig.ts", "npm:/yaml@2.9.1", "yaml"],
  ["backends/mod.ts", "backends/vxlan/mod.ts"],
  ["backends/vxlan/mod.ts", "backends/any_case.ts"],
  ["backends/vxlan/mod.ts", "core/linux/mod.ts", "@denim/core/linux"],
  ["plugin/mod.ts", "core/mod.ts", "@denim/core"],
  ["agent/main.ts", "plugin/mod.ts", "@denim/plugin"],
  ["agent/flags.ts", ".ci/std/cli/mod.ts", "@std/cli"],
  ["examples/own/main.ts", "agent/mod.ts", "@denim/agent"],
  ["tests/lab.ts", "agent/run_agent.ts"],
  ["core/ip_test.ts", "agent/run_agent.ts"],
  [".ci/check.ts", ".ci/arrows.ts"],
];

const refused: readonly [from: string, to: string, specifier: string, rule: RegExp][] = [
  ["agent/main.ts", "no module", "@denim/core/nothing", /no module @denim\/core\/nothing/],
  ["core/ip.ts", "core/linux/libc.ts", "./linux/libc.ts", /core may import nothing else of ours/],
  ["core/ip.ts", "node:fs", "node:fs", /zod alone/],
  ["core/ip.ts", "npm:zod-mini@1.0.0", "zod-mini", /zod alone/],
  [
    "core/linux/link.ts",
    "core/stores/sqlite/mod.ts",
    "../stores/sqlite/mod.ts",
    /may import core$/,
  ],
  ["core/stores/sqlite/mod.ts", "core/linux/libc.ts", "../../linux/libc.ts", /may import core$/],
  ["core/stores/sqlite/mod.ts", "core/stores/etcd/mod.ts", "../etcd/mod.ts", /imports another/],
  ["backends/udp/mod.ts", "backends/vxlan/mtu.ts", "../vxlan/mtu.ts", /imports another/],
  ["backends/udp/mod.ts", "backends/mod.ts", "../mod.ts", /imports them all/],
  ["backends/any_case.ts", "backends/udp/mod.ts", "./udp/mod.ts", /only backends\/mod.ts/],
  ["backends/udp/mod.ts", "core/stores/sqlite/mod.ts", "@denim/core/stores/sqlite", /may import/],
  ["backends/udp/mod.ts", "core/ip.ts", "../../core/ip.ts", /by its name, @denim\/core/],
  ["plugin/main.ts", "agent/log.ts", "@denim/agent", /plugin may import core, core\/linux/],
  ["plugin/main.ts", "backends/mod.ts", "@denim/backends", /may import/],
  ["agent/open_store.ts", "npm:/etcd3@1.1.2", "etcd3", /only core\/stores\/etcd loads etcd3/],
  ["core/stores/sqlite/mod.ts", "npm:/etcd3@1.1.2", "etcd3", /only core\/stores\/etcd/],
  [
    "core/stores/etcd/mod.ts",
    "npm:/yaml@2.9.1",
    "yaml",
    /only core\/stores\/kubernetes loads yaml/,
  ],
  ["agent/flags.ts", "npm:/yaml@2.9.1", "yaml", /only core\/stores\/kubernetes loads yaml/],
  ["agent/main.ts", "tests/lab.ts", "@denim/tests", /only tests import tests/],
  ["agent/main.ts", "core/ip_test.ts", "@denim/core/ip_test", /only tests import tests/],
  ["agent/main.ts", ".ci/check.ts", "../.ci/check.ts", /agent may import/],
  ["examples/own/main.ts", "agent/mod.ts", "../../agent/mod.ts", /by its name, @denim\/agent/],
  ["misc/a.ts", "core/ip.ts", "../core/ip.ts", /no room/],
  ["agent/main.ts", "misc/a.ts", "../misc/a.ts", /no room/],
];

for (const [from, to, specifier = "./x.ts"] of allowed) {
  Deno.test(`arrows: ${from} may import ${to}`, () => {
    assert.deepEqual(violations([{ from, to, specifier }]), []);
  });
}

for (const [from, to, specifier, rule] of refused) {
  Deno.test(`arrows: ${from} may not import ${to}`, () => {
    const [line, ...more] = violations([{ from, to, specifier }, { from, to, specifier }]);
    assert.match(line ?? "", rule);
    assert.ok(line!.startsWith(`${from} → ${to}: `));
    assert.deepEqual(more, []);
  });
}

const graphs: readonly [imports: string, found: readonly string[]][] = [
  ["a>b b>c a>c", []],
  ["a>a", []],
  ["b>a a>b", ["a → b → a"]],
  ["a>b b>c c>a c>d d>e", ["a → b → c → a"]],
  ["a>b b>c c>b", ["b → c → b"]],
  ["a>b b>a c>d d>c b>c", ["a → b → a", "c → d → c"]],
];

for (const [imports, found] of graphs) {
  Deno.test(`circles() in ${imports}`, () => {
    const edges = imports.split(" ").map((pair): Edge => {
      const [from, to] = pair.split(">");
      return { from: from!, to: to!, specifier: to! };
    });
    assert.deepEqual(circles(edges), found);
  });
}
