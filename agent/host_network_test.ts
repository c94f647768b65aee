import { Cidr, type Family, IpAddress, nexthopId, parseNetworkConfig } from "@denim/core";
import { NetlinkSocket } from "@denim/core/linux";
import assert from "node:assert/strict";
import { rootTest } from "../tests/support/root_test.ts";
import { ScratchNamespace } from "../tests/support/scratch_namespace.ts";
import {
  HostNetworkFollower,
  readHostNetwork,
  routesToHosts,
  serverAddresses,
} from "./host_network.ts";

const FAMILIES: readonly Family[] = [4, 6];
const OUTER = {
  name: "eth0",
  mtuBytes: 1500,
  addresses: new Map<Family, IpAddress>([
    [4, IpAddress.parse("10.99.0.1")],
    [6, IpAddress.parse("fd99::1")],
  ]),
  publicIps: new Map<Family, IpAddress>([
    [4, IpAddress.parse("203.0.113.7")],
    [6, IpAddress.parse("fd99::1")],
  ]),
};

const said = (hosts: readonly { address: IpAddress; whose: string }[]) =>
  hosts.map(({ address, whose }) => `${address} ${whose}`).toSorted();

rootTest("the hosts' network: own addresses, routers also of several ways, and the links", () => {
  using namespace = new ScratchNamespace();
  namespace.addOuterDevice({ ipv6: true });
  for (
    const command of [
      "addr add 10.99.0.77/32 dev eth0",
      "addr add 192.0.2.1/24 dev eth1",
      // By two routers, one of them by another device; and one for a network of its own.
      "route add default nexthop via 10.99.0.254 dev eth0 nexthop via 192.0.2.254 dev eth1",
      "route add 198.51.100.0/24 via 10.99.0.253",
      "route add 10.5.9.0/24 via 10.99.0.9 proto 155",
      "-6 route add default via fd99::ff",
      "-6 route add fd42::/64 via fe80::1 dev eth0",
    ]
  ) namespace.ip(command);
  namespace.run(() => {
    using socket = new NetlinkSocket();
    const { hosts, links } = readHostNetwork(socket, OUTER, FAMILIES);
    assert.deepEqual(said(hosts), [
      "10.99.0.1 this node",
      "10.99.0.253 this node's router",
      "10.99.0.254 this node's router",
      "10.99.0.77 this node",
      "192.0.2.254 this node's router",
      "203.0.113.7 this node",
      "fd99::1 this node",
      "fd99::ff this node's router",
    ]);
    assert.deepEqual(links.map(String).toSorted(), ["10.99.0.0/24", "10.99.0.77/32", "fd99::/64"]);
  });
});

rootTest(
  "the hosts' network is followed, and what overlapped it once does so for good",
  async () => {
    using namespace = new ScratchNamespace();
    namespace.addOuterDevice();
    using socket = namespace.run(() => new NetlinkSocket());
    const follower = await HostNetworkFollower.open({
      socket,
      outer: { current: OUTER },
      store: { servers: ["10.6.0.9"] },
      families: [4],
    });
    const config = (Network: string) => parseNetworkConfig(JSON.stringify({ Network }));
    for (
      const [network, overlaps] of [
        ["10.5.0.0/16", false],
        ["10.6.0.0/16", true],
        ["10.99.0.128/25", true],
        ["10.0.0.0/8", true],
        ["203.0.113.0/24", true],
      ] as const
    ) assert.equal(follower.overlaps(config(network)), overlaps, network);
    namespace.ip("addr add 10.5.0.1/24 dev eth0");
    await follower.refresh();
    assert.ok(follower.overlaps(config("10.5.0.0/16")));
    namespace.ip("route add 10.5.0.128/25 via 10.99.0.254");
    assert.equal(`${follower.wayTo(IpAddress.parse("10.5.0.200"))?.gateway}`, "10.99.0.254");
    assert.equal(follower.wayTo(IpAddress.parse("10.5.0.9"))!.gateway, undefined);
    assert.equal(follower.wayTo(IpAddress.parse("10.7.0.9")), undefined);
    namespace.ip("addr del 10.5.0.1/24 dev eth0");
    await follower.refresh();
    assert.ok(follower.overlaps(config("10.5.0.0/16")));
    assert.ok(follower.addOverlap([Cidr.parse("10.8.0.0/16")]));
    assert.ok(!follower.addOverlap([Cidr.parse("10.8.0.0/16")]));
  },
);

Deno.test("hosts in this node's subnet have routes of their own by the outer device", () => {
  const host = (text: string) => ({ address: IpAddress.parse(text), whose: "a host" });
  const gateway = IpAddress.parse("10.99.0.254");
  const ways = new Map([
    ["10.5.1.7", { gateway: undefined }],
    ["10.5.1.8", { gateway }],
    ["fd05::7", { gateway: undefined }],
    ["10.99.0.1", { gateway: undefined }],
  ]);
  const hosts = ["10.5.1.7", "10.5.1.8", "10.5.1.7", "10.5.1.9", "fd05::7", "10.99.0.1"].map(host);
  const routed = Cidr.parse("10.5.1.8/32");
  assert.deepEqual(routesToHosts(hosts, OUTER, (address) => ways.get(`${address}`)), [
    {
      kind: "route",
      destination: Cidr.parse("10.5.1.7/32"),
      device: "eth0",
      source: OUTER.addresses.get(4),
    },
    { kind: "nexthop", id: nexthopId(routed), device: "eth0", via: gateway },
    { kind: "route", destination: routed, nexthopId: nexthopId(routed) },
    {
      kind: "route",
      destination: Cidr.parse("fd05::7/128"),
      device: "eth0",
      source: OUTER.addresses.get(6),
    },
  ]);
});

Deno.test("the store's servers, by address and by name; one that leads nowhere has none", async () => {
  const found = await serverAddresses(["10.6.0.9", "[fd06::9]", "10.6.0.9", "nowhere.invalid"]);
  assert.deepEqual(said(found), ["10.6.0.9 the store", "fd06::9 the store"]);
  const [local] = await serverAddresses(["localhost"]);
  assert.match(`${local!.address}`, /^(127\.0\.0\.1|::1)$/);
});
