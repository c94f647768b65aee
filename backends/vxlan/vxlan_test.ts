import {
  ConfigError,
  IpAddress,
  type KernelReader,
  type KernelState,
  type Lease,
  MacAddress,
  nexthopId,
  parseLease,
  type Peer,
} from "@denim/core";
import assert from "node:assert/strict";
import { nodeContext, type TestNodeContext } from "../../tests/support/node_context.ts";
import { vxlan, type VxlanPeerData } from "./mod.ts";

const MAC = "02:0a:05:00:00:01";

interface VxlanWorld {
  readonly netConf?: Record<string, unknown>;
  readonly mtuBytes?: number;
  readonly device?: string;
  readonly held?: Lease;
  readonly route?: ReturnType<KernelReader["routeTo"]>;
}

function context(world: VxlanWorld): TestNodeContext {
  const { netConf = {}, mtuBytes = 1500, device, held, route } = world;
  return nodeContext({
    netConf,
    outer: { mtuBytes },
    held,
    kernel: {
      hasDevice: () => device !== undefined,
      macOf: () => device === undefined ? undefined : MacAddress.parse(device),
      routeTo: () => route,
    },
  });
}

async function open(world: VxlanWorld, options: Record<string, unknown> = {}) {
  return await vxlan.open(context({ device: MAC, ...world }), vxlan.options.parse(options));
}

const LEASE = parseLease(
  "10.5.1.0-24",
  `{"PublicIP":"10.99.0.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${MAC}"}}`,
  undefined,
);

const DUAL = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };
const DUAL_LEASE = parseLease(
  "10.5.2.0-24&fc00:5:0:2::-64",
  `{"PublicIP":"10.99.0.2","PublicIPv6":"fd99::2","BackendType":"vxlan",` +
    `"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:04:02"},` +
    `"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:06:02"}}`,
  undefined,
);

function asPeer(lease: Lease): Peer<VxlanPeerData> {
  return {
    key: lease.key,
    halves: lease.halves.map(({ backendData, ...half }) => ({
      ...half,
      data: vxlan.peerData.parse(backendData),
    })),
  };
}

/** Kernel state as lines, for a table. */
function lines(state: KernelState): string[] {
  return state.map((object) => {
    switch (object.kind) {
      case "link": {
        if (object.mac === undefined) return `${object.info.type} ${object.name}`;
        const { vni, port, local, outerDevice } = object.info;
        return `link ${object.name} mtu ${object.mtuBytes} ${object.mac} vni ${vni} port ${port} ` +
          `local ${local} dev ${outerDevice}`;
      }
      case "address":
        return `address ${object.device} ${object.address}/${object.prefixLength}`;
      case "fdb":
        return `fdb ${object.device} ${object.mac} dst ${object.remote}`;
      case "neighbour":
        return `neighbour ${object.device} ${object.address} ${object.mac}`;
      case "nexthop":
        return `nexthop ${object.id} ${object.device} via ${object.via}`;
      case "route":
        return `route ${object.destination} ` +
          ("nexthopId" in object ? `nexthop ${object.nexthopId}` : "without a nexthop");
      default:
        return object.kind;
    }
  });
}

Deno.test("node: a device of flannel's, and with a lease its address", async () => {
  await using session = await open({});
  const link = `link flannel.1 mtu 1450 ${MAC} vni 1 port 8472 local 10.99.0.1 dev eth0`;
  assert.deepEqual(lines(session.nodeState(undefined)), [link]);
  assert.deepEqual(lines(session.nodeState(LEASE)), [link, "address flannel.1 10.5.1.0/32"]);
  assert.equal(session.mtuBytes, 1450);
});

Deno.test("node: both families have a device, each with its own overhead", async () => {
  await using session = await open({ netConf: DUAL }, { VNI: 9, Port: 4789 });
  assert.deepEqual(lines(session.nodeState(DUAL_LEASE)), [
    `link flannel.9 mtu 1450 ${MAC} vni 9 port 4789 local 10.99.0.1 dev eth0`,
    "address flannel.9 10.5.2.0/32",
    `link flannel-v6.9 mtu 1430 ${MAC} vni 9 port 4789 local fd99::1 dev eth0`,
    "address flannel-v6.9 fc00:5:0:2::/128",
  ]);
  assert.equal(session.mtuBytes, 1430, "a pod's packet fits either way");
});

Deno.test("peer: a neighbour, an FDB entry and a nexthop route in each family", async () => {
  await using session = await open({ netConf: DUAL });
  const [id4, id6] = DUAL_LEASE.halves.map(({ subnet }) => nexthopId(subnet));
  assert.deepEqual(lines(session.peerState(asPeer(DUAL_LEASE))), [
    "fdb flannel.1 02:00:00:00:04:02 dst 10.99.0.2",
    "neighbour flannel.1 10.5.2.0 02:00:00:00:04:02",
    `nexthop ${id4} flannel.1 via 10.5.2.0`,
    `route 10.5.2.0/24 nexthop ${id4}`,
    "fdb flannel-v6.1 02:00:00:00:06:02 dst fd99::2",
    "neighbour flannel-v6.1 fc00:5:0:2:: 02:00:00:00:06:02",
    `nexthop ${id6} flannel-v6.1 via fc00:5:0:2::`,
    `route fc00:5:0:2::/64 nexthop ${id6}`,
  ]);
});

Deno.test("peer: DirectRouting goes by the peer's address if that is on the link", async (t) => {
  const id = nexthopId(LEASE.halves[0]!.subnet);
  const direct = [`nexthop ${id} eth0 via 10.99.0.1`, `route 10.5.1.0/24 nexthop ${id}`];
  const cases = [
    { name: "on the link", route: { device: "eth0", gateway: undefined }, direct: true },
    {
      name: "behind a router",
      route: { device: "eth0", gateway: IpAddress.parse("10.99.0.254") },
      direct: false,
    },
    { name: "no route", route: undefined, direct: false },
  ];
  for (const { name, route, direct: expected } of cases) {
    await t.step(name, async () => {
      await using session = await open({ route }, { directRouting: true });
      const found = lines(session.peerState(asPeer(LEASE)));
      if (expected) assert.deepEqual(found, direct);
      else assert.match(found[0]!, /^fdb flannel\.1/);
    });
  }
});

Deno.test("the VTEP's MAC: the device's, else the last lease's, else a new one", async () => {
  const macOf = async (world: VxlanWorld) => {
    await using session = await vxlan.open(context(world), vxlan.options.parse({}));
    return `${session.publishes.get(4)!.VtepMAC}`;
  };
  assert.equal(await macOf({ device: "02:00:00:00:00:0d", held: LEASE }), "02:00:00:00:00:0d");
  assert.equal(await macOf({ held: LEASE }), MAC);
  assert.notEqual(await macOf({}), await macOf({}));
});

Deno.test("a VNI of any length has a device whose name the kernel takes", async (t) => {
  const cases: readonly (readonly [VNI: number, ipv4: string, ipv6: string])[] = [
    [1, "flannel.1", "flannel-v6.1"],
    [9_999, "flannel.9999", "flannel-v6.9999"],
    [10_000, "flannel.10000", "fl-v6.10000"],
    [9_999_999, "flannel.9999999", "fl-v6.9999999"],
    [10_000_000, "fl.10000000", "fl-v6.10000000"],
    [16_777_215, "fl.16777215", "fl-v6.16777215"],
  ];
  for (const [VNI, ...names] of cases) {
    await t.step(`${VNI}`, async () => {
      await using session = await open({ netConf: DUAL }, { VNI });
      const links = session.nodeState(undefined);
      assert.deepEqual(links.map((link) => link.kind === "link" && link.name), names);
      assert.ok(names.every((name) => name.length <= 15));
    });
  }
});

Deno.test("a lease without a VNI is followed, its keys in any case, but none without a MAC", () => {
  for (const data of [{}, { VNI: null }, { VNI: "one" }, { vni: 1 }]) {
    const { VtepMAC } = vxlan.peerData.parse({ ...data, vtepmac: "22:6d:5f:d3:2a:83" });
    assert.equal(`${VtepMAC}`, "22:6d:5f:d3:2a:83", JSON.stringify(data));
  }
  for (
    const data of [
      undefined,
      null,
      {},
      { VNI: 1 },
      { VtepMAC: "nonsense" },
      { VtepMAC: null },
      { VNI: 1, VtepMAC: "00:00:00:00:00:00" },
      { VNI: 1, VtepMAC: "ff:ff:ff:ff:ff:ff" },
      { VNI: 1, VtepMAC: "01:00:5e:00:00:01" },
    ]
  ) {
    assert.ok(!vxlan.peerData.safeParse(data).success, JSON.stringify(data));
  }
});

Deno.test("what is published is read again as flannel writes it", async () => {
  await using session = await open({});
  const json = JSON.stringify(session.publishes.get(4));
  assert.equal(json, `{"VNI":1,"VtepMAC":"${MAC}"}`);
  assert.equal(vxlan.peerData.safeParse({ VNI: 1, VtepMAC: "nonsense" }).success, false);
});

Deno.test("an MTU too small for a family is refused, naming both ends", async () => {
  await assert.rejects(open({ mtuBytes: 100 }), (error) => {
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /outer MTU of 100 leaves 50 bytes .* IPv4 .* fewer than 68/);
    return true;
  });
  await assert.rejects(open({ mtuBytes: 1300, netConf: DUAL }), /IPv6 .* fewer than 1280/);
});

Deno.test("Backend.MTU is that of the outer network, but no more than the device carries", async () => {
  const cases = [[0, 1450], [1400, 1350], [1500, 1450], [1501, 1450], [9000, 1450]] as const;
  for (const [MTU, expected] of cases) {
    const node = context({ device: MAC, netConf: DUAL });
    await using session = await vxlan.open(node, vxlan.options.parse({ MTU }));
    const mtus = session.nodeState(undefined).map((link) => link.kind === "link" && link.mtuBytes);
    assert.deepEqual(mtus, [expected, expected - 20]);
    assert.deepEqual(
      node.log.lines,
      MTU > 1500
        ? [
          `warn net-conf's Backend.MTU is ${MTU}, but device eth0 carries packets of at most 1500 bytes; this ` +
          "node uses 1500",
        ]
        : [],
    );
  }
});

Deno.test("a peer that has the node's own MAC is a conflict", async () => {
  await using session = await open({ device: MAC });
  assert.equal(session.conflict!(asPeer(LEASE)), `VTEP MAC ${MAC}`);
  await using other = await open({ device: "02:00:00:00:00:0d" });
  assert.equal(other.conflict!(asPeer(LEASE)), undefined);
});
