import { Cidr } from "@denim/core";
import { NetlinkSocket } from "@denim/core/linux";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { rootTest } from "../tests/support/root_test.ts";
import { ScratchNamespace } from "../tests/support/scratch_namespace.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";
import { type HostView, logLeftovers, readCniConfs, viewNode } from "./leftovers.ts";

const DENIM = '{"name":"denim","plugins":[{"type":"denim"},{"type":"portmap"}]}';
const FLANNEL = '{"name":"cbr0","plugins":[{"type":"flannel","delegate":{"hairpinMode":true}}]}';
const PODMAN = '{"name":"podman","plugins":[{"type":"bridge","bridge":"cni-podman0"}]}';
const SINGLE = '{"name":"denim","type":"denim"}';

/** The files of a folder, and what is said of them. */
const FOLDERS: readonly [string, Readonly<Record<string, string>>, RegExp | undefined][] = [
  ["denim's alone", { "10-denim.conflist": DENIM }, undefined],
  ["denim's first", { "10-denim.conf": SINGLE, "10-flannel.conflist": FLANNEL }, undefined],
  ["flannel's alone, whose chain works with denim", { "10-flannel.conflist": FLANNEL }, undefined],
  ["neither: pods may come without CNI", { "87-podman.conflist": PODMAN }, undefined],
  [
    "what no runtime reads",
    { "00-flannel.conflist.bak": FLANNEL, "10-denim.conf": SINGLE },
    undefined,
  ],
  [
    "flannel's first",
    { "05-flannel.conflist": FLANNEL, "10-denim.conflist": DENIM },
    /\/05-flannel\.conflist comes before 10-denim\.conflist and has the plugin flannel; remove it/,
  ],
  [
    "another's before flannel's",
    { "10-flannel.conflist": FLANNEL, "05-podman.conflist": PODMAN },
    /\/05-podman\.conflist comes before 10-flannel\.conflist and has the plugin bridge/,
  ],
  [
    "a damaged one first",
    { "00-x.json": "{", "10-denim.conflist": DENIM },
    /\/00-x\.json comes before 10-denim\.conflist and cannot be read as one/,
  ],
  [
    "one that is none first",
    { "00-x.conf": '{"plugins":7}', "10-denim.conflist": DENIM },
    /\/00-x\.conf comes before 10-denim\.conflist and cannot be read as one/,
  ],
];

function logged(view: HostView): string[] {
  const log = new RecordingLog();
  logLeftovers(view, log);
  return log.records.map(({ message }) => message);
}

const NOTHING = { links: [], addresses: [], networks: [], subnets: [], devices: [] };

for (const [name, files, expected] of FOLDERS) {
  Deno.test(`leftovers: CNI configurations: ${name}`, () => {
    using folder = new TempFolder();
    for (const [file, text] of Object.entries(files)) {
      Deno.writeTextFileSync(`${folder.path}/${file}`, text);
    }
    const cniConfs = readCniConfs(folder.path);
    const found = logged({ ...NOTHING, cniConfs });
    assert.equal(found.length, expected === undefined ? 0 : 1, found.join());
    if (expected !== undefined) assert.match(found[0]!, expected);
  });
}

Deno.test("leftovers: a folder that is not there has no CNI configurations", () => {
  assert.deepEqual(readCniConfs("/nowhere/net.d"), []);
});

/** What makes a device, and what is said of it; `undefined` if nothing. */
const DEVICES: readonly [string, readonly string[], RegExp | undefined][] = [
  ["denim's own", [
    "link add flannel.1 type vxlan id 1 dstport 8472",
    "addr add 10.5.3.0/32 dev flannel.1",
  ], undefined],
  ["the pods' bridge", ["link add cni0 type bridge", "addr add 10.5.3.1/24 dev cni0"], undefined],
  ["the pods' bridge with a former subnet", [
    "link add cni0 type bridge",
    "addr add 10.5.9.1/24 dev cni0",
  ], undefined],
  [
    "Docker's own network",
    ["link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0"],
    undefined,
  ],
  ["another cluster's", [
    "link add flannel.2 type vxlan id 2 dstport 8472",
    "addr add 10.6.3.0/32 dev flannel.2",
  ], undefined],
  ["a card in the cluster's network", ["addr add 10.5.200.1/24 dev eth0"], undefined],
  ["a VPN in it", ["tuntap add mode tun name tun0", "addr add 10.5.200.2/24 dev tun0"], undefined],
  [
    "Docker's with flanneld's options",
    ["link add docker0 type bridge", "addr add 10.5.3.1/24 dev docker0"],
    /^the bridge docker0 has the pods' gateway 10\.5\.3\.1\/24, .*10-denim\.conflist has pods attached to cni0: .* ip addr del 10\.5\.3\.1\/24 dev docker0/,
  ],
  [
    "Docker's with a former subnet",
    ["link add docker0 type bridge", "addr add 10.5.9.1/24 dev docker0"],
    /^the bridge docker0 has 10\.5\.9\.1\/24, and this node's subnet is 10\.5\.3\.0\/24 and .*: .* ip addr del 10\.5\.9\.1\/24 dev docker0, or restart Docker/,
  ],
  [
    "a VXLAN device with another VNI",
    ["link add flannel.7 type vxlan id 7 dstport 8472", "addr add 10.5.3.0/32 dev flannel.7"],
    /^the device flannel\.7 has 10\.5\.3\.0\/32 .* run ip link delete flannel\.7$/,
  ],
  [
    "an IPv6 device of another VNI",
    [
      "link add flannel-v6.7 type vxlan id 7 dstport 8472",
      "addr add fc00:5:0:3::/128 dev flannel-v6.7",
    ],
    /^the device flannel-v6\.7 has fc00:5:0:3::\/128 .* run ip link delete flannel-v6\.7$/,
  ],
  [
    "udp's device",
    ["tuntap add mode tun name flannel0", "addr add 10.5.3.0/16 dev flannel0"],
    /^the device flannel0 has 10\.5\.3\.0\/16 .* run ip link delete flannel0$/,
  ],
];

for (const [name, commands, expected] of DEVICES) {
  rootTest(`leftovers: devices: ${name}`, () => {
    using namespace = new ScratchNamespace();
    namespace.ip("link add eth0 type veth peer name eth1");
    for (const command of commands) namespace.ip(command);
    const view = namespace.run(() => {
      using socket = new NetlinkSocket();
      return viewNode(socket, "/nowhere/net.d");
    });
    const found = logged({
      ...view,
      cniConfs: [{ path: "/etc/cni/net.d/10-denim.conflist", plugins: [{ type: "denim" }] }],
      networks: [Cidr.parse("10.5.0.0/16"), Cidr.parse("fc00:5::/48")],
      subnets: [Cidr.parse("10.5.3.0/24"), Cidr.parse("fc00:5:0:3::/64")],
      devices: ["eth1", "flannel.1"],
    });
    assert.equal(found.length, expected === undefined ? 0 : 1, found.join());
    if (expected !== undefined) assert.match(found[0]!, expected);
  });
}
