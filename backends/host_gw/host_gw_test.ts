import {
  type Family,
  IpAddress,
  type KernelReader,
  nexthopId,
  type NodeContext,
  parseLease,
} from "@denim/core";
import assert from "node:assert/strict";
import { nodeContext } from "../../tests/support/node_context.ts";
import { hostGw } from "./mod.ts";

const LEASE = parseLease(
  "10.5.2.0-24&fc00:5:0:2::-64",
  '{"PublicIP":"10.99.0.2","PublicIPv6":"fd99::2","BackendType":"host-gw"}',
  undefined,
);
const PEER = { key: LEASE.key, halves: LEASE.halves.map((half) => ({ ...half, data: undefined })) };

type Way = ReturnType<KernelReader["routeTo"]>;
const ON_LINK = { device: "eth0", gateway: undefined };

/** A node and the ways that its kernel knows, by family; `ways` may be changed. */
function context(outer: Partial<NodeContext["outer"]> = {}) {
  const ways: Record<Family, Way> = { 4: ON_LINK, 6: ON_LINK };
  const node = nodeContext({
    netConf: { EnableIPv6: true, IPv6Network: "fc00:5::/48" },
    outer,
    kernel: { routeTo: ({ family }) => ways[family] },
  });
  return { node, ways, log: node.log };
}

Deno.test("a peer on the link has a route by its public IP in each family", async () => {
  const { node } = context();
  await using session = await hostGw.open(node, {});
  assert.deepEqual(session.nodeState(undefined), []);
  assert.deepEqual([session.mtuBytes, session.publishes.size], [1500, 0]);
  assert.deepEqual(
    session.peerState(PEER),
    PEER.halves.flatMap(({ subnet, publicIp }) => {
      const id = nexthopId(subnet);
      return [
        { kind: "nexthop", id, device: "eth0", via: publicIp },
        { kind: "route", destination: subnet, nexthopId: id },
      ];
    }),
  );
});

Deno.test("a peer that is not on the link is refused, with one word for each change", async () => {
  const { node, ways, log } = context();
  await using session = await hostGw.open(node, {});
  const router = IpAddress.parse("10.99.0.254");
  const ways4: readonly [Way, RegExp][] = [
    [
      { device: "eth0", gateway: router },
      /10\.99\.0\.2 is reached through the router 10\.99\.0\.254;/,
    ],
    [
      { device: "tun0", gateway: undefined },
      /10\.99\.0\.2 is reached by tun0; host-gw needs it on the/,
    ],
    [undefined, /10\.99\.0\.2 has no route;/],
  ];
  for (const [way, complaint] of ways4) {
    ways[4] = way;
    for (let asked = 0; asked < 3; asked++) {
      assert.deepEqual(session.peerState(PEER).length, 2, "the other family works");
    }
    const { level, message } = log.records.pop()!;
    const line = `${level} ${message}`;
    assert.match(line, /^error peer 10\.5\.2\.0-24&fc00:5:0:2::-64 is left out: /);
    assert.match(line, complaint);
    assert.deepEqual(log.lines, []);
  }
  ways[4] = ON_LINK;
  assert.equal(session.peerState(PEER).length, 4);
  assert.deepEqual(log.lines, [`info peer ${PEER.key} is on the link now`]);
});

Deno.test("a node behind NAT is refused", async () => {
  const publicIps = new Map<Family, IpAddress>([[4, IpAddress.parse("203.0.113.7")]]);
  await assert.rejects(hostGw.open(context({ publicIps }).node, {}), {
    name: "ConfigError",
    message: /public IP 203\.0\.113\.7 is not the address of eth0, 10\.99\.0\.1: .* NAT/,
  });
});
