import { Cidr, IpAddress, parseSubnetEnv } from "@denim/core";
import type { LinkState } from "@denim/core/linux";
import { openTunnelSockets } from "@denim/core/linux/udp-socket";
import assert from "node:assert/strict";
import { rootTest } from "../../tests/support/root_test.ts";
import { sh } from "../../tests/support/sh.ts";
import { ScratchNamespace } from "../../tests/support/scratch_namespace.ts";
import { type Host, ThisHost } from "./host.ts";
import { CHECKS } from "./mod.ts";

const PATHS = {
  subnetFile: "/nowhere/subnet.env",
  apiSocket: "/nowhere/agent.sock",
  cniConfDir: "/etc/cni/net.d",
  cniBinDir: "/opt/cni/bin",
};

/** What a host has otherwise than a clean one. */
interface Changes
  extends Partial<Omit<Host, "processes" | "links" | "networks" | "run" | "portUser">> {
  readonly files?: Readonly<Record<string, string>>;
  readonly processes?: readonly string[];
  readonly links?: readonly Partial<LinkState>[];
  readonly networks?: readonly (readonly [device: string, network: string])[];
  /** Who has which UDP port. */
  readonly ports?: Readonly<Record<number, string>>;
  /** What programs print, by their command line. */
  readonly programs?: Readonly<Record<string, string>>;
}

/** A made-up host, on which nothing is wrong but for the changes. */
function host(changes: Changes): Host {
  const { files = {}, processes = [], links = [], networks = [], programs = {} } = changes;
  return {
    paths: PATHS,
    subnetEnv: changes.subnetEnv,
    read: (path) => files[path],
    list: (path) =>
      Object.keys(files).filter((file) => file.startsWith(`${path}/`))
        .map((file) => file.slice(path.length + 1).split("/")[0]!).sort(),
    processes: new Set(processes),
    links: links as LinkState[],
    networks: networks.map(([device, network]) => ({ device, network: Cidr.parse(network) })),
    portUser: (port) => changes.ports?.[port],
    run: (program, ...args) => programs[[program, ...args].join(" ")],
    free: changes.free ?? (() => undefined),
  };
}

async function findings(on: Host): Promise<string[]> {
  const found = [];
  for (const check of CHECKS) found.push(...await check(on));
  for (const { evidence, remedy } of found) assert.ok(evidence.length > 10 && remedy.length > 10);
  return found.map(({ name }) => name);
}

/** A node on which an agent was ready. */
const NODE = parseSubnetEnv(
  "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
  "subnet.env",
);
/** What the check of the agent finds where none runs. */
const NO_AGENT = "agent-silent";
const vxlan = (name: string, vni = 1) => (
  { name, vxlan: { vni, port: 8472 } as LinkState["vxlan"] } as Partial<LinkState>
);
const denimConf = (...types: string[]) =>
  JSON.stringify({ name: "denim", plugins: ["denim", ...types].map((type) => ({ type })) });

/** A host on which WireGuard carried pods' packets, and one whose kernel has none. */
const KEY = { "/run/flannel/wgkey": "a secret" };
const MODULES = {
  "/proc/sys/kernel/osrelease": "6.1.0\n",
  "/lib/modules/6.1.0/modules.dep": ["vxlan", "bridge", "veth", "tun", "ipip", "nf_tables"]
    .map((name) => `k/${name}.ko:`).join("\n"),
};

const CASES: Readonly<Record<string, readonly [wrong: Changes, right: Changes]>> = {
  "module-missing": [
    {
      files: {
        "/proc/sys/kernel/osrelease": "6.1.0\n",
        "/lib/modules/6.1.0/modules.dep": "kernel/vxlan.ko: \nkernel/bridge.ko: \nkernel/tun.ko:",
        "/lib/modules/6.1.0/modules.builtin": "kernel/nf_tables.ko\nkernel/ipip.ko\n",
      },
    },
    {
      files: {
        "/proc/sys/kernel/osrelease": "6.1.0\n",
        "/lib/modules/6.1.0/modules.dep":
          "k/vxlan.ko.xz: \nk/bridge.ko: \nk/tun.ko: k/nf_tables.ko",
        "/sys/module/veth/refcnt": "1",
        "/sys/module/ipip/refcnt": "1",
      },
    },
  ],
  "flanneld-runs": [{ processes: ["flanneld"] }, { processes: ["denim"] }],
  "forwarding-off": [
    { subnetEnv: NODE, files: { "/proc/sys/net/ipv4/ip_forward": "0\n" } },
    { files: { "/proc/sys/net/ipv4/ip_forward": "0\n" } },
  ],
  "rp-filter-strict": [
    {
      links: [vxlan("flannel.1")],
      files: {
        "/proc/sys/net/ipv4/conf/all/rp_filter": "0",
        "/proc/sys/net/ipv4/conf/flannel.1/rp_filter": "1",
      },
    },
    {
      links: [vxlan("flannel.1")],
      files: {
        "/proc/sys/net/ipv4/conf/all/rp_filter": "2",
        "/proc/sys/net/ipv4/conf/flannel.1/rp_filter": "1",
      },
    },
  ],
  "forward-policy-drop": [
    {
      subnetEnv: NODE,
      programs: { "nft list chain ip filter FORWARD": "type filter hook forward; policy drop;" },
    },
    {
      subnetEnv: NODE,
      programs: {
        "nft list chain ip filter FORWARD": "policy drop;\nip saddr 10.5.0.0/16 accept",
      },
    },
  ],
  "firewall-active": [
    { links: [vxlan("flannel.1")], processes: ["firewalld"] },
    {
      links: [vxlan("flannel.1")],
      processes: ["firewalld"],
      programs: { "firewall-cmd --list-all-zones": "public\n  ports: 8472/udp" },
    },
  ],
  "iptables-legacy": [
    {
      files: { "/proc/net/ip_tables_names": "filter\nnat\n" },
      programs: { "nft list tables": "table ip denim" },
    },
    { files: { "/proc/net/ip_tables_names": "" }, programs: { "nft list tables": "table ip nat" } },
  ],
  "vxlan-conflict": [
    { links: [vxlan("cilium_vxlan")] },
    { links: [vxlan("flannel.1"), vxlan("other", 7)] },
  ],
  "wireguard-missing": [
    { files: { ...KEY, ...MODULES } },
    { files: { ...KEY, ...MODULES, "/usr/bin/wireguard-go": "" } },
  ],
  "wireguard-key-open": [
    { files: KEY, programs: { "stat -c %a /run/flannel/wgkey": "644\n" } },
    { files: KEY, programs: { "stat -c %a /run/flannel/wgkey": "600\n" } },
  ],
  "wireguard-port-taken": [
    { files: KEY, ports: { 51820: "wg0" } },
    { files: KEY, ports: { 51820: "wireguard-go", 51821: "flannel-wg-v6" } },
  ],
  "network-manager-interferes": [
    { processes: ["NetworkManager"] },
    {
      processes: ["NetworkManager"],
      files: {
        "/etc/NetworkManager/conf.d/k3s.conf":
          "[keyfile]\nunmanaged-devices=interface-name:cni0;interface-name:flannel*\n",
      },
    },
  ],
  "networkd-interferes": [
    { processes: ["systemd-network"] },
    {
      processes: ["systemd-network"],
      files: {
        "/etc/systemd/networkd.conf":
          "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
      },
    },
  ],
  "networks-overlap": [
    { subnetEnv: NODE, networks: [["eth0", "10.5.7.0/24"]] },
    { subnetEnv: NODE, networks: [["eth0", "10.6.7.0/24"], ["cni0", "10.5.1.0/24"]] },
  ],
  "cni-conf-unread": [
    { files: { "/etc/cni/net.d/10-x.conflist": "{" } },
    { files: { "/etc/cni/net.d/README": "{" } },
  ],
  "cni-conf-shadowed": [
    {
      files: {
        "/etc/cni/net.d/05-cilium.conflist": '{"name":"x","plugins":[{"type":"cilium-cni"}]}',
        "/etc/cni/net.d/10-denim.conflist": denimConf(),
      },
    },
    {
      files: {
        "/etc/cni/net.d/10-denim.conflist": denimConf(),
        "/etc/cni/net.d/87-podman.conflist": '{"name":"x","plugins":[{"type":"bridge"}]}',
        "/opt/cni/bin/denim": "",
      },
    },
  ],
  "cni-plugin-missing": [
    {
      files: {
        "/etc/cni/net.d/10-denim.conflist": denimConf("portmap"),
        "/opt/cni/bin/denim": "",
      },
    },
    {
      files: {
        "/etc/cni/net.d/10-denim.conflist": denimConf("portmap"),
        "/opt/cni/bin/denim": "",
        "/opt/cni/bin/portmap": "",
      },
    },
  ],
  "disk-full": [
    { free: (path) => path === "/var/lib/cni" ? { bytes: 1000, share: 0.5 } : undefined },
    { free: () => ({ bytes: 1e9, share: 0.5 }) },
  ],
};

for (const [name, [wrong, right]] of Object.entries(CASES)) {
  Deno.test(`doctor: ${name} is found where it is so, and nowhere else`, async () => {
    const others = (changes: Changes) => changes.subnetEnv === undefined ? [] : [NO_AGENT];
    assert.deepEqual((await findings(host(wrong))).sort(), [name, ...others(wrong)].sort());
    assert.deepEqual(await findings(host(right)), others(right));
  });
}

rootTest("doctor: of a real host it is seen who has a port", () => {
  using namespace = new ScratchNamespace();
  namespace.addOuterDevice();
  namespace.run(() => {
    using _taken = openTunnelSockets(IpAddress.parse("10.99.0.1"), 51820, 1, false)[0]!;
    const host = new ThisHost(PATHS);
    assert.equal(host.portUser(51820), "deno");
    assert.equal(host.portUser(51821), undefined);
  });
});

rootTest("doctor: of a real host it is seen which of WireGuard's devices has a port", () => {
  using namespace = new ScratchNamespace();
  namespace.ip("link add wg0 type wireguard");
  namespace.ip("link set wg0 up");
  const user = namespace.run(() => {
    const port = Number(sh("wg show wg0 listen-port"));
    return new ThisHost(PATHS).portUser(port);
  });
  assert.equal(user, "wg0");
}, { linkType: "wireguard" });

rootTest("doctor: a real host's devices and addresses are seen", () => {
  using namespace = new ScratchNamespace();
  namespace.addOuterDevice();
  namespace.ip("link add other type vxlan id 1 dstport 8472 dev eth0");
  const seen = namespace.run(() => {
    const { links, networks, processes } = new ThisHost(PATHS);
    assert.ok(processes.has("deno") || processes.has("denim"));
    return [
      links.filter(({ vxlan }) => vxlan?.port === 8472).map(({ name }) => name),
      networks.filter(({ device }) => device !== "lo").map(({ network }) => `${network}`),
    ];
  });
  assert.deepEqual(seen, [["other"], ["10.99.0.0/24"]]);
});
