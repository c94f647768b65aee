/** Pods' way out: whole nodes whose agents masquerade, and a host that is not in the cluster. */

import { FAMILIES, type Family, IpAddress } from "@denim/core";
import { findLink, NetlinkSocket, type NetworkNamespace, PacketSocket } from "@denim/core/linux";
import { SqliteStore } from "@denim/core/stores/sqlite";
import { denimProgram, type Lab, type LabNode, type Pod } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { addOutside, OUTSIDE } from "./support/outside.ts";
import { labTest } from "./support/lab_test.ts";
import { RunningPing } from "./support/ping.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { shIn } from "./support/sh.ts";
import { eventually } from "./support/wait.ts";

const NEVER = new AbortController().signal;
const NET_CONF = {
  Network: "10.5.0.0/16",
  EnableIPv6: true,
  IPv6Network: "fc00:5::/48",
  Backend: { Type: "vxlan" },
};
/** Neither nft nor iptables is there. */
const NO_PROGRAMS = ["/usr/bin/env", "PATH=/nonexistent", ...denimProgram("agent")] as const;

/** The source that a receiver sees of a pod's echo request. */
async function seenSource(from: Pod, to: IpAddress, receiver: NetworkNamespace): Promise<string> {
  using capture = receiver.run(() => {
    using socket = new NetlinkSocket();
    return new PacketSocket(findLink(socket, "eth0")!.index);
  });
  let sources: string[] = [];
  await eventually(`${from.name} reaches ${to}`, async () => {
    const { timeMs } = await from.ping(to, { timeoutMs: 500 });
    sources = capture.frames().flatMap((frame) => echoSources(frame, to.family));
    return timeMs !== undefined && sources.length > 0;
  });
  return sources.at(-1)!;
}

/** The source of an echo request in an Ethernet frame. */
function echoSources(frame: Uint8Array, family: Family): string[] {
  const [type, protocol, source, payload, request] = family === 4
    ? [0x0800, { at: 23, is: 1 }, { at: 26, length: 4 }, 34, 8] as const
    : [0x86dd, { at: 20, is: 58 }, { at: 22, length: 16 }, 54, 128] as const;
  const isRequest = new DataView(frame.buffer, frame.byteOffset).getUint16(12) === type &&
    frame[protocol.at] === protocol.is && frame[payload] === request;
  const octets = frame.slice(source.at, source.at + source.length);
  return isRequest ? [`${IpAddress.fromBytes(octets)}`] : [];
}

const addressOf = (pod: Pod, family: Family) =>
  pod.addresses.find((address) => address.family === family)!;

/** The tables of a node that begin with denim's or flannel's name, in full, with the rules' numbers. One may just go. */
function tables(node: LabNode): string {
  return shIn(
    node,
    `nft list tables | grep -E " (ip6?) (denim|flannel.*)$" | while read -r table; do nft -a list $table 2>/dev/null || true; done`,
  );
}

const logOf = (node: LabNode) => Deno.readTextFileSync(node.logFile);
const occurrences = (node: LabNode, event: string) =>
  logOf(node).split(`event=${event}`).length - 1;

labTest("pods reach the outside under their node's address, and each other under their own", {
  nodes: 2,
  netConf: NET_CONF,
  agentProgram: NO_PROGRAMS,
}, async (lab, t) => {
  using outside = addOutside(lab);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  await Promise.all(lab.nodes.map((each) => each.startAgent(NEVER, ["--ip-masq"])));
  const [a, b] = [await node.addPod("a"), await other.addPod("b")];
  const nodeIp = (family: Family) => family === 4 ? `${node.publicIp}` : "fd99::1";
  const looksRight = async () => {
    for (const family of FAMILIES) {
      const to = IpAddress.parse(OUTSIDE[family]);
      assert.equal(await seenSource(a, to, outside), nodeIp(family));
      using receiver = b.open();
      const own = await seenSource(a, addressOf(b, family), receiver);
      assert.equal(own, `${addressOf(a, family)}`);
    }
  };
  await t.step("both families", looksRight);
  await t.step("subnet.env says so", () => {
    assert.match(Deno.readTextFileSync(node.subnetFile), /^FLANNEL_IPMASQ=true$/m);
  });

  const wanted = () => shIn(node, "nft list table ip denim; nft list table ip6 denim");
  const before = wanted();
  const OTHERS =
    `table inet kube-proxy { chain services { counter packets 9 bytes 900 return; }; }`;
  const others = () => shIn(node, "nft -a list table inet kube-proxy");
  const faults: readonly (readonly [string, string])[] = [
    ["everything is flushed", "nft flush ruleset"],
    ["the tables are deleted", "nft 'delete table ip denim; delete table ip6 denim'"],
    ["one rule is deleted", "nft delete rule ip denim postrouting handle 3"],
    ["a rule is put before all", "nft insert rule ip6 denim postrouting return"],
  ];
  for (const [fault, script] of faults) {
    await t.step(`${fault}: they are right again`, async () => {
      shIn(node, `nft '${OTHERS}'`);
      const repairs = occurrences(node, "drift-repaired");
      shIn(node, script);
      await eventually("the rules are right", () => rightAgain(wanted, before));
      await eventually(
        "the log says so",
        () => occurrences(node, "drift-repaired") > repairs,
      );
      await looksRight();
    });
  }

  await t.step("an agent's restart leaves them alone", async () => {
    const [own, foreign] = [tables(node), others()];
    await node.stopAgent();
    assert.equal(tables(node), own);
    await looksRight();
    await node.startAgent(NEVER, ["--ip-masq"]);
    assert.equal(tables(node), own, "the same rules, by their numbers");
    assert.equal(others(), foreign);
  });

  await t.step("another Network in net-conf: the rules follow it", async () => {
    await setNetConf(lab, { ...NET_CONF, Network: "10.4.0.0/15" });
    await eventually(
      "the new network",
      () => wanted() === before.replaceAll("10.5.0.0/16", "10.4.0.0/15"),
    );
    await setNetConf(lab, NET_CONF);
    await eventually("the old network", () => wanted() === before);
  });

  await t.step("FORWARD's policy is DROP: pods' packets pass within a second", async () => {
    shIn(node, "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP");
    const since = performance.now();
    for (const family of FAMILIES) await reaches(a, addressOf(b, family));
    assert.ok(performance.now() - since < 1000);
    await looksRight();
    assert.match(shIn(node, "iptables-nft -S"), /^-A FLANNEL-FWD -s 10\.5\.0\.0\/16 .*-j ACCEPT$/m);
    shIn(node, "iptables-nft -P FORWARD ACCEPT; ip6tables-nft -P FORWARD ACCEPT");
    await eventually("the chains are gone", () => !/FLANNEL/.test(shIn(node, "iptables-nft -S")));
  });

  await t.step("net-conf asks for iptables, and for nftables again", async () => {
    await setNetConf(lab, { ...NET_CONF, EnableNFTables: false });
    await eventually("nftables' tables are gone", () => tables(node) === "");
    await looksRight();
    await node.stopAgent();
    await setNetConf(lab, NET_CONF);
    await node.startAgent(NEVER, ["--ip-masq"]);
    assert.equal(wanted(), before);
    assert.doesNotMatch(shIn(node, "iptables-save; ip6tables-save"), /denim/);
    await looksRight();
  });

  await t.step("switched off at a restart they go, and nobody else's do", async () => {
    const foreign = others();
    await node.stopAgent();
    await node.startAgent(NEVER);
    assert.equal(tables(node), "");
    assert.equal(others(), foreign);
    assert.match(Deno.readTextFileSync(node.subnetFile), /^FLANNEL_IPMASQ=false$/m);
    assert.ok(tables(other).includes("ip denim"), "the other node's stay");
  });
});

async function reaches(from: Pod, to: IpAddress): Promise<void> {
  await eventually(
    `${from.name} reaches ${to}`,
    async () => (await from.ping(to, { timeoutMs: 100 })).timeMs !== undefined,
  );
}

labTest(
  "pods reach each other though FORWARD drops: iptables-nft's or -legacy's, before or while",
  {
    nodes: 2,
    netConf: NET_CONF,
  },
  async (lab, t) => {
    const [node, other] = lab.nodes as [LabNode, LabNode];
    const policy = (on: LabNode, variant: string, to: string) =>
      shIn(on, `iptables-${variant} -P FORWARD ${to}; ip6tables-${variant} -P FORWARD ${to}`);
    policy(node, "nft", "DROP");
    policy(other, "legacy", "DROP");
    await Promise.all(lab.nodes.map((each) => each.startAgent(NEVER)));
    const [a, b] = [await node.addPod("a"), await other.addPod("b")];
    await t.step("before the agent runs", async () => {
      for (const family of FAMILIES) await reaches(a, addressOf(b, family));
    });
    for (const [on, variant] of [[other, "nft"], [node, "legacy"]] as const) {
      await t.step(`while it runs, iptables-${variant}`, async () => {
        policy(on, variant, "DROP");
        const since = performance.now();
        for (const family of FAMILIES) await reaches(a, addressOf(b, family));
        assert.ok(performance.now() - since < 1000);
      });
    }
    await t.step("a restart of the agent lets each packet pass", async () => {
      using namespace = a.open();
      const ping = new RunningPing(namespace, ["-i", "0.02", `${addressOf(b, 4)}`]);
      await node.stopAgent();
      await node.startAgent(NEVER);
      await ping.reaches(20);
      const { sent, received } = await ping.stop();
      assert.ok(sent - received <= 1, `${sent} sent, ${received} received`);
    });
    await t.step("switched off they go, and nothing passes", async () => {
      await node.stopAgent();
      await node.startAgent(NEVER, ["--iptables-forward-rules=false"]);
      assert.doesNotMatch(shIn(node, "iptables-nft-save; iptables-legacy-save"), /FLANNEL/);
      assert.equal((await a.ping(addressOf(b, 4), { timeoutMs: 300 })).timeMs, undefined);
    });
  },
);

/** What flanneld has by nftables (nftables.go at cdf7605): it makes IPv6's table in a cluster without, too. */
const FLANNEL = `
  table ip flannel-ipv4 {
    chain forward {
      type filter hook forward priority filter;
      ip saddr 10.5.0.0/16 accept
      ip daddr 10.5.0.0/16 accept
    }
    chain postrtg {
      type nat hook postrouting priority srcnat;
      meta mark 0x4000 return
      ip saddr 10.5.7.0/24 ip daddr 10.5.0.0/16 return
      ip saddr 10.5.0.0/16 ip daddr 10.5.7.0/24 return
      ip saddr != 10.5.7.0/24 ip daddr 10.5.0.0/16 return
      ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
      ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random
    }
  }
  table ip6 flannel-ipv6 { }
`;
/** And by iptables (iptables.go). */
const FLANNEL_IPTABLES = `iptables -w -t nat -N FLANNEL-POSTRTG
  iptables -w -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`;

labTest("what flanneld left goes; another cluster's stays", {
  nodes: 1,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
}, async (lab, t) => {
  const [node] = lab.nodes as [LabNode];
  const listed = () => shIn(node, "nft list tables").trim().split("\n").sort();
  shIn(node, `nft '${FLANNEL}'; ${FLANNEL_IPTABLES}`);
  const LEFT = ["table ip flannel-ipv4", "table ip nat", "table ip6 flannel-ipv6"];
  await t.step("an agent that does not masquerade leaves all of it", async () => {
    await node.startAgent(NEVER);
    assert.deepEqual(listed(), LEFT);
    assert.match(shIn(node, "iptables-save"), /FLANNEL-POSTRTG/);
    await node.stopAgent();
  });
  await t.step("one that does puts its own in flanneld's place", async () => {
    await node.startAgent(NEVER, ["--ip-masq"]);
    assert.deepEqual(listed(), ["table ip denim", "table ip nat"]);
    assert.doesNotMatch(shIn(node, "iptables-save"), /FLANNEL/);
  });
  await t.step(
    "the table of an agent of another cluster stays, and both can't masquerade",
    async () => {
      await node.stopAgent();
      const other = shIn(node, "nft list table ip denim").replaceAll("10.5.", "10.7.");
      shIn(node, `nft delete table ip denim; nft '${other.replaceAll("'", "")}'`);
      const left = tables(node);
      await node.startAgent(NEVER);
      assert.equal(tables(node), left);
      await node.stopAgent();
      await assert.rejects(
        node.startAgent(NEVER, ["--ip-masq"]),
        /table ip denim is another cluster's, of 10\.7\.\S+: .*nft delete table ip denim/,
      );
      assert.equal(tables(node), left);
    },
  );
});

labTest("an agent that fails before it was ever ready takes its rules away", {
  nodes: 1,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
}, async (lab) => {
  const [node] = lab.nodes as [LabNode];
  const args = ["--ip-masq", "--subnet-file", "/proc/denim/subnet.env"];
  await assert.rejects(node.startAgent(NEVER, args), /subnet\.env\S* cannot be written/);
  assert.equal(tables(node), "");
});

async function setNetConf(lab: Lab, netConf: unknown): Promise<void> {
  await using store = await SqliteStore.open(`${lab.directory}/denim.db`, {
    log: new RecordingLog(),
  });
  await store.setNetworkConfig(JSON.stringify(netConf), { ifAbsent: false }, NEVER);
}

/** Whether a listing is as before; nft fails if a table is not there. */
function rightAgain(list: () => string, before: string): boolean {
  try {
    return list() === before;
  } catch {
    return false;
  }
}
