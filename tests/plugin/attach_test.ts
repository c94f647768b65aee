import assert from "node:assert/strict";
import { IpAddress } from "@denim/core/ip";
import {
  findLink,
  isLocal,
  MessageWriter,
  NetlinkSocket,
  writeNewAddress,
} from "@denim/core/linux/attach";
import { hostInterfaceName, waitForAddress, waitForPort } from "../../plugin/bridge.ts";
import { rootTest } from "../support/root_test.ts";
import { ScratchNamespace } from "../support/scratch_namespace.ts";
import { StandardError } from "../support/standard_error.ts";
import { eventually } from "../support/wait.ts";
import { BridgeKeeper } from "./bridge_keeper.ts";
import {
  answersPing,
  GATEWAY,
  MTU_BYTES,
  PluginNode,
  reachesGateways,
  SUBNET,
  SUBNET6,
} from "./plugin_node.ts";

/** An interface, as iproute2 sees it. */
function interfaceOf(namespace: ScratchNamespace, device: string) {
  const [link] = namespace.ipJson(`addr show dev ${device}`);
  return {
    mac: link.address,
    mtu: link.mtu,
    up: link.operstate === "UP",
    addresses: link.addr_info.filter((info: { scope: string }) => info.scope === "global")
      .map(({ local, prefixlen }: { local: string; prefixlen: number }) => `${local}/${prefixlen}`),
  };
}

const eth0 = (pod: ScratchNamespace) => interfaceOf(pod, "eth0");

function routes(pod: ScratchNamespace, family = "-4"): string[] {
  return pod.ipJson(`${family} route show`)
    .filter(({ protocol }) => protocol !== "kernel")
    .map(({ dst, gateway }) => `${dst} via ${gateway}`).sort();
}

rootTest("ADD gives a pod its address, route and MTU, and the gateway answers", () => {
  using node = new PluginNode();
  const pod = node.pod();
  const forwarding = "/proc/sys/net/ipv4/ip_forward";
  node.namespace.run(() => Deno.writeTextFileSync(forwarding, "0"));
  const result = node.succeed("ADD", pod);
  const [bridge] = node.namespace.ipJson("addr show dev cni0");
  const host = hostInterfaceName({ containerId: pod.name, ifName: "eth0" });
  const { mac, ...rest } = eth0(pod);
  assert.deepEqual(rest, { mtu: MTU_BYTES, up: true, addresses: ["10.231.7.2/24"] });
  assert.deepEqual(routes(pod), ["10.231.0.0/16 via 10.231.7.1"]);
  assert.deepEqual(result, {
    cniVersion: "1.1.0",
    interfaces: [
      { name: "cni0", mac: bridge.address, mtu: MTU_BYTES },
      { name: host, mac: node.namespace.ipJson(`link show ${host}`)[0].address, mtu: MTU_BYTES },
      { name: "eth0", mac, mtu: MTU_BYTES, sandbox: pod.path },
    ],
    ips: [{ interface: 2, address: "10.231.7.2/24", gateway: "10.231.7.1" }],
    routes: [{ dst: "10.231.0.0/16" }],
  });
  assert.ok(answersPing(pod, GATEWAY));
  assert.equal(node.namespace.run(() => Deno.readTextFileSync(forwarding)), "1\n");
  assert.deepEqual(node.records(), [pod.name]);
  assert.equal(Deno.statSync(`${node.dataDir}/${pod.name}`).mode! & 0o777, 0o600);
});

rootTest("two pods reach each other, also with the largest packet", () => {
  using node = new PluginNode();
  const [first, second] = [node.pod(), node.pod()];
  node.succeed("ADD", first);
  node.succeed("ADD", second);
  const address = SUBNET.at(3n);
  assert.ok(answersPing(first, address, MTU_BYTES - 28));
  assert.throws(() => answersPing(first, address, MTU_BYTES - 27), { code: "EMSGSIZE" });
});

rootTest("ADD serves both families", () => {
  using node = new PluginNode({ dualStack: true });
  const [first, second] = [node.pod(), node.pod()];
  // As a runtime makes pods that shall have no IPv6 until they are told so.
  first.run(() => Deno.writeTextFileSync("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
  const result = node.succeed("ADD", first, { conf: node.conf({ cniVersion: "0.4.0" }) });
  node.succeed("ADD", second);
  assert.deepEqual(result.ips, [
    { version: "4", interface: 2, address: "10.231.7.2/24", gateway: "10.231.7.1" },
    {
      version: "6",
      interface: 2,
      address: "fc00:231:0:7::2/64",
      gateway: "fc00:231:0:7::1",
    },
  ]);
  assert.deepEqual(eth0(first).addresses, ["10.231.7.2/24", "fc00:231:0:7::2/64"]);
  assert.deepEqual(routes(first, "-6"), ["fc00:231::/48 via fc00:231:0:7::1"]);
  assert.ok(answersPing(first, SUBNET6.at(1n)));
  assert.ok(answersPing(first, SUBNET6.at(3n)));
  node.succeed("DEL", first);
  node.succeed("DEL", second);
  assert.deepEqual(node.leftovers(), []);
});

for (const [cniVersion, spoken] of [[undefined, "0.1.0"], ["0.2.0", "0.2.0"]] as const) {
  rootTest(`ADD and DEL serve a configuration of ${cniVersion ?? "no version"}`, () => {
    using node = new PluginNode({ dualStack: true });
    const pod = node.pod();
    const conf = node.conf({ cniVersion });
    assert.deepEqual(node.succeed("ADD", pod, { conf }), {
      cniVersion: spoken,
      ip4: {
        ip: "10.231.7.2/24",
        gateway: "10.231.7.1",
        routes: [{ dst: "10.231.0.0/16" }],
      },
      ip6: {
        ip: "fc00:231:0:7::2/64",
        gateway: "fc00:231:0:7::1",
        routes: [{ dst: "fc00:231::/48" }],
      },
    });
    assert.ok(reachesGateways(pod));
    node.succeed("DEL", pod, { conf });
    assert.deepEqual(node.leftovers(), []);
  });
}

rootTest("the first pod's IPv6 works at once, also for who writes to it first", async () => {
  using node = new PluginNode({ dualStack: true });
  using outside = new ScratchNamespace();
  const pod = node.pod();
  node.namespace.ip(`link add uplink type veth peer name eth0 netns ${outside.name}`);
  for (
    const [namespace, device, host] of [[node.namespace, "uplink", 1], [
      outside,
      "eth0",
      2,
    ]] as const
  ) {
    namespace.ip(`addr add fc00:99::${host}/64 dev ${device} nodad`);
    namespace.ip(`link set ${device} up`);
  }
  outside.ip("route add fc00:231::/48 via fc00:99::1");
  // The test's own link may be probed; the plugin's shall not.
  await eventually("the way is there", () => answersPing(outside, IpAddress.parse("fc00:99::1")));
  node.succeed("ADD", pod, { conf: node.conf({ ipam: { routes: [{ dst: "fc00:99::/64" }] } }) });
  for (const [namespace, device] of [[node.namespace, "cni0"], [pod, "eth0"]] as const) {
    const addresses = () => namespace.ipJson(`-6 addr show dev ${device}`)[0].addr_info;
    await eventually(
      `${device} has a link-local address`,
      () => addresses().some(({ scope }: { scope: string }) => scope === "link"),
    );
    const isTentative = ({ tentative }: { tentative?: boolean }) => tentative;
    // For a moment the kernel calls an address tentative in any case; a probe takes it a second.
    const probed = () => addresses().some(isTentative);
    await eventually(`${device} has its addresses without a probe`, () => !probed(), 500);
  }
  assert.ok(answersPing(outside, SUBNET6.at(2n)));
});

rootTest("after waitForAddress the kernel takes packets for an IPv6 address that is new", () => {
  using node = new ScratchNamespace();
  node.ip("link add name port type veth peer name other");
  for (const device of ["port", "other"]) node.ip(`link set ${device} up`);
  node.run(() => {
    using socket = new NetlinkSocket();
    const { index } = findLink(socket, "port")!;
    // The kernel is not always late.
    for (let host = 1n; host <= 250n; host++) {
      const address = SUBNET6.at(host);
      const batch = new MessageWriter();
      writeNewAddress(batch, index, address, SUBNET6.prefixLength);
      socket.send(batch);
      waitForAddress(socket, index, address);
      assert.ok(isLocal(socket, address), `${address}`);
    }
  });
});

rootTest("with enabledad an IPv6 address has been probed when ADD is done", () => {
  using node = new PluginNode({ dualStack: true });
  const pod = node.pod();
  node.succeed("ADD", pod, { conf: node.conf({ delegate: { enabledad: true } }) });
  const [link] = pod.ipJson("-6 addr show dev eth0");
  const address = link.addr_info.find((info: { scope: string }) => info.scope === "global");
  assert.equal(address.tentative, undefined);
  assert.equal(address.nodad, undefined);
  assert.ok(answersPing(pod, SUBNET6.at(1n)));
});

rootTest("isDefaultGateway gives a default route, and a user's own goes before it", () => {
  using node = new PluginNode();
  const [first, second] = [node.pod(), node.pod()];
  const delegate = { isDefaultGateway: true };
  const result = node.succeed("ADD", first, { conf: node.conf({ delegate }) });
  assert.deepEqual(result.routes, [
    { dst: "10.231.0.0/16" },
    { dst: "0.0.0.0/0", gw: "10.231.7.1" },
  ]);
  assert.deepEqual(routes(first), ["10.231.0.0/16 via 10.231.7.1", "default via 10.231.7.1"]);
  const ipam = { routes: [{ dst: "0.0.0.0/0", gw: "10.231.7.9" }] };
  node.succeed("ADD", second, { conf: node.conf({ delegate, ipam }) });
  assert.deepEqual(routes(second), ["10.231.0.0/16 via 10.231.7.1", "default via 10.231.7.9"]);
});

rootTest("a route has the metric, table and sizes that it asks for", () => {
  using node = new PluginNode();
  const pod = node.pod();
  const route = { dst: "10.9.0.0/16", mtu: 1300, advmss: 1200, priority: 7, table: 1000 };
  node.succeed("ADD", pod, { conf: node.conf({ ipam: { routes: [route] } }) });
  const [found] = pod.ipJson("-d route show table 1000");
  assert.deepEqual(
    [found.dst, found.gateway, found.metric, found.metrics],
    ["10.9.0.0/16", "10.231.7.1", 7, [{ mtu: 1300, advmss: 1200 }]],
  );
});

rootTest("hairpinMode, promiscMode, mtu and a MAC are as asked", () => {
  using node = new PluginNode();
  const [first, second] = [node.pod(), node.pod()];
  const mac = "02:00:00:00:12:34";
  node.succeed("ADD", first, {
    conf: node.conf({ delegate: { hairpinMode: true, mtu: 1400 }, runtimeConfig: { mac } }),
  });
  assert.equal(eth0(first).mac, mac);
  assert.equal(eth0(first).mtu, 1400);
  const port = () => node.namespace.ipJson(`-d link show ${node.veths()[0]}`)[0];
  assert.equal(port().linkinfo.info_slave_data.hairpin, true);
  assert.equal(port().mtu, 1400);
  node.succeed("DEL", first);
  node.succeed("ADD", second, { conf: node.conf({ delegate: { promiscMode: true } }) });
  assert.equal(port().linkinfo.info_slave_data.hairpin, false);
  assert.ok(node.namespace.ipJson("link show cni0")[0].flags.includes("PROMISC"));
});

for (
  const [name, prepare, delegate] of [
    ["denim's own bridge", () => {}, { isGateway: false }],
    ["a bridge that was there", (node) => node.namespace.ip("link add cni0 type bridge"), {}],
  ] as readonly [string, (node: PluginNode) => void, unknown][]
) {
  rootTest(`${name} keeps its Ethernet address when pods come and go`, () => {
    using node = new PluginNode();
    prepare(node);
    const mac = () => node.namespace.ipJson("link show cni0")[0].address;
    const pods = Array.from({ length: 4 }, () => node.pod());
    node.succeed("ADD", pods[0]!, { conf: node.conf({ delegate }) });
    const first = mac();
    for (const pod of pods.slice(1)) {
      const { interfaces } = node.succeed("ADD", pod, { conf: node.conf({ delegate }) });
      // The lowest address of all ports is what an unfixed bridge would take.
      node.namespace.ip(
        `link set ${interfaces[1].name} address 00:00:00:00:00:0${pods.indexOf(pod)}`,
      );
      assert.deepEqual([interfaces[0].mac, mac()], [first, first]);
      node.succeed("DEL", pod);
      assert.equal(mac(), first);
    }
  });
}

rootTest("waitForPort returns as soon as the port is up", async () => {
  using node = new ScratchNamespace();
  node.ip("link add port type veth peer name peer");
  node.ip("link set port up");
  using socket = node.run(() => new NetlinkSocket());
  const down = findLink(socket, "port")!;
  assert.equal(down.operUp, false);
  const later = new Deno.Command("sh", {
    args: ["-c", `sleep 0.1; ip -n ${node.name} link set peer up`],
  }).spawn();
  assert.equal(waitForPort(socket, down).operUp, true);
  assert.ok((await later.status).success);
});

rootTest("an MTU that no pod's device can have is lowered, and the first ADD says so", () => {
  using node = new PluginNode();
  const [first, second] = [node.pod(), node.pod()];
  const env = Deno.readTextFileSync(node.subnetFile);
  Deno.writeTextFileSync(node.subnetFile, env.replace(`MTU=${MTU_BYTES}`, "MTU=65536"));
  using told = new StandardError();
  for (const pod of [first, second]) {
    const { interfaces } = node.succeed("ADD", pod);
    assert.deepEqual(
      interfaces.map(({ mtu }: { mtu: number }) => mtu),
      [65_535, 65_535, 65_535],
    );
  }
  assert.deepEqual(told.lines, [
    `${node.subnetFile}: FLANNEL_MTU is 65536, more than a pod's device can have; pods get 65535`,
  ]);
  assert.ok(answersPing(first, SUBNET.at(3n), 65_000));
});

rootTest("a requested address is given", () => {
  using node = new PluginNode();
  const pod = node.pod();
  node.succeed("ADD", pod, { args: "IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.231.7.77" });
  assert.deepEqual(eth0(pod).addresses, ["10.231.7.77/24"]);
});

rootTest("without isGateway the bridge has no address, whatever an agent does", async () => {
  using node = new PluginNode({ dualStack: true });
  await using agent = new BridgeKeeper(node);
  const pods = [node.pod(), node.pod(), node.pod(), node.pod()] as const;
  const conf = node.conf({ delegate: { isGateway: false } });
  const addresses = () => interfaceOf(node.namespace, "cni0").addresses;
  const gateways = ["10.231.7.1/24", "fc00:231:0:7::1/64"];
  for (const pod of pods.slice(0, 2)) {
    const { ips } = node.succeed("ADD", pod, { conf });
    assert.deepEqual([ips[0].gateway, addresses()], ["10.231.7.1", []]);
    agent.check();
    assert.deepEqual(addresses(), []);
  }
  // Also for an agent that is started only now.
  await agent.restart();
  assert.deepEqual(addresses(), []);
  // A network that has its gateway there shares the bridge.
  const other = { conf: node.conf({ name: "othernet" }) };
  node.succeed("ADD", pods[2], other);
  assert.ok(reachesGateways(pods[2]));
  node.namespace.ip("addr flush dev cni0");
  await eventually("the agent mends it", () => `${addresses()}` === `${gateways}`);
  node.succeed("ADD", pods[3], { conf });
  assert.deepEqual(addresses(), gateways);
  // Once nobody has, the agent takes back what it gave.
  node.succeed("DEL", pods[2], other);
  node.succeed("DEL", pods[3], { conf });
  node.succeed("ADD", pods[3], { conf });
  await eventually("the agent lets go", () => addresses().length === 0);
});

rootTest("dns comes from the configuration, else from ipam.resolvConf", () => {
  using node = new PluginNode();
  const resolvConf = `${node.directory}/resolv.conf`;
  Deno.writeTextFileSync(resolvConf, "nameserver 10.96.0.10\n");
  const dns = { nameservers: ["10.0.0.9"], search: ["a.b"] };
  const ipam = { resolvConf };
  assert.deepEqual(node.succeed("ADD", node.pod(), { conf: node.conf({ dns, ipam }) }).dns, dns);
  assert.deepEqual(node.succeed("ADD", node.pod(), { conf: node.conf({ ipam }) }).dns, {
    nameservers: ["10.96.0.10"],
  });
});

rootTest("DEL takes away all, and again is fine", async () => {
  using node = new PluginNode();
  const [pod, other] = [node.pod(), node.pod()];
  node.succeed("ADD", pod);
  node.succeed("ADD", other);
  Deno.removeSync(node.subnetFile);
  for (let turn = 0; turn < 2; turn++) {
    assert.equal(await node.succeedAsProcess("DEL", pod), undefined);
    assert.deepEqual(pod.ipJson("link show type veth"), []);
    assert.deepEqual(node.leftovers(), [
      "10.231.7.3",
      other.name,
      hostInterfaceName({ containerId: other.name, ifName: "eth0" }),
    ]);
  }
});

for (
  const [name, netns] of [
    ["is not told", ""],
    ["is not there", "/nowhere/netns"],
    ["is a file left behind", "/etc/hostname"],
  ] as const
) {
  rootTest(`DEL finds the interface where the namespace ${name}`, () => {
    using node = new PluginNode();
    const pod = node.pod();
    node.succeed("ADD", pod);
    node.succeed("DEL", pod, { netns });
    assert.deepEqual(node.leftovers(), []);
    assert.deepEqual(pod.ipJson("link show type veth"), []);
  });
}

rootTest("several interfaces of a container leave each other alone", () => {
  using node = new PluginNode();
  const pod = node.pod();
  const second = {
    ifName: "net1",
    conf: node.conf({ name: "othernet", delegate: { bridge: "br1" } }),
  };
  node.succeed("ADD", pod);
  node.succeed("ADD", pod, { ifName: "eth1" });
  node.succeed("ADD", pod, second);
  assert.deepEqual(node.addressFiles(), ["10.231.7.2", "10.231.7.3"]);
  node.succeed("DEL", pod, { ifName: "eth1" });
  assert.deepEqual(node.addressFiles(), ["10.231.7.2"]);
  assert.deepEqual(node.records(), [pod.name]);
  node.succeed("DEL", pod);
  // The record is the last ADD's, which is still there.
  assert.deepEqual([node.addressFiles(), node.records()], [[], [pod.name]]);
  assert.deepEqual(pod.ipJson("link show type veth").map(({ ifname }) => ifname), ["net1"]);
  node.succeed("DEL", pod, second);
  assert.deepEqual(node.leftovers(), []);
  assert.deepEqual(
    [...Deno.readDirSync(`${node.directory}/networks/othernet`)].map(({ name }) => name).sort(),
    ["last_reserved_ip.0", "lock"],
  );
});

rootTest("an ADD removes what one before it left when it was cut off", () => {
  using node = new PluginNode();
  const [pod, again] = [node.pod(), node.pod()];
  node.succeed("ADD", pod);
  for (const name of node.addressFiles()) Deno.removeSync(`${node.addressDirectory}/${name}`);
  node.succeed("ADD", again, { containerId: pod.name });
  assert.deepEqual(pod.ipJson("link show type veth"), []);
  assert.ok(answersPing(again, GATEWAY));
});

/** What a bridge has before an ADD, and has after it. */
const ADDRESSES: readonly [
  string,
  readonly string[],
  readonly string[],
  { readonly forceAddress?: boolean },
][] = [
  [
    "an address of a subnet that the node no longer has goes",
    ["10.231.9.1/24", "fc00:231:0:9::1/64"],
    ["10.231.7.1/24", "fc00:231:0:7::1/64"],
    {},
  ],
  [
    "one that is in the gateway's place goes",
    ["10.231.7.9/24", "10.231.7.1/24", "fc00:231:0:7::1/48"],
    ["10.231.7.1/24", "fc00:231:0:7::1/64"],
    {},
  ],
  [
    "one of a larger subnet goes, beside the gateway's",
    ["10.231.0.1/16", "10.231.7.1/24"],
    ["10.231.7.1/24", "fc00:231:0:7::1/64"],
    {},
  ],
  [
    "one from outside the cluster's network stays",
    ["192.168.9.1/24", "10.0.0.1/8", "fd00:9::1/64"],
    ["10.0.0.1/8", "10.231.7.1/24", "192.168.9.1/24", "fc00:231:0:7::1/64", "fd00:9::1/64"],
    {},
  ],
  [
    "forceAddress makes room for the gateway's",
    ["192.168.9.1/24", "fd00:9::1/64", "fc00::1/16"],
    ["10.231.7.1/24", "fc00:231:0:7::1/64", "fd00:9::1/64"],
    { forceAddress: true },
  ],
];
for (const [name, before, after, delegate] of ADDRESSES) {
  rootTest(`cni0's addresses: ${name}`, () => {
    using node = new PluginNode({ dualStack: true });
    const pods = [node.pod(), node.pod()];
    node.namespace.ip("link add cni0 type bridge");
    for (const address of before) node.namespace.ip(`addr add ${address} dev cni0`);
    // The second time there is nothing left to do.
    for (const pod of pods) {
      node.succeed("ADD", pod, { conf: node.conf({ delegate }) });
      assert.deepEqual(interfaceOf(node.namespace, "cni0").addresses.sort(), after);
      assert.ok(reachesGateways(pod));
    }
  });
}

/** Changes that make an ADD fail late, and what it says. */
const LATE: readonly [string, (node: PluginNode) => unknown, number, RegExp][] = [
  [
    "a route that the kernel refuses",
    (node) => node.conf({ ipam: { routes: [{ dst: "10.9.0.0/16", gw: "192.0.2.1" }] } }),
    102,
    /make the route to 10\.9\.0\.0\/16 via 192\.0\.2\.1: .*\(ENETUNREACH\)/,
  ],
  [
    "a record that can't be written",
    (node) => node.conf({ dataDir: `${node.subnetFile}/flannel` }),
    5,
    /Not a directory|not a directory|ENOTDIR/,
  ],
  [
    "a bridge that is none",
    (node) => {
      node.namespace.ip("link add notbr type veth peer name other");
      return node.conf({ delegate: { bridge: "notbr" } });
    },
    101,
    /notbr is not a bridge \(it is veth\)/,
  ],
];
for (const [name, confOf, code, message] of LATE) {
  rootTest(`an ADD that fails late takes back what it made: ${name}`, () => {
    using node = new PluginNode();
    const pod = node.pod();
    const { json } = node.call("ADD", pod, { conf: confOf(node) });
    assert.match(json.msg, message);
    assert.equal(json.code, code);
    const strangers = ["notbr", "other"];
    assert.deepEqual(node.leftovers().filter((left) => !strangers.includes(left)), []);
    assert.deepEqual(pod.ipJson("link show type veth"), []);
  });
}

rootTest("a second ADD is refused, and harms nothing", () => {
  using node = new PluginNode();
  const [pod, other] = [node.pod(), node.pod()];
  node.succeed("ADD", pod);
  const before = node.leftovers();
  assert.match(node.call("ADD", pod).json.msg, /has an interface eth0 already/);
  const { json } = node.call("ADD", other, { containerId: pod.name });
  assert.match(json.msg, new RegExp(`${pod.name} eth0 has 10\\.231\\.7\\.2 already`));
  assert.equal(json.code, 101);
  assert.deepEqual(node.leftovers(), before);
  assert.ok(answersPing(pod, GATEWAY));
});

/** Starts a process in a namespace; its path of the namespace. */
function startIn(namespace: ScratchNamespace): { netns: string } & AsyncDisposable {
  const child = namespace.run(() => new Deno.Command("sleep", { args: ["60"] }).spawn());
  return {
    netns: `/proc/${child.pid}/ns/net`,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
    },
  };
}

rootTest("the node's own namespace is not a container's, and DEL leaves it alone", async () => {
  using node = new PluginNode({ dualStack: true });
  const [pod, fresh] = [node.pod(), node.pod()];
  node.succeed("ADD", pod);
  // The pod's process has ended, and a process of the node has its number.
  await using host = startIn(node.namespace);
  node.namespace.ip("link add eth0 type veth peer name eth1");
  node.namespace.ip("addr add 10.231.7.2/24 dev eth0");
  const { netns } = host;
  const { code, json } = node.call("ADD", fresh, { netns });
  assert.match(json.msg, /is the plugin's own network namespace/);
  assert.deepEqual([code, json.code], [1, 8]);
  for (let turn = 0; turn < 2; turn++) {
    assert.equal(node.succeed("DEL", pod, { netns }), undefined);
    assert.deepEqual(node.leftovers(), ["eth1", "eth0"]);
    assert.deepEqual(interfaceOf(node.namespace, "eth0").addresses, ["10.231.7.2/24"]);
  }
});

rootTest("DEL leaves the container alone that has the former one's process number", async () => {
  using node = new PluginNode({ dualStack: true });
  const [gone, other] = [node.pod(), node.pod()];
  for (const pod of [gone, other]) node.succeed("ADD", pod);
  await using process = startIn(other);
  gone.ip("link del eth0"); // as it goes with the namespace
  node.succeed("DEL", gone, { netns: process.netns });
  assert.deepEqual(node.records(), [other.name]);
  assert.deepEqual(node.addressFiles(), ["10.231.7.3", "fc00:231:0:7::3"]);
  assert.ok(reachesGateways(other));
});

rootTest("a full subnet says so", () => {
  using node = new PluginNode();
  Deno.mkdirSync(node.addressDirectory, { recursive: true });
  for (const host of Array.from({ length: 253 }, (_, index) => SUBNET.at(BigInt(index + 2)))) {
    Deno.writeTextFileSync(`${node.addressDirectory}/${host}`, "other\r\neth0");
  }
  const { json } = node.call("ADD", node.pod());
  assert.match(json.msg, /no address is free in 10\.231\.7\.0\/24/);
  assert.equal(json.code, 100);
});
