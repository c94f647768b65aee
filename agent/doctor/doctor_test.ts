import { Cidr, IpAddress, parseSubnetEnv } from "@denim/core";
import type { LinkState } from "@denim/core/linux";
import { openTunnelSockets } from "@denim/core/linux/udp-socket";
import assert from "node:assert/strict";
import { rootTest } from "../../tests/support/root_test.ts";
import { sh } from "../../tests/support/sh.ts";
import { ScratchNamespace } from "../../tests/support/scratch_namespace.ts";
import { TempFolder } from "../../tests/support/temp_folder.ts";
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
    forwardDrops: () => [],
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
  { name, vxlan: { vni, port: 8472, outerIndex: 0 } as LinkState["vxlan"] } as Partial<LinkState>
);
const outerOf = (outerIndex: number) => (
  {
    name: "flannel.1",
    vxlan: { vni: 1, port: 8472, outerIndex } as LinkState["vxlan"],
  } as Partial<LinkState>
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
      files: { "/proc/net/ip_tables_names": "nat\nfilter\n" },
      programs: { "iptables-legacy -S": "-P INPUT ACCEPT\n-P FORWARD DROP\n" },
    },
    {
      subnetEnv: NODE,
      files: { "/proc/net/ip_tables_names": "nat\nfilter\n" },
      programs: { "iptables-legacy -S": "-P FORWARD DROP\n-A FORWARD -s 10.5.0.0/16 -j ACCEPT\n" },
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
  "mac-changed-by-udev": [
    {
      links: [vxlan("flannel.1")],
      files: {
        "/usr/lib/systemd/network/99-default.link":
          "[Match]\nOriginalName=*\n\n[Link]\nNamePolicy=keep\nMACAddressPolicy=persistent\n",
        "/sys/class/net/flannel.1/addr_assign_type": "1\n",
      },
    },
    {
      // As on every Debian: denim gives its devices their addresses.
      links: [vxlan("flannel.1"), vxlan("fl.2")],
      files: {
        "/usr/lib/systemd/network/99-default.link":
          "[Match]\nOriginalName=*\n\n[Link]\nMACAddressPolicy=persistent\n",
        "/etc/systemd/network/10-flannel.link":
          "[Match]\nOriginalName=flannel*\n\n[Link]\nMACAddressPolicy=none\n",
        "/etc/systemd/network/05-lan.link":
          "[Match]\nPath=pci-*\n\n[Link]\nMACAddress=02:00:00:00:00:01\n",
        "/sys/class/net/flannel.1/addr_assign_type": "1\n",
        "/sys/class/net/fl.2/addr_assign_type": "3\n",
      },
    },
  ],
  "mtu-too-large": [
    {
      links: [{ name: "eth0", index: 2, mtuBytes: 1400 }, { ...outerOf(2), mtuBytes: 1450 }],
    },
    {
      links: [{ name: "eth0", index: 2, mtuBytes: 1500 }, { ...outerOf(2), mtuBytes: 1450 }],
    },
  ],
  "files-short": [
    { files: { "/proc/sys/fs/file-nr": "950\t0\t1000\n" } },
    { files: { "/proc/sys/fs/file-nr": "3360\t0\t9223372036854775807\n" } },
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

rootTest("doctor: of a real host it is seen what drops pods' packets, and the remedy helps", () => {
  using namespace = new ScratchNamespace();
  const { networks } = NODE.halves[0]!;
  const drops = () => namespace.run(() => new ThisHost(PATHS).forwardDrops(networks));
  assert.deepEqual(drops(), []);
  namespace.run(() => sh("iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP"));
  const [drop, ...others] = drops();
  assert.deepEqual(others, []);
  assert.match(drop!.evidence, /chain FORWARD of nftables' table ip filter drops/);
  const [, withoutUfw] = drop!.remedy.split("without ufw, ");
  namespace.run(() => sh(withoutUfw!));
  assert.deepEqual(drops(), []);
});

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

/** What a made-up agent answers otherwise than one with which all is well. */
interface Answers {
  readonly ready?: boolean;
  readonly store?: Readonly<Record<string, unknown>>;
  readonly aheadSeconds?: number | null;
  readonly health?: string;
  readonly troubles?: readonly unknown[];
  readonly openFiles?: number;
}

const ANSWERS: Readonly<Record<string, Answers>> = {
  "agent-unready": { ready: false },
  "store-unreachable": { store: { reachable: false, outageSeconds: 70 } },
  "clock-skewed": { aheadSeconds: -61 },
  "path-mtu-too-small": { health: "mtu" },
  "peers-troubled": { health: "no-answer" },
  "clone-seen": { troubles: [{ subnet: "10.5.2.0/24", health: "clone", from: ["10.5.1.0-24"] }] },
  "agent-files-short": { openFiles: 1000 },
};

/** Has a made-up agent serve on a socket, asks the doctor, and gives what it finds. */
async function findingsWith(answers: Answers): Promise<string[]> {
  using folder = new TempFolder();
  const path = `${folder.path}/agent.sock`;
  const store = { reachable: true, outageSeconds: 0, description: "x" };
  const peer = { subnet: "10.5.2.0/24", publicIp: "10.99.0.2", pathMtuBytes: 1350 };
  const routes: Readonly<Record<string, unknown>> = {
    "/status": {
      ready: answers.ready ?? true,
      unready: "why",
      store: { ...store, ...answers.store },
    },
    "/peers": { peers: [{ ...peer, health: answers.health ?? "ok" }] },
    "/mesh": { troubles: answers.troubles ?? [] },
    "/clock": { aheadSeconds: answers.aheadSeconds ?? 0.4 },
    "/metrics": `process_open_fds ${answers.openFiles ?? 40}\nprocess_max_fds 1024\n`,
  };
  await using _agent = Deno.serve({ path, onListen() {} }, ({ url }) => {
    const answer = routes[new URL(url).pathname];
    return typeof answer === "string" ? new Response(answer) : Response.json(answer);
  });
  return await findings({ ...host({}), paths: { ...PATHS, apiSocket: path } });
}

for (const [name, wrong] of Object.entries(ANSWERS)) {
  Deno.test(`doctor: ${name} is found where the agent says so`, async () => {
    assert.deepEqual(await findingsWith(wrong), [name]);
  });
}

Deno.test("doctor: an agent with which all is well is no finding", async () => {
  assert.deepEqual(await findingsWith({}), []);
});

Deno.test("doctor: docs/troubleshooting.md has every finding", () => {
  const docs = Deno.readTextFileSync(
    new URL("../../docs/troubleshooting.md", import.meta.url),
  );
  const folder = new URL("./", import.meta.url);
  const names = [...Deno.readDirSync(folder)].filter(({ name }) => !name.endsWith("_test.ts"))
    .flatMap(({ name }) => {
      const text = Deno.readTextFileSync(new URL(name, folder));
      return [...text.matchAll(/\bname: "([a-z]+-[a-z-]+)"/g)].map(([, finding]) => finding!);
    });
  assert.ok(names.length > 20);
  assert.deepEqual(names.filter((name) => !docs.includes(`| \`${name}\``)), []);
});

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
