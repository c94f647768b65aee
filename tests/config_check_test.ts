/** `denim config check`: what an agent would refuse, and what this node would say. */

import assert from "node:assert/strict";
import { denimProgram, Lab, type LabNode } from "@denim/agent/lab";
import { EtcdServer } from "./support/etcd_server.ts";
import { ip } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { rootTest } from "./support/root_test.ts";
import { TempFolder } from "./support/temp_folder.ts";
import { NEVER } from "./support/wait.ts";

interface Outcome {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

async function outcome(child: Deno.ChildProcess): Promise<Outcome> {
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout), errors: decoder.decode(stderr) };
}

const PROGRAM = denimProgram("agent").slice(0, -1) as [string, ...string[]];
const PIPED = { stdin: "null", stdout: "piped", stderr: "piped" } as const;

function write(folder: string, netConf: object): string {
  const file = `${folder}/checked.json`;
  Deno.writeTextFileSync(file, JSON.stringify(netConf));
  return file;
}

const CONF = { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } };
const IPV6 = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };

/** What needs no node: net-conf's keys, flags, exit code, and what is said. */
const WITHOUT_NODE: readonly (readonly [
  what: string,
  netConf: object,
  flags: readonly string[],
  code: number,
  says: RegExp,
])[] = [
  [
    "an MTU that no node makes enough",
    { ...CONF, Backend: { Type: "vxlan", MTU: 100 } },
    [],
    2,
    /leaves 50/,
  ],
  ["the same by udp", { ...CONF, Backend: { Type: "udp", MTU: 90 } }, [], 2, /leaves 62 bytes/],
  [
    "the same for IPv6",
    { ...CONF, ...IPV6, Backend: { Type: "vxlan", MTU: 1300 } },
    [],
    2,
    /pods' IPv6/,
  ],
  ["no backend", { Network: "10.5.0.0/16" }, [], 0, /warning: net-conf names no Backend/],
  ["a flag of the agent's", CONF, ["--iface-regex", "("], 2, /--iface-regex/],
];

for (const [what, netConf, flags, code, says] of WITHOUT_NODE) {
  Deno.test(`config check: ${what}`, async () => {
    using folder = new TempFolder();
    const args = [...PROGRAM.slice(1), "config", "check", write(folder.path, netConf), ...flags];
    const result = await outcome(new Deno.Command(PROGRAM[0], { args, ...PIPED }).spawn());
    assert.equal(result.code, code, result.errors);
    assert.match(result.errors, says);
    assert.equal(result.output !== "", code === 0);
  });
}

Deno.test("config check: what etcd has against a net-conf: hosts among the pods, leases that do not fit", async () => {
  await using etcd = await EtcdServer.start();
  using folder = new TempFolder();
  const lease = (key: string, publicIp: string) =>
    etcd.ctl("put", `/coreos.com/network/subnets/${key}`, JSON.stringify({ PublicIP: publicIp }));
  lease("10.5.7.0-24", "10.5.9.9");
  lease("10.6.7.0-24", "10.99.0.2");
  const run = async (url: string) => {
    const file = write(folder.path, CONF);
    const args = [...PROGRAM.slice(1), "config", "check", file, "--etcd-endpoints", url];
    return await outcome(new Deno.Command(PROGRAM[0], { args, ...PIPED }).spawn());
  };
  const { code, errors } = await run(etcd.url);
  assert.equal(code, 0, errors);
  assert.deepEqual(errors.trimEnd().split("\n").map((line) => line.slice(0, 70)), [
    "denim config: warning: 10.5.9.9, the address of the node of 10.5.7.0-2",
    "denim config: warning: the lease 10.6.7.0-24 does not fit: its node ke",
  ]);
  const absent = await run("http://127.0.0.1:9");
  assert.equal(absent.code, 1);
  assert.match(absent.errors, /^denim config: etcd:.*ECONNREFUSED/);
});

/** What of a node may be wrong, and what is said of it then. */
const ON_NODE: readonly {
  readonly what: string;
  readonly netConf?: object;
  /** Commands of iproute2 that make it so; what `undo` has puts it right. */
  readonly make?: readonly string[];
  readonly undo?: readonly string[];
  readonly sysctl?: readonly (readonly [name: string, value: string, before: string])[];
  readonly flags?: readonly string[];
  readonly program?: readonly [string, ...string[]];
  readonly code: number;
  /** Each of these is said, in a line of its own, and nothing else is. */
  readonly says: readonly RegExp[];
}[] = [
  { what: "nothing", flags: ["--ip-masq"], code: 0, says: [] },
  {
    what: "nothing, in both families, by udp",
    netConf: { ...CONF, ...IPV6, Backend: { Type: "udp" } },
    code: 0,
    says: [],
  },
  {
    what: "nothing, by host-gw",
    netConf: { ...CONF, Backend: { Type: "host-gw" } },
    code: 0,
    says: [],
  },
  {
    what: "no such outer interface",
    flags: ["--iface", "eth9"],
    code: 2,
    says: [/no device matches --iface eth9; there are: .*eth0/],
  },
  {
    what: "NAT before host-gw",
    netConf: { ...CONF, Backend: { Type: "host-gw" } },
    flags: ["--iface", "eth0", "--public-ip", "203.0.113.7"],
    code: 2,
    says: [/host-gw: the public IP 203\.0\.113\.7 is not the address of eth0/],
  },
  {
    what: "an MTU that is lowered",
    netConf: { ...CONF, Backend: { Type: "vxlan", MTU: 9000 } },
    code: 0,
    says: [
      /warning: net-conf's Backend\.MTU is 9000, but device eth0 carries packets of at most 1500/,
    ],
  },
  {
    what: "a device that has the VNI",
    make: ["link add foreign type vxlan id 1 dstport 8472 dev eth0"],
    undo: ["link del foreign"],
    code: 1,
    says: [/device foreign has VNI 1 and UDP port 8472; remove it \(ip link del foreign\)/],
  },
  {
    what: "a device that has the name",
    make: ["link add flannel.1 type bridge"],
    undo: ["link del flannel.1"],
    code: 0,
    says: [/warning: device flannel\.1 is there and can't be changed .*: the agent deletes it/],
  },
  {
    what: "IPv6 that is off on the outer device",
    netConf: { ...CONF, ...IPV6 },
    sysctl: [["net/ipv6/conf/eth0/disable_ipv6", "1", "0"]],
    code: 2,
    says: [
      /the default routes of IPv4 and IPv6 leave by eth0 and none; .*; IPv6 is off there by sysctl net\.ipv6\.conf\.eth0\.disable_ipv6/,
    ],
  },
  {
    what: "the hosts' network, another device and a route in the pods'",
    netConf: { ...CONF, Network: "10.0.0.0/8" },
    make: [
      "link add eth2 type bridge",
      "addr add 10.7.0.1/24 dev eth2",
      "link set eth2 up",
      "route add 10.8.0.0/16 via 10.7.0.9",
    ],
    undo: ["link del eth2"],
    code: 0,
    says: [
      /warning: net-conf's pod network 10\.0\.0\.0\/8 overlaps the hosts' network: 10\.99\.0\.0\/24 is on the link/,
      /warning: device eth2 has 10\.7\.0\.1\/24, which is in the pod network 10\.0\.0\.0\/8/,
      /warning: a route to 10\.8\.0\.0\/16 by device eth2 is in the pod network/,
    ],
  },
  {
    what: "no rights",
    program: ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
    code: 1,
    says: [/denim agent changes the kernel's network and lacks CAP_NET_ADMIN; run it as root/],
  },
  {
    what: "settings that can't be written",
    program: [
      "unshare",
      "--mount",
      "sh",
      "-c",
      'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"',
      "sh",
    ],
    sysctl: [["net/ipv4/ip_forward", "0", "0"]],
    code: 1,
    says: [/IPv4 forwarding can't be switched on \(net\/ipv4\/ip_forward\): .*read-only/],
  },
];

/** Everything that a check may not change, but for link-local addresses, which come when the kernel has probed them. */
function view(node: LabNode): string {
  return ["link", "addr", "route show table all", "-6 route show table all"]
    .flatMap((command) => ip(node, command).split("\n"))
    .filter((line) => !line.includes("fe80:"))
    .join("\n");
}

labTest(
  "config check --node says what an agent on this node would",
  { nodes: 1, netConf: CONF },
  async (lab, t) => {
    const [node] = lab.nodes as [LabNode];
    using namespace = node.open();
    for (
      const {
        what,
        netConf = CONF,
        make = [],
        undo = [],
        sysctl = [],
        flags = [],
        program = [],
        code,
        says,
      } of ON_NODE
    ) {
      await t.step(what, async () => {
        for (const command of make) ip(node, command);
        namespace.run(() => {
          for (const [name, value] of sysctl) Deno.writeTextFileSync(`/proc/sys/${name}`, value);
        });
        const before = view(node);
        const args = [
          "config",
          "check",
          "--node",
          "--subnet-file",
          `${lab.directory}/none/subnet.env`,
        ];
        const words = [...program, ...PROGRAM, ...args, ...flags, write(lab.directory, netConf)];
        const result = await outcome(node.spawn(words as [string, ...string[]], PIPED));
        assert.equal(result.code, code, result.errors);
        const lines = result.errors.split("\n").filter((line) => line !== "");
        assert.equal(lines.length, says.length, result.errors);
        for (const [index, said] of says.entries()) assert.match(lines[index]!, said);
        assert.equal(view(node), before, "nothing is changed");
        for (const command of undo) ip(node, command);
        namespace.run(() => {
          for (const [name, , value] of sysctl) Deno.writeTextFileSync(`/proc/sys/${name}`, value);
        });
      });
    }
  },
);

rootTest(
  "config check --node beside a running agent: its own device and port are no obstacle",
  async () => {
    for (const type of ["vxlan", "udp"]) {
      await using lab = await Lab.create({
        nodes: 1,
        netConf: { ...CONF, Backend: { Type: type } },
      });
      const [node] = lab.nodes as [LabNode];
      await node.startAgent(NEVER);
      await node.addPod("pod");
      const words = [...PROGRAM, "config", "check", "--node", "--subnet-file", node.subnetFile];
      const result = await outcome(
        node.spawn([...words, ...lab.storeFlags] as [string, ...string[]], PIPED),
      );
      assert.deepEqual([result.code, result.errors], [0, ""]);
      if (type === "udp") {
        assert.match(
          result.output,
          /an agent runs here \(process \d+\) and has UDP port 8285/,
        );
      }
    }
  },
);
