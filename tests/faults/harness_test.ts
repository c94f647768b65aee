/** The fault suite's own instruments: what they have to see, and what they may not take for healed. */

import assert from "node:assert/strict";
import { rootTest } from "../support/root_test.ts";
import { sh, shIn } from "../support/sh.ts";
import { parseFlags } from "../../agent/flag_table.ts";
import { Cluster } from "./cluster.ts";
import type { Fault } from "./faults.ts";
import { takeInventory } from "./inventory.ts";
import { FLAGS } from "./main.ts";
import { measure } from "./measure.ts";
import { compare } from "./node_view.ts";
import { hold, undergo } from "./undergo.ts";

rootTest(
  "a fault that nobody mends, one that does not show and a dead agent are told",
  async (t) => {
    await using cluster = await Cluster.create({ backend: "host-gw", nodes: 2 });
    const [at, peer] = [cluster.members[0]!, cluster.members[1]!];
    const site = { cluster, at, peer };
    const routeDeleted: Fault = {
      name: "route deleted",
      strike: () => void shIn(at.node, `ip route del ${peer.subnet}`),
      shows: /^- route/,
    };
    await t.step("not mended", async () => {
      using _still = hold(at);
      const fault = { ...routeDeleted, shows: undefined };
      const outcome = await measure(site, () => undergo(fault, site, 300));
      assert.equal(outcome.healedMs, undefined);
      assert.match(outcome.error!, /not right within 300 ms:\n- node1: route 10\.5\./);
    });
    await cluster.asExpected(2_000);
    await t.step("right in the kernel, but no packet passes", async () => {
      const wire = (words: string) => sh(`ip -n ${cluster.lab.prefix}-net link set node1 ${words}`);
      const silence: Fault = { name: "x", strike: () => void wire("nomaster") };
      const outcome = await measure(site, () => undergo(silence, site, 300), 500);
      wire("master br0");
      assert.match(outcome.error!, /not within 500 ms: 20 pings answered in a row/);
    });
    await t.step("it does not show", async () => {
      const nothing: Fault = { ...routeDeleted, strike: () => {} };
      await assert.rejects(undergo(nothing, site, 300), /"route deleted" does not show/);
    });
    await t.step("what is lost is counted", async () => {
      const outcome = await measure(site, () => undergo(routeDeleted, site, 2_000));
      assert.equal(outcome.error, undefined);
      assert.ok(outcome.healedMs! > 0 && outcome.lost! > 0, JSON.stringify(outcome));
    });
    await t.step("the agent died of it", async () => {
      const pid = at.node.agentPid!;
      const deadly: Fault = {
        name: "x",
        strike: async () => {
          Deno.kill(pid, "SIGKILL");
          await at.node.stopAgent();
          await cluster.startAgent(at);
        },
      };
      await assert.rejects(undergo(deadly, site, 2_000), /the agent of node1 ended/);
    });
  },
);

rootTest("what is left over shows in the inventory", async () => {
  await using cluster = await Cluster.create({ backend: "vxlan", nodes: 2 });
  const [member] = cluster.members;
  const before = takeInventory(cluster);
  assert.ok(before.residentBytes.every((bytes) => bytes > 2 ** 24));
  assert.ok(before.threads.every((threads) => threads > 1));
  const { node } = member!;
  shIn(
    node,
    "ip link add left0 type bridge; ip rule add pref 77 lookup 77; ip route add 10.77.0.0/24 dev eth0 table 77; " +
      "ip nexthop add id 77 dev eth0; " +
      "ip neigh add 10.99.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent; ip addr add fd77::1/64 dev eth0",
  );
  Deno.writeTextFileSync(`${node.directory}/left`, "");
  cluster.lab.namespace("left")[Symbol.dispose]();
  const differences = compare(before.lines, takeInventory(cluster).lines).join("\n");
  for (
    const left of [
      /\+ namespace denim-.*-left$/m,
      /\+ node1: left0: </,
      /\+ node1: 77:\s+from all lookup 77/,
      /\+ node1: 10\.77\.0\.0\/24 dev eth0 table 77/,
      /\+ node1: nexthop 77 /,
      /\+ node1: neighbour 10\.99\.0\.77 /,
      /\+ node1: eth0 +inet6 fd77::1/,
      /\+ file .*\/node1\/left$/m,
    ]
  ) assert.match(differences, left);
});

Deno.test("deno task faults says which flag is wrong", () => {
  const parse = (args: readonly string[]) => {
    const flags = parseFlags("deno task faults", FLAGS, { args });
    assert.ok(typeof flags !== "string");
    return flags.values;
  };
  const usual = { count: 1000, seed: 1, backend: "vxlan", store: "sqlite", ipv6: false };
  assert.deepEqual(parse([]), usual);
  assert.deepEqual(
    parse(["--count", "7", "--seed=3", "--backend", "udp", "--store", "etcd", "--ipv6"]),
    { count: 7, seed: 3, backend: "udp", store: "etcd", ipv6: true },
  );
  for (
    const [args, complaint] of [
      [["--count", "0"], /--count: "0" is not a whole number/],
      [["--seed", "0x7"], /--seed: "0x7" is not a whole number/],
      [["--backend", "ipsec"], /--backend: "ipsec" is not one of vxlan, host-gw, udp, wireguard/],
      [["--store", "file"], /--store: "file" is not one of sqlite, etcd/],
      [["--cuont=7"], /--cuont: deno task faults has no such flag/],
    ] as const
  ) assert.throws(() => parse(args), complaint);
});
