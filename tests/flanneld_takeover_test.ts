/**
 * denim in the place of a real flanneld, under a download. For the path of a flanneld in `DENIM_TEST_FLANNELD`: no
 * distribution has one to install.
 */

import { NetworkNamespace } from "@denim/core/linux/namespace";
import { Lab, type LabNode, type Pod } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { EtcdServer } from "./support/etcd_server.ts";
import { rootTest } from "./support/root_test.ts";
import { sh, shIn } from "./support/sh.ts";
import { eventually, NEVER } from "./support/wait.ts";

const FLANNELD = Deno.env.get("DENIM_TEST_FLANNELD");
const ETCD_HOST = "10.99.0.254";
const OUTSIDE = ["10.99.0.200", "fd99::200"] as const;
/** What is downloaded, in bytes, and how fast, in bytes a second: for some eight seconds. */
const SIZE = 32 * 1024 * 1024, RATE = 4 * 1024 * 1024;

/** What flanneld and denim masquerade by. */
const ENGINES = {
  nftables: { EnableNFTables: true },
  "iptables-nft": { EnableNFTables: false },
  "iptables-legacy": { EnableNFTables: false },
};

for (const [engine, more] of Object.entries(ENGINES)) {
  const test = FLANNELD === undefined ? Deno.test.ignore : rootTest;
  const why = FLANNELD === undefined ? " (needs DENIM_TEST_FLANNELD)" : "";
  test(`denim takes flanneld's place, by ${engine}: a download goes on${why}`, async () => {
    const netConf = {
      Network: "10.5.0.0/16",
      EnableIPv6: true,
      IPv6Network: "fc00:5::/48",
      Backend: { Type: "vxlan" },
      ...more,
    };
    const storeFlags = ["--etcd-endpoints", `http://${ETCD_HOST}:2379`];
    await using lab = await Lab.create({ nodes: 1, netConf, storeFlags });
    const [node] = lab.nodes as [LabNode];
    using underlay = NetworkNamespace.open(`/run/netns/${lab.prefix}-net`);
    underlay.run(() => sh("ip link set lo up"));
    await using etcd = await EtcdServer.start({ namespace: underlay, host: ETCD_HOST });
    etcd.ctl("put", "/coreos.com/network/config", JSON.stringify(netConf));
    await using _server = await serve(lab, underlay);
    const path = pathWith(lab, engine);

    const flanneld = node.spawn([
      FLANNELD!,
      ...[...storeFlags, "--iface=eth0", "--ip-masq", "--subnet-file", node.subnetFile],
    ], {
      env: { PATH: path },
      stdin: "null",
      stdout: "null",
      logFile: `${node.directory}/flanneld`,
    });
    await eventually("flanneld is ready", () => {
      try {
        return Deno.readTextFileSync(node.subnetFile).includes("FLANNEL_IPV6_SUBNET");
      } catch {
        return false;
      }
    });
    const pod = await node.addPod("pod");
    await eventually("flanneld's rules are there", () => /flannel/i.test(rules(node)));
    const downloads = OUTSIDE.map((host) => download(lab, pod, host));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    flanneld.kill("SIGTERM");
    await flanneld.status;
    await node.startAgent(NEVER, ["--ip-masq"]);
    await eventually(
      "nothing of flanneld's is left",
      () => !/flanneld|flannel-ipv/.test(rules(node)),
    );
    for (const done of downloads) assert.equal(await done, SIZE);
    assert.equal(/FLANNEL-POSTRTG/.test(rules(node)), engine !== "nftables");
    await node.stopAgent();
  });
}

/** iptables is the one of the engine. */
function pathWith(lab: Lab, engine: string): string {
  const path = Deno.env.get("PATH")!;
  if (engine !== "iptables-legacy") return path;
  const folder = `${lab.directory}/bin`;
  Deno.mkdirSync(folder);
  for (const name of ["iptables", "ip6tables", "iptables-restore", "ip6tables-restore"]) {
    const target = name.replace("tables", "tables-legacy");
    Deno.symlinkSync(`/usr/sbin/${target}`, `${folder}/${name}`);
  }
  return `${folder}:${path}`;
}

/** A host outside, which serves a file. Resolves once it does. */
async function serve(lab: Lab, underlay: NetworkNamespace): Promise<AsyncDisposable> {
  using outside = lab.namespace("outside");
  underlay.run(() =>
    sh(
      `ip link add outside type veth peer name eth0 netns "$1"
      ip link set outside up master br0
      ip -n "$1" link set eth0 up
      ip -n "$1" addr add ${OUTSIDE[0]}/24 dev eth0
      ip -n "$1" addr add ${OUTSIDE[1]}/64 dev eth0 nodad`,
      [`${lab.prefix}-outside`],
    )
  );
  const code = `const file = new Uint8Array(${SIZE});
    Deno.serve({ hostname: "::", port: 80, onListen: () => console.log("ready") }, () => new Response(file));`;
  const child = outside.run(() =>
    new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-config", code],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn()
  );
  const said = child.stdout.getReader();
  await said.read();
  await said.cancel();
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.status;
    },
  };
}

/** Downloads the file in a pod. Resolves to how many bytes came. */
async function download(lab: Lab, pod: Pod, host: string): Promise<number> {
  using namespace = NetworkNamespace.open(`/run/netns/${lab.prefix}-${pod.name}`);
  const url = `http://${host.includes(":") ? `[${host}]` : host}/`;
  const child = namespace.run(() =>
    new Deno.Command("curl", {
      args: ["-sS", "--limit-rate", `${RATE}`, "-o", "/dev/null", "-w", "%{size_download}", url],
      stdin: "null",
      stdout: "piped",
    }).spawn()
  );
  const { stdout } = await child.output();
  return Number(new TextDecoder().decode(stdout));
}

/** All rules that a node has, of nftables and both iptables. */
function rules(node: LabNode): string {
  return shIn(
    node,
    `nft list ruleset; for it in iptables ip6tables; do $it-nft-save; $it-legacy-save; done 2>&1`,
  );
}
