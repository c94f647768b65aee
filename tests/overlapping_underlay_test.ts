/**
 * A pods' network that overlaps that of the hosts, with etcd among these (calico#4131): nodes, store and pods keep
 * talking, and the log says what is left out and why.
 */

import { Cidr, type IpAddress, parseLease } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { Lab, type LabNode, type Pod } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { EtcdServer } from "./support/etcd_server.ts";
import { ip } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { RunningPing } from "./support/ping.ts";
import { rootTest } from "./support/root_test.ts";
import { SqliteLeases } from "./support/sqlite_leases.ts";
import { all, eventually, NEVER } from "./support/wait.ts";

const PREFIX = "/coreos.com/network";
/** A host of its own beside the router. */
const ETCD_HOST = "10.0.1.253";
/** Nodes at 10.0.1.1 to 10.0.1.3, and a router at 10.0.1.254. */
const UNDERLAY = {
  4: { host: (_: number, number: number) => `10.0.1.${number}`, prefixLength: 16 },
};

const netConf = (type: string, SubnetMax: string) => ({
  Network: "10.0.0.0/8",
  SubnetLen: 24,
  SubnetMin: "10.0.1.0",
  SubnetMax,
  Backend: { Type: type },
});

function log(node: LabNode): string {
  return Deno.readTextFileSync(node.logFile);
}

/** How often a node's log has an event. */
function count(node: LabNode, event: string): number {
  return [...log(node).matchAll(new RegExp(` event=${event}$`, "gm"))].length;
}

async function ping(from: NetworkNamespace, to: IpAddress | string): Promise<boolean> {
  const { received } = await new RunningPing(from, ["-c", "1", "-W", "1", `${to}`]).finish();
  return received === 1;
}

/** Hosts reach each other and the store. */
async function hostsTalk(nodes: readonly LabNode[]): Promise<void> {
  await all(
    nodes.flatMap((node) =>
      [...nodes.map(({ publicIp }) => publicIp), ETCD_HOST].map(async (to) => {
        using namespace = node.open();
        assert.ok(await ping(namespace, to), `${node.name} → ${to}`);
      })
    ),
  );
}

/** Pods reach each other and the store. */
async function podsTalk(pods: readonly Pod[]): Promise<void> {
  await all(
    pods.flatMap((pod) =>
      [...pods.filter((other) => other !== pod).map(({ address }) => address), ETCD_HOST]
        .map((to) =>
          eventually(`${pod.name} → ${to}`, async () => {
            using namespace = pod.open();
            return await ping(namespace, to);
          }, 5_000)
        )
    ),
  );
}

for (const type of ["vxlan", "host-gw", "udp"]) {
  rootTest(`a pod network over the hosts' network, by ${type}: all keep talking`, async () => {
    const conf = netConf(type, "10.0.3.0");
    const storeFlags = ["--etcd-endpoints", `http://${ETCD_HOST}:2379`];
    await using lab = await Lab.create({ nodes: 3, netConf: conf, storeFlags, underlay: UNDERLAY });
    using net = NetworkNamespace.open(`/run/netns/${lab.prefix}-net`);
    net.run(() => {
      for (
        const args of [["link", "set", "lo", "up"], [
          "addr",
          "add",
          `${ETCD_HOST}/16`,
          "dev",
          "br0",
        ]]
      ) {
        new Deno.Command("ip", { args }).outputSync();
      }
    });
    await using etcd = await EtcdServer.start({ namespace: net, host: ETCD_HOST });
    etcd.ctl("put", `${PREFIX}/config`, JSON.stringify(conf));
    const [one, two, three] = lab.nodes as [LabNode, LabNode, LabNode];
    const start = (node: LabNode) => node.startAgent(NEVER, ["--ip-masq"]);

    // Of the three subnets one holds all the hosts: the third node is refused, and the others do not suffer.
    await start(one);
    await start(two);
    assert.deepEqual([one, two].map((node) => `${node.subnet()}`).toSorted(), [
      "10.0.2.0/24",
      "10.0.3.0/24",
    ]);
    await assert.rejects(
      start(three),
      /10\.0\.0\.0\/8 is full: .* is leased, or holds a host's address \(10\.0\.1\.3 of this node, /,
    );
    etcd.ctl("put", `${PREFIX}/config`, JSON.stringify(netConf(type, "10.0.4.0")));
    await start(three);
    assert.equal(`${three.subnet()}`, "10.0.4.0/24");
    const pods = await Promise.all(lab.nodes.map((node) => node.addPod(`on-${node.name}`)));
    await podsTalk(pods);
    await hostsTalk(lab.nodes);
    for (const node of lab.nodes) {
      assert.match(
        log(node),
        /WARN +net-conf's pod network 10\.0\.0\.0\/8 overlaps the hosts' network: 10\.0\.0\.0\/16 is on the link .* 10\.0\.1\.253 is the address of the store\./,
      );
    }
    assert.deepEqual([one, two].map((node) => count(node, "network-overlaps-hosts")), [1, 1]);

    // What flannel would have done: a lease of the hosts' own subnet.
    const value = (publicIp: IpAddress | string) =>
      JSON.stringify({
        PublicIP: publicIp,
        ...type === "udp" ? {} : { BackendType: type },
        ...type === "vxlan" ? { BackendData: { VNI: 1, VtepMAC: "02:00:00:00:00:77" } } : {},
      });
    etcd.ctl("put", `${PREFIX}/subnets/10.0.1.0-24`, value("10.0.1.77"));
    await eventually(
      "it is left out",
      () => lab.nodes.every((node) => count(node, "subnet-holds-host") === 1),
    );
    assert.match(
      log(one),
      /WARN +lease 10\.0\.1\.0-24 is not followed: 10\.0\.1\.0\/24 holds 10\.0\.1\./,
    );
    for (const node of lab.nodes) assert.doesNotMatch(ip(node, "route"), /10\.0\.1\.0\/24/);
    await hostsTalk(lab.nodes);
    await podsTalk(pods);

    // A node comes at an address inside of the first one's subnet: that subnet's route goes, until the node leaves.
    const late = one.subnet().at(200n);
    const routed = (node: LabNode) => ip(node, "route").includes(`${one.subnet()}`);
    assert.ok(routed(two) && routed(three));
    etcd.ctl("put", `${PREFIX}/subnets/10.0.9.0-24`, value(late));
    await eventually("the route is withdrawn", () => !routed(two) && !routed(three));
    await eventually("its own node says so", () => count(one, "own-subnet-holds-host") === 1);
    assert.ok(new Cidr(late, 16).contains(two.publicIp));
    for (const node of lab.nodes) {
      const isByLink = () => / dev eth0 /.test(ip(node, `route get ${late}`));
      await eventually(`${node.name} → ${late}`, isByLink);
    }
    etcd.ctl("del", `${PREFIX}/subnets/10.0.9.0-24`);
    await eventually("the route is back", () => routed(two) && routed(three));
    await podsTalk(pods);
  });
}

labTest("udp: a node turns out to have an address among the pods, and no route takes its packets", {
  nodes: 2,
  // None of the two has the subnets of the lease that comes late.
  netConf: { Network: "10.5.0.0/16", SubnetMax: "10.5.200.0", Backend: { Type: "udp" } },
}, async (lab) => {
  await lab.startAgents(NEVER);
  const pods = await Promise.all(lab.nodes.map((node) => node.addPod(`on-${node.name}`)));
  const [one, two] = lab.nodes as [LabNode, LabNode];
  const reach = async () => {
    using namespace = pods[0]!.open();
    return await ping(namespace, pods[1]!.address);
  };
  await eventually("pods talk", reach, 5_000);
  assert.match(ip(one, "route"), /^10\.5\.0\.0\/16 dev flannel0/m);
  // By the router, as no route of denim's but the default one leads there.
  const late = parseLease("10.5.250.0-24", '{"PublicIP":"10.5.251.7"}', {
    atMs: Date.now() + 60_000,
  });
  new SqliteLeases(`${lab.directory}/denim.db`).put([late]);
  await eventually("each subnet has a route of its own", () => {
    const routes = ip(one, "route");
    return !routes.includes("10.5.0.0/16") && routes.includes(`${two.subnet()} `) &&
      routes.includes("10.5.250.0/24 ");
  });
  assert.match(ip(one, "route get 10.5.251.7"), / via 10\.99\.0\.254 dev eth0 /);
  await eventually("pods talk on", reach, 5_000);
});
