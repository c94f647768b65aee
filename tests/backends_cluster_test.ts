/** Backends on whole nodes: two segments, and a cluster that changes its backend while its pods talk. */

import type { LeaseAdmin } from "@denim/core";
import { openTunnelSockets } from "@denim/core/linux/udp-socket";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { denimProgram, type Lab, type LabNode, type Pod } from "@denim/agent/lab";
import { ip, ipJson } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { RunningPing } from "./support/ping.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { eventually, NEVER } from "./support/wait.ts";

/** What a change of the backend may cost each pair, at 10 ms a ping. */
const MAX_LOST = 10;

function netConf(backend: Record<string, unknown>): Record<string, unknown> {
  return { Network: "10.5.0.0/16", Backend: backend };
}

async function addPods(lab: Lab): Promise<Pod[]> {
  await lab.startAgents(NEVER);
  return await Promise.all(lab.nodes.map((node, index) => node.addPod(`pod${index + 1}`)));
}

/** Every ordered pair. */
function pairs<T>(items: readonly T[]): (readonly [T, T])[] {
  return items.flatMap((from) =>
    items.filter((to) => to !== from).map((to) => [from, to] as const)
  );
}

async function reaches(from: Pod, to: Pod): Promise<boolean> {
  return (await from.ping(to.address, { timeoutMs: 300 })).timeMs !== undefined;
}

async function allReach(lab: Lab, pods: readonly Pod[]): Promise<void> {
  for (const [from, to] of pairs(pods)) {
    await eventually(`${from.name} → ${to.name} in ${lab.prefix}`, () => reaches(from, to), 2_000);
  }
}

/** The device by which a node reaches another's subnet, and through whom. */
function way(from: LabNode, to: LabNode): string {
  const [route] = ipJson(from, `route show ${to.subnet()}`);
  return route === undefined ? "none" : `${route.dev} ${route.gateway}`;
}

/** Tunnels that peers on the same link may do without: each one's device, and its gateway to another node. */
const TUNNELS = [
  { type: "vxlan", device: "flannel.1", gateway: (to: LabNode) => to.subnet().address },
  { type: "ipip", device: "flannel.ipip", gateway: (to: LabNode) => to.publicIp, linkType: "ipip" },
] as const;

for (const { type, device, gateway, ...needs } of TUNNELS) {
  labTest(`six nodes on two segments: direct within, ${type} across, all 30 pairs talk`, {
    nodes: 6,
    segments: 2,
    netConf: netConf({ Type: type, DirectRouting: true }),
    ...needs,
  }, async (lab) => {
    const pods = await addPods(lab);
    await allReach(lab, pods);
    for (const [from, to] of pairs(lab.nodes)) {
      const expected = from.segment === to.segment
        ? `eth0 ${to.publicIp}`
        : `${device} ${gateway(to)}`;
      await eventually(`${from.name} → ${to.name}`, () => way(from, to) === expected, 2_000);
    }
  });

  labTest(`${type}'s DirectRouting changes over by itself when the underlay's routes change`, {
    nodes: 2,
    netConf: netConf({ Type: type, DirectRouting: true }),
    ...needs,
  }, async (lab) => {
    const [a, b] = await addPods(lab) as [Pod, Pod];
    const [node, other] = lab.nodes as [LabNode, LabNode];
    const direct = `eth0 ${other.publicIp}`, tunnel = `${device} ${gateway(other)}`;
    await eventually("direct at first", () => way(node, other) === direct);
    using namespace = a.open();
    const pinging = new RunningPing(namespace, ["-i", "0.01", `${b.address}`]);
    const took: number[] = [];
    for (
      const [change, expected] of [
        [`route add ${other.publicIp} via 10.99.0.254`, tunnel],
        [`route del ${other.publicIp}`, direct],
        [`route add unreachable 10.77.0.0/16`, direct],
        [`route add ${other.publicIp} via 10.99.0.254 metric 5`, tunnel],
        [`route flush ${other.publicIp}`, direct],
      ] as const
    ) {
      ip(node, change);
      took.push(await eventually(change, () => way(node, other) === expected, 1_000));
    }
    const { sent, received } = await pinging.stop();
    console.log(
      `changed over within ${Math.max(...took).toFixed()} ms; ${sent - received} of ${sent} lost`,
    );
    assert.ok(sent - received <= MAX_LOST);
  });
}

labTest("host-gw refuses a peer behind a router, with one line; the others work", {
  nodes: 3,
  segments: 2,
  netConf: netConf({ Type: "host-gw" }),
}, async (lab) => {
  const [a, b, c] = await addPods(lab) as [Pod, Pod, Pod];
  const [node, , far] = lab.nodes as [LabNode, LabNode, LabNode];
  await allReach(lab, [a, b]);
  assert.equal(await reaches(a, c), false);
  assert.equal(way(node, far), "none");
  const refusals = () =>
    Deno.readTextFileSync(node.logFile).match(/ERROR peer .* is left out: .*/g) ?? [];
  await eventually("a word about the far peer", () => refusals().length > 0);
  // With the far peer on the link it is reached; when that is over there is one more word.
  ip(node, `route add ${far.publicIp} dev eth0`);
  await eventually("a route to the far peer", () => way(node, far) === `eth0 ${far.publicIp}`);
  ip(node, "route add 10.77.0.0/16 via 10.99.0.254");
  ip(node, `route del ${far.publicIp}`);
  await eventually("no route to the far peer", () => way(node, far) === "none");
  const [first, second, ...more] = refusals();
  assert.match(first!, /10\.99\.1\.3 is reached through the router 10\.99\.0\.254; host-gw needs/);
  assert.ok(second !== undefined && more.length === 0);
});

function openStore(lab: Lab): LeaseAdmin {
  return SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
}

function setNetConf(store: LeaseAdmin, conf: unknown): Promise<boolean> {
  return store.setNetworkConfig(JSON.stringify(conf), { ifAbsent: false }, NEVER);
}

/** Pings every ordered pair at 10 ms while `work` is done; the worst pair's loss. */
async function worstLoss(pods: readonly Pod[], work: () => Promise<void>): Promise<number> {
  const pings = pairs(pods).map(([from, to]) => {
    using namespace = from.open();
    return new RunningPing(namespace, ["-i", "0.01", `${to.address}`]);
  });
  await work();
  const counts = await Promise.all(pings.map((ping) => ping.stop()));
  assert.ok(counts.every(({ sent }) => sent > 30));
  return Math.max(...counts.map(({ sent, received }) => sent - received));
}

/** Lets pings go on for a while: what went too early would be missed now. */
function lookOn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1_000));
}

/**
 * How many pings at 10 ms a change may cost that is as long as other programs take: an extension's commands, or the
 * threads of a data path that starts again. A slow machine's take longer.
 */
function mostLostIn(tookMs: number): number {
  return Math.max(MAX_LOST, tookMs / 10);
}

function mtu(node: LabNode): string {
  return /FLANNEL_MTU=(\d+)/.exec(Deno.readTextFileSync(node.subnetFile))![1]!;
}

/** host-gw as flannel's documentation has it done by commands. */
const EXTENSION = {
  Type: "extension",
  MTU: 1490,
  SubnetAddCommand: 'ip route replace "$SUBNET" via "$PUBLIC_IP"',
  SubnetRemoveCommand: 'ip route del "$SUBNET" via "$PUBLIC_IP"',
};

/** Changes the backend of a cluster, which begins with VXLAN, to one after the other. */
async function changeBackends(
  lab: Lab,
  t: Deno.TestContext,
  backends: readonly (readonly [{ readonly Type: string }, device: string, mtuBytes: string])[],
): Promise<void> {
  const pods = await addPods(lab);
  await using store = openStore(lab);
  await allReach(lab, pods);
  const subnets = lab.nodes.map((node) => `${node.subnet()}`);
  let carried = true;
  for (const [backend, device, mtuBytes] of backends) {
    const type = backend.Type, carries = type !== "alloc";
    await t.step(`to ${type}`, async () => {
      const changed = () =>
        lab.nodes.every((node) => mtu(node) === mtuBytes) &&
        pairs(lab.nodes).every(([from, to]) =>
          way(from, to).startsWith(device === "" ? "none" : device)
        );
      let tookMs = 0;
      const lost = await worstLoss(pods, async () => {
        await setNetConf(store, netConf(backend));
        tookMs = await eventually(`every node runs ${type}`, changed);
        await lookOn();
      });
      console.log(`to ${type} in ${tookMs.toFixed()} ms; at most ${lost} pings lost on a pair`);
      // alloc carries nothing: what goes before it, and what comes after it, is missed.
      const most = type === "extension" ? mostLostIn(tookMs) : MAX_LOST;
      if (carried && carries) assert.ok(lost <= most, `${lost} lost`);
      if (carries) await allReach(lab, pods);
      carried = carries;
    });
  }
  assert.deepEqual(lab.nodes.map((node) => `${node.subnet()}`), subnets);
}

labTest("the backend changes while all pairs ping: no pod notices", {
  nodes: 3,
  netConf: netConf({ Type: "vxlan" }),
}, async (lab, t) => {
  await changeBackends(lab, t, [
    [{ Type: "host-gw" }, "eth0", "1500"],
    [{ Type: "vxlan" }, "flannel.1", "1450"],
    [{ Type: "udp" }, "", "1472"],
    [{ Type: "host-gw" }, "eth0", "1500"],
    [EXTENSION, "eth0", "1490"],
    [{ Type: "host-gw" }, "eth0", "1500"],
    [EXTENSION, "eth0", "1490"],
    [{ Type: "alloc" }, "", "1500"],
    [{ Type: "vxlan" }, "flannel.1", "1450"],
  ]);
});

labTest("a change to WireGuard, which takes no stranger's packet, and back: no pod notices", {
  nodes: 3,
  netConf: netConf({ Type: "vxlan" }),
  program: "wireguard-go",
}, async (lab, t) => {
  await changeBackends(lab, t, [
    [{ Type: "wireguard" }, "", "1420"],
    [{ Type: "vxlan" }, "flannel.1", "1450"],
    [{ Type: "host-gw" }, "eth0", "1500"],
    [{ Type: "wireguard" }, "", "1420"],
    [{ Type: "udp" }, "", "1472"],
    [{ Type: "wireguard" }, "", "1420"],
    [{ Type: "host-gw" }, "eth0", "1500"],
  ]);
});

labTest("a change to IPIP and from it: no pod notices", {
  nodes: 3,
  netConf: netConf({ Type: "vxlan" }),
  program: "wireguard-go",
  linkType: "ipip",
}, async (lab, t) => {
  await changeBackends(lab, t, [
    [{ Type: "ipip" }, "flannel.ipip", "1480"],
    [{ Type: "vxlan" }, "flannel.1", "1450"],
    [{ Type: "ipip" }, "flannel.ipip", "1480"],
    [{ Type: "host-gw" }, "eth0", "1500"],
    [{ Type: "ipip" }, "flannel.ipip", "1480"],
    [{ Type: "wireguard" }, "", "1420"],
    [{ Type: "ipip" }, "flannel.ipip", "1480"],
  ]);
});

const TCP_PROGRAM = denimProgram("agent", import.meta.resolve("../examples/tcp/main.ts"));

for (
  const [before, after, says, agentProgram] of [
    [{ Type: "udp" }, { Type: "udp", Port: 9001 }, /by UDP port 9001[^]* event=data-path-changed/],
    [{ Type: "udp" }, { Type: "udp", MTU: 1400 }, /mtuBytes=1372/],
    [
      EXTENSION,
      { ...EXTENSION, MTU: 1480, CommandTimeoutSeconds: 7 },
      /mtuBytes=1480[^]*SubnetAddCommand ran/,
    ],
    [{ Type: "vxlan" }, { Type: "vxlan", VNI: 3 }, / event=data-path-changed/],
    [{ Type: "tcp" }, { Type: "tcp", Port: 9001 }, / event=data-path-changed/, TCP_PROGRAM],
  ] as const
) {
  labTest(`${before.Type} follows a change to ${JSON.stringify(after)}`, {
    nodes: 2,
    netConf: netConf(before),
    ...agentProgram && { agentProgram },
  }, async (lab) => {
    const pods = await addPods(lab);
    await allReach(lab, pods);
    await using store = openStore(lab);
    const logs = () => lab.nodes.map(({ logFile }) => Deno.readTextFileSync(logFile));
    const isBy = (device: string) =>
      pairs(lab.nodes).every(([from, to]) => way(from, to).startsWith(device));
    /** Whether both nodes have changed, and know each other again. */
    const isOver = async () => {
      if (!logs().every((log) => says.test(log)) || "VNI" in after && !isBy("flannel.3")) {
        return false;
      }
      const pings = pairs(pods).map(([from, to]) => from.ping(to.address, { timeoutMs: 50 }));
      return (await Promise.all(pings)).every(({ timeMs }) => timeMs !== undefined);
    };
    let tookMs = 0;
    const lost = await worstLoss(pods, async () => {
      await setNetConf(store, netConf(after));
      tookMs = await eventually("the change", isOver);
      await lookOn();
    });
    console.log(`${before.Type}: at most ${lost} pings lost on a pair`);
    // A connection that comes before the other node has changed is tried again after 200 ms.
    const most = before.Type === "tcp" ? 50 : mostLostIn(tookMs);
    assert.ok(lost <= most, `${lost} lost in ${tookMs.toFixed()} ms`);
    for (const log of logs()) assert.doesNotMatch(log, /event=drift-/, "no route went by itself");
    await allReach(lab, pods);
  });
}

labTest("a data path in user space that can't be had with other options goes on as it was", {
  nodes: 2,
  netConf: netConf({ Type: "udp" }),
}, async (lab) => {
  const pods = await addPods(lab);
  await allReach(lab, pods);
  await using store = openStore(lab);
  const [node] = lab.nodes as [LabNode];
  const log = () => Deno.readTextFileSync(node.logFile);
  using namespace = node.open();
  using _taken = namespace.run(() => openTunnelSockets(node.publicIp, 9001, 1, false)[0]!);
  await setNetConf(store, netConf({ Type: "udp", Port: 9001 }));
  await eventually("a word", () => /udp: bind UDP port 9001.* event=net-conf-refused/.test(log()));
  // The other node could follow, and comes back.
  await setNetConf(store, netConf({ Type: "udp" }));
  await allReach(lab, pods);
});

labTest("extension: a command that hangs for one peer holds up no other, and is tried again", {
  nodes: 3,
  netConf: netConf({
    ...EXTENSION,
    CommandTimeoutSeconds: 1,
    SubnetAddCommand: '[ "$PUBLIC_IP" != 10.99.0.3 ] || ip -o addr | grep -q 10.77.0.1 || ' +
      `{ echo not yet >&2; sleep 600; }; ${EXTENSION.SubnetAddCommand}`,
  }),
}, async (lab) => {
  const [a, b, c] = await addPods(lab) as [Pod, Pod, Pod];
  const [node, , late] = lab.nodes as [LabNode, LabNode, LabNode];
  await allReach(lab, [a, b]);
  const complaint = /ERROR SubnetAddCommand took longer than 1 s and was killed: not yet; trying/g;
  const said = () => Deno.readTextFileSync(node.logFile).match(complaint)?.length;
  await eventually("a word about it", () => said() === 1);
  assert.equal(way(node, late), "none");
  for (const each of lab.nodes) ip(each, "addr add 10.77.0.1/32 dev lo");
  await eventually("its peer is reached", () => reaches(a, c), 5_000);
  assert.equal(said(), 1);
});

labTest("a node that can't follow the change is reached as before, until it does", {
  nodes: 3,
  netConf: netConf({ Type: "vxlan" }),
}, async (lab) => {
  const pods = await addPods(lab);
  await using store = openStore(lab);
  const [node, , late] = lab.nodes as [LabNode, LabNode, LabNode];
  await late.stopAgent();
  await setNetConf(store, netConf({ Type: "host-gw" }));
  await eventually("the others' change", () => mtu(node) === "1500" && way(node, late) !== "none");
  assert.equal(way(node, late), `flannel.1 ${late.subnet().address}`);
  await allReach(lab, pods);
  // Its agent comes back, finds another net-conf, and changes as the others did.
  const lost = await worstLoss(pods, async () => {
    await late.startAgent(NEVER);
    await eventually(
      "no way by VXLAN any more",
      () => pairs(lab.nodes).every(([from, to]) => way(from, to) === `eth0 ${to.publicIp}`),
    );
    await eventually(
      "no device of VXLAN's",
      () => lab.nodes.every((each) => !ip(each, "link").includes("flannel.1")),
      20_000,
    );
  });
  console.log(`at most ${lost} pings lost on a pair`);
  assert.ok(lost <= MAX_LOST, `${lost} lost`);
});

labTest("alloc, which carried nothing, leaves nothing to follow", {
  nodes: 1,
  netConf: netConf({ Type: "alloc" }),
}, async (lab) => {
  const [node] = lab.nodes as [LabNode];
  await node.startAgent(NEVER);
  await node.stopAgent();
  await using store = openStore(lab);
  await setNetConf(store, netConf({ Type: "vxlan" }));
  await node.startAgent(NEVER);
  assert.doesNotMatch(ip(node, "link"), /flannel0/);
});

labTest("a net-conf that can't be followed is said, and changes nothing", {
  nodes: 2,
  netConf: netConf({ Type: "vxlan" }),
}, async (lab, t) => {
  const pods = await addPods(lab);
  await using store = openStore(lab);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  for (
    const [name, conf, complaint] of [
      [
        "another network",
        { ...netConf({ Type: "vxlan" }), Network: "10.6.0.0/16" },
        /does not fit/,
      ],
      [
        "an unknown backend",
        netConf({ Type: "carrier-pigeon" }),
        /denim has no Backend\.Type "carrier-pigeon"/,
      ],
      ["a wrong option", netConf({ Type: "vxlan", VNI: "one" }), /Backend\.VNI is "one"/],
      ["an MTU too small", netConf({ Type: "vxlan", MTU: 100 }), /an outer MTU of 100 leaves 50/],
    ] as const
  ) {
    await t.step(name, async () => {
      const lost = await worstLoss(pods, async () => {
        await setNetConf(store, conf);
        await eventually("a word", () => {
          const lines = Deno.readTextFileSync(node.logFile).split("\n");
          return lines.some((line) =>
            line.includes(" event=net-conf-refused") &&
            complaint.test(line)
          );
        });
        await lookOn();
      });
      assert.ok(lost <= MAX_LOST, `${lost} lost`);
      assert.equal(way(node, other), `flannel.1 ${other.subnet().address}`);
    });
  }
  await setNetConf(store, netConf({ Type: "host-gw" }));
  await eventually("a good one is followed", () => way(node, other) === `eth0 ${other.publicIp}`);
});

labTest("a change that the kernel refuses leaves the old data path as it was", {
  nodes: 2,
  netConf: netConf({ Type: "vxlan" }),
}, async (lab) => {
  const pods = await addPods(lab);
  await using store = openStore(lab);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  // The kernel takes no second device with one VNI on one port.
  for (const each of lab.nodes) {
    ip(each, "link add foreign type vxlan id 7 dstport 8472 dev eth0 nolearning");
  }
  const lost = await worstLoss(pods, async () => {
    await setNetConf(store, netConf({ Type: "vxlan", VNI: 7 }));
    await eventually(
      "a word",
      () =>
        /make device flannel\.7.* event=net-conf-refused/.test(Deno.readTextFileSync(node.logFile)),
    );
    await lookOn();
  });
  assert.ok(lost <= MAX_LOST, `${lost} lost`);
  assert.equal(way(node, other), `flannel.1 ${other.subnet().address}`);
  assert.doesNotMatch(ip(node, "link"), /flannel\.7/);
});
