import {
  type BackendSession,
  Cidr,
  ConfigError,
  IpAddress,
  type KernelState,
  NO_METRICS,
  type NodeContext,
  parseLease,
  RuntimeError,
} from "@denim/core";
import assert from "node:assert/strict";
import { nodeContext, type TestNodeContext } from "../../tests/support/node_context.ts";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { rootTest } from "../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../tests/support/scratch_namespace.ts";
import { eventually } from "../../tests/support/wait.ts";
import { WAYS } from "./counters.ts";
import { DataPath } from "./data_path.ts";
import { udp, type UdpPeerData } from "./mod.ts";

const DUAL = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };

function context(netConf: Record<string, unknown> = {}, mtuBytes = 1500): TestNodeContext {
  return nodeContext({ netConf, outer: { mtuBytes }, kernel: { hasDevice: () => true } });
}

/** Opens the backend in a namespace. */
function openIn(
  namespace: ScratchNamespace,
  node: NodeContext,
  options: Record<string, unknown> = {},
): Promise<BackendSession<UdpPeerData>> {
  const opening = Promise.withResolvers<BackendSession<UdpPeerData>>();
  namespace.run(() =>
    void udp.open(node, udp.options.parse(options)).then(opening.resolve, opening.reject)
  );
  return opening.promise;
}

/** A namespace with a node's addresses, and, if one is given, a wire to another. */
function host(number: number, other?: ScratchNamespace): ScratchNamespace {
  const namespace = new ScratchNamespace();
  namespace.ip("link set lo up");
  namespace.ip(`link add eth0 type veth peer name ${other ? `eth0 netns ${other.name}` : "eth1"}`);
  const ends = other
    ? [[namespace, number], [other, number + 1]] as const
    : [[namespace, number]] as const;
  for (const [end, last] of ends) {
    end.ip(`addr add 10.99.0.${last}/24 dev eth0`);
    end.ip(`addr add fd99::${last}/64 dev eth0 nodad`);
    end.ip("link set eth0 up");
  }
  return namespace;
}

/** Kernel state as lines, for a table. */
function lines(state: KernelState): string[] {
  return state.map((object) => {
    if (object.kind === "link") return `${object.info.type} ${object.name} mtu ${object.mtuBytes}`;
    if (object.kind === "address") {
      return `address ${object.device} ${object.address}/${object.prefixLength}`;
    }
    if (object.kind === "route" && "device" in object) {
      return `route ${object.destination} dev ${object.device} src ${object.source}`;
    }
    return object.kind;
  });
}

const LEASE = parseLease(
  "10.5.1.0-24&fc00:5:0:1::-64",
  '{"PublicIP":"10.99.0.1","PublicIPv6":"fd99::1"}',
  undefined,
);

rootTest("udp: one device, its addresses, and a route for each whole network", async () => {
  using namespace = host(1);
  const cases = [
    { netConf: {}, mtuBytes: 1472, families: [4] },
    { netConf: DUAL, mtuBytes: 1452, families: [4, 6] },
    { netConf: { ...DUAL, EnableIPv4: false }, mtuBytes: 1452, families: [6] },
  ];
  for (const { netConf, mtuBytes, families } of cases) {
    await using session = await openIn(namespace, context(netConf), { Type: "udp" });
    const link = `tun flannel0 mtu ${mtuBytes}`;
    assert.equal(session.mtuBytes, mtuBytes);
    assert.deepEqual(lines(session.nodeState(undefined)), [link]);
    const halves = [
      ["address flannel0 10.5.1.0/32", "route 10.5.0.0/16 dev flannel0 src 10.5.1.0"],
      ["address flannel0 fc00:5:0:1::/128", "route fc00:5::/48 dev flannel0 src fc00:5:0:1::"],
    ].filter((_, index) => families.includes(index === 0 ? 4 : 6));
    assert.deepEqual(lines(session.nodeState(LEASE)), [link, ...halves.flat()]);
    assert.deepEqual([...session.publishes.keys()], families);
  }
});

Deno.test("udp: options, in any case and with their defaults", () => {
  const defaults = { Port: 0, MTU: 0, Offloads: true, PartialChecksums: true };
  assert.deepEqual(udp.options.parse({ Type: "udp" }), defaults);
  assert.deepEqual(udp.options.parse({ port: 9, partialchecksums: false }), {
    ...defaults,
    Port: 9,
    PartialChecksums: false,
  });
  for (const bad of [{ Port: 65_536 }, { Port: "x" }, { MTU: -1 }, { Offloads: 1 }]) {
    assert.equal(udp.options.safeParse(bad).success, false, JSON.stringify(bad));
  }
});

Deno.test("udp: whatever a lease says, its node is a peer; what it does not say it can't do", () => {
  const able = (data: unknown) => udp.peerData.parse(data).denim.partialChecksums;
  for (
    const data of [undefined, null, {}, "x", { VNI: 1 }, { denim: 1 }, {
      denim: { partialChecksums: "x" },
    }]
  ) {
    assert.equal(able(data), false, JSON.stringify(data));
  }
  assert.equal(able({ denim: { partialChecksums: true } }), true);
  assert.equal(able({ denim: { partialChecksums: true, more: 1 } }), true);
});

rootTest(
  "udp: Backend.MTU is that of the outer network, but no more than the device carries",
  async () => {
    using namespace = host(1);
    for (const [MTU, expected] of [[0, 1452], [1400, 1352], [9000, 1452]] as const) {
      const node = context(DUAL);
      await using session = await openIn(namespace, node, { MTU });
      assert.equal(session.mtuBytes, expected);
      assert.equal(node.log.of("mtu-lowered").length, MTU > 1500 ? 1 : 0);
    }
  },
);

rootTest("udp: what it publishes is read again, and is what was asked for", async () => {
  using namespace = host(1);
  for (
    const [options, expected] of [[{}, true], [{ PartialChecksums: false }, false], [{
      Offloads: false,
    }, false]] as const
  ) {
    await using session = await openIn(namespace, context(), options);
    const published = JSON.parse(JSON.stringify(session.publishes.get(4)));
    assert.equal(udp.peerData.parse(published).denim.partialChecksums, expected);
  }
});

rootTest("udp: what stands in the way is named", async () => {
  using namespace = host(1);
  const open = (mtuBytes?: number) => openIn(namespace, context({}, mtuBytes));
  await assert.rejects(
    open(80),
    (error) => error instanceof ConfigError && /MTU of 80 leaves 52/.test(error.message),
  );
  await using first = await open();
  await assert.rejects(
    open(),
    (error) =>
      error instanceof RuntimeError &&
      /UDP port 8285 of 10.99.0.1: another program/.test(error.message),
  );
  namespace.ip("tuntap add flannel0 mode tun");
  const starting = Promise.withResolvers<void>();
  namespace.run(() => void first.onLeased!(LEASE).then(starting.resolve, starting.reject));
  await assert.rejects(starting.promise, /flannel0: another program has it/);
});

/** A data path in a namespace, with its device up, and one peer. */
async function dataPath(
  namespace: ScratchNamespace,
  own: number,
  options: {
    readonly queues?: number;
    readonly threadADirection?: boolean;
    readonly offloads?: boolean;
  } = {},
): Promise<DataPath> {
  const starting = Promise.withResolvers<void>();
  const path = namespace.run(() => {
    const path = DataPath.open({
      device: "flannel0",
      addresses: [IpAddress.parse(`10.99.0.${own}`), IpAddress.parse(`fd99::${own}`)],
      port: 8285,
      capacity: 1 << 17,
      offloads: true,
      hasDevice: () => true,
      log: new RecordingLog(),
      metrics: NO_METRICS,
      fail: (error) => assert.fail(`${error}`),
      ...options,
    });
    const subnets = [Cidr.parse(`10.5.${own}.0/24`), Cidr.parse(`fc00:5:0:${own}::/64`)];
    path.start(subnets).then(starting.resolve, starting.reject);
    return path;
  });
  await starting.promise;
  namespace.ip("link set flannel0 mtu 1452 up");
  for (
    const command of [
      `addr replace 10.5.${own}.0/32 dev flannel0`,
      `addr replace fc00:5:0:${own}::/128 dev flannel0 nodad`,
      "route replace 10.5.0.0/16 dev flannel0",
      "route replace fc00:5::/48 dev flannel0",
    ]
  ) namespace.ip(command);
  return path;
}

function put(path: DataPath, number: number, publicIp = number): void {
  for (
    const [subnet, address] of [
      [`10.5.${number}.0/24`, `10.99.0.${publicIp}`],
      [`fc00:5:0:${number}::/64`, `fd99::${publicIp}`],
    ] as const
  ) {
    path.put({
      subnet: Cidr.parse(subnet),
      publicIp: IpAddress.parse(address),
      partialChecksums: true,
    });
  }
}

function pings(from: ScratchNamespace, to: string, count = 1): boolean {
  const args = [
    "netns",
    "exec",
    from.name,
    "ping",
    "-c",
    `${count}`,
    "-i",
    "0.01",
    "-W",
    "1",
    "-q",
    to,
  ];
  return new Deno.Command("ip", { args, stdout: "null" }).outputSync().success;
}

for (
  const [name, options] of [
    ["one thread", { threadADirection: false }],
    ["a thread a direction", { threadADirection: true }],
    ["two queues, four threads", { queues: 2, threadADirection: true }],
    ["no offloads", {
      offloads: false,
    }],
  ] as const
) {
  rootTest(`udp: threads carry packets, count them, and follow the peers: ${name}`, async () => {
    using b = new ScratchNamespace();
    using a = host(1, b);
    await using first = await dataPath(a, 1, options);
    await using second = await dataPath(b, 2, options);
    put(second, 1);
    put(first, 2);
    let sent = 0;
    const ping = (to: string, count: number) => {
      sent += count;
      return pings(a, to, count);
    };
    // A thread counts what it has sent, which may be after the answer; and ping does not wait long for the last one.
    const counted = async (received: number) => {
      await eventually("all is counted", () => {
        const { outbound, inbound } = first.counts();
        return outbound.packets === sent && inbound.packets >= received;
      });
      return first.counts();
    };
    for (const to of ["10.5.2.0", "fc00:5:0:2::"]) {
      await eventually(to, () => ping(to, 1));
      const had = await counted(1);
      assert.ok(ping(to, 20));
      const has = await counted(had.inbound.packets + 20);
      const bytes = 20 * (to.includes(":") ? 104 : 84);
      for (const way of WAYS) {
        assert.deepEqual(
          [has[way].packets - had[way].packets, has[way].bytes - had[way].bytes, has[way].drops],
          [20, bytes, 0],
        );
      }
    }

    first.remove(Cidr.parse("10.5.2.0/24"));
    const drops = () => first.counts().drops;
    const { outNoPeer } = drops();
    assert.ok(!pings(a, "10.5.2.0"));
    assert.equal(drops().outNoPeer, outNoPeer + 1);
    await eventually("it is counted", () => first.counts().icmpErrors === 1);

    // A peer that moved away from where it was: what comes from there is forged.
    put(first, 2, 77);
    const { inStranger } = drops();
    assert.ok(!pings(b, "10.5.1.0"));
    assert.equal(drops().inStranger, inStranger + 1);
    put(first, 2);
    await eventually("the way back", () => pings(a, "10.5.2.0"));
  });
}

rootTest("udp: the device outlives the threads, and the next ones carry on", async () => {
  using b = new ScratchNamespace();
  using a = host(1, b);
  await using second = await dataPath(b, 2);
  put(second, 1);
  for (const run of [1, 2]) {
    await using first = await dataPath(a, 1);
    put(first, 2);
    await eventually(`run ${run}`, () => pings(a, "10.5.2.0"));
  }
  assert.ok(a.ip("link show flannel0").includes("NO-CARRIER"));
});

rootTest("udp: 60,000 peers are put in while packets pass, and each of them is found", async () => {
  using b = new ScratchNamespace();
  using a = host(1, b);
  await using first = await dataPath(a, 1);
  await using second = await dataPath(b, 2);
  put(second, 1);
  put(first, 2);
  await eventually("before", () => pings(a, "10.5.2.0"));
  for (let index = 0; index < 60_000; index++) {
    const subnet = new Cidr(new IpAddress(4, BigInt(0x0a06_0000 + index * 256)), 24);
    const publicIp = new IpAddress(4, BigInt(0xac10_0000 + index));
    first.put({ subnet, publicIp, partialChecksums: true });
  }
  assert.ok(pings(a, "10.5.2.0", 50));
});
