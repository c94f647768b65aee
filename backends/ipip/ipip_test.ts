import {
  ConfigError,
  IpAddress,
  type KernelReader,
  nexthopId,
  parseLease,
  type Peer,
} from "@denim/core";
import assert from "node:assert/strict";
import { nodeContext } from "../../tests/support/node_context.ts";
import { ipip } from "./mod.ts";

const LEASE = parseLease("10.5.1.0-24", '{"PublicIP":"10.99.0.1","BackendType":"ipip"}');
const PEER: Peer<unknown> = {
  key: "10.5.2.0-24",
  halves: parseLease("10.5.2.0-24", '{"PublicIP":"10.99.0.2","BackendType":"ipip"}').halves
    .map(({ subnet, publicIp }) => ({ subnet, publicIp, data: undefined })),
};
const { subnet } = PEER.halves[0]!;
const ID = nexthopId(subnet);

function open(
  options: Record<string, unknown> = {},
  route?: ReturnType<KernelReader["routeTo"]>,
  netConf: Record<string, unknown> = {},
) {
  const node = nodeContext({ netConf, kernel: { routeTo: () => route } });
  return ipip.open(node, ipip.options.parse(options));
}

Deno.test("ipip: one device from the node's address, and with a lease its address", async () => {
  await using session = await open();
  const local = IpAddress.parse("10.99.0.1");
  const link = {
    kind: "link",
    name: "flannel.ipip",
    mtuBytes: 1480,
    info: { type: "ipip", local },
  };
  assert.deepEqual(session.nodeState(undefined), [link]);
  const address = IpAddress.parse("10.5.1.0");
  assert.deepEqual(session.nodeState(LEASE), [
    link,
    { kind: "address", device: "flannel.ipip", address, prefixLength: 32 },
  ]);
  assert.equal(session.mtuBytes, 1480);
  assert.equal(session.publishes.size, 0);
});

Deno.test("ipip: a peer's subnet goes by its own address, with DirectRouting on the link without a tunnel", async () => {
  const via = IpAddress.parse("10.99.0.2");
  const onLink = { device: "eth0", gateway: undefined };
  const behind = { device: "eth0", gateway: IpAddress.parse("10.99.0.254") };
  for (
    const [DirectRouting, route, device] of [
      [false, onLink, "flannel.ipip"],
      [true, onLink, "eth0"],
      [true, behind, "flannel.ipip"],
      [true, undefined, "flannel.ipip"],
    ] as const
  ) {
    await using session = await open({ DirectRouting }, route);
    assert.equal(session.followsUnderlay, DirectRouting);
    assert.deepEqual(session.peerState(PEER), [
      { kind: "nexthop", id: ID, device, via },
      { kind: "route", destination: subnet, nexthopId: ID },
    ]);
  }
});

Deno.test("ipip: a cluster with IPv6 is told that it can't have it", async () => {
  const dual = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };
  await assert.rejects(
    open({}, undefined, dual),
    (error: unknown) =>
      error instanceof ConfigError && /^ipip: it carries IPv4 alone/.test(error.message),
  );
});
