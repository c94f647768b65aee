import { Cidr, IpAddress } from "@denim/core";
import type { UnderlayNews } from "@denim/core/linux";
import assert from "node:assert/strict";
import { FakeClock } from "../tests/support/fake_clock.ts";
import { TaskGroup } from "./task_group.ts";
import { Underlay } from "./underlay.ts";

const PEER = IpAddress.parse("10.99.0.2");

/** An underlay with the outer interface eth0 and one peer behind eth1, and the calls that it makes. */
function underlay(stopping: AbortController, routesMatter = true) {
  const clock = new FakeClock(), calls: string[] = [];
  const tasks = new TaskGroup(stopping.signal);
  const result = new Underlay({
    kernel: {
      hasDevice: () => true,
      macOf: () => undefined,
      routeTo: () => ({ device: "eth1", gateway: undefined }),
    },
    concernsOuter: ({ device }) => device === "eth0",
    routesMatter: () => routesMatter,
    podNetworks: () => [Cidr.parse("10.5.0.0/16"), Cidr.parse("fd05::/48")],
    onOuter: () => calls.push("outer"),
    onRoutes: () => calls.push("routes"),
    clock,
    runInBackground: tasks.add,
    signal: tasks.signal,
  });
  return { underlay: result, clock, calls, tasks };
}

const to = (text: string): UnderlayNews => ({ destination: Cidr.parse(text) });

for (
  const [what, news, expected] of [
    ["the outer interface", { device: "eth0" }, ["outer"]],
    ["a device that leads to a peer", { device: "eth1" }, ["routes"]],
    ["a pod's device", { device: "veth7" }, []],
    ["a route on the underlay", to("10.99.0.0/24"), ["routes"]],
    ["a pod's route", to("10.5.7.3/32"), []],
    ["a pod's route of IPv6", to("fd05::7/128"), []],
    ["a link-local route", to("fe80::/64"), []],
    ["anything", {}, ["routes"]],
  ] as const
) {
  Deno.test(`the underlay's news: ${what}`, async () => {
    const stopping = new AbortController();
    const { underlay: { kernel, onNews }, clock, calls } = underlay(stopping);
    assert.equal(kernel.routeTo(PEER)?.device, "eth1");
    onNews(news);
    await clock.advance(1_000);
    assert.deepEqual(calls, expected);
    stopping.abort();
  });
}

Deno.test("news of the underlay that comes in a burst is one call; later news another", async () => {
  const stopping = new AbortController();
  const { underlay: { kernel, onNews }, clock, calls } = underlay(stopping);
  kernel.routeTo(PEER);
  for (let at = 0; at < 5; at++) {
    onNews({ device: "eth0" });
    onNews({ device: "eth1" });
    await clock.advance(9);
  }
  assert.deepEqual(calls, []);
  await clock.advance(50);
  assert.deepEqual(calls, ["outer", "routes"]);
  onNews({ device: "eth0" });
  await clock.advance(50);
  assert.deepEqual(calls, ["outer", "routes", "outer"]);
  onNews({ device: "eth0" });
  stopping.abort();
  await clock.advance(50);
  assert.deepEqual(calls.length, 3, "nothing once the node stops");
});

Deno.test("routes cost nothing while no backend depends on them", async () => {
  const stopping = new AbortController();
  const { underlay: { onNews }, clock, calls } = underlay(stopping, false);
  onNews(to("10.99.0.0/24"));
  assert.equal(clock.sleepers, 0);
  await clock.advance(50);
  assert.deepEqual(calls, []);
  stopping.abort();
});
