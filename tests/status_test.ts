/**
 * What an operator sees of whole nodes: `denim status`, `denim peers`, and metrics.
 */

import { denimProgram } from "../agent/program.ts";
import type { LabNode } from "@denim/agent/lab";
import { getAvailablePort } from "@std/net/get-available-port";
import { existsSync } from "node:fs";
import assert from "node:assert/strict";
import type { PeersReport, StatusReport } from "../agent/status_report.ts";
import { ip } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { eventually, NEVER } from "./support/wait.ts";

const NET_CONF = { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } };
const ROOT = new URL("..", import.meta.url).pathname;
/** Debian's package prometheus has it. */
const PROMTOOL = ["/usr/bin/promtool", "/usr/local/bin/promtool"].find(existsSync);

interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a denim command against a node's agent. */
async function denim(node: LabNode, ...args: string[]): Promise<Said> {
  const [command, ...words] = denimProgram("agent").slice(0, -1);
  const { code, stdout, stderr } = await new Deno.Command(command!, {
    args: [...words, ...args, "--api-socket", node.apiSocket],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

async function status(node: LabNode): Promise<StatusReport> {
  return JSON.parse((await denim(node, "status", "--json")).out);
}

labTest("denim status and denim peers show a node and its peers", {
  nodes: 2,
  netConf: NET_CONF,
}, async (lab) => {
  const [node, other] = lab.nodes as [LabNode, LabNode];
  const none = await denim(node, "status");
  assert.equal(none.code, 1);
  assert.match(none.err, /^denim status: no agent runs here: /);
  await lab.startAgents(NEVER);
  const report = await status(node);
  assert.equal(report.ready, true);
  assert.equal(report.store.reachable, true);
  assert.deepEqual(
    { ...report.node, leaseEndsAt: undefined, repairs: undefined, peers: undefined },
    {
      backend: "vxlan",
      formerBackends: [],
      devices: ["flannel.1"],
      wireguard: [],
      mtuBytes: 1450,
      networks: ["10.5.0.0/16"],
      subnets: [`${node.subnet()}`],
      outer: { name: "eth0", mtuBytes: 1500, publicIps: [`${node.publicIp}`] },
      leaseEndsAt: undefined,
      repairs: undefined,
      peers: undefined,
    },
  );
  await eventually("the peer", async () => (await status(node)).node?.peers.followed === 1);
  await eventually("its route", () => ip(node, "route").includes(`${other.subnet()} `));
  ip(node, `route del ${other.subnet()}`);
  await eventually("mended", async () => (await status(node)).node?.repairs.route === 1);
  const said = await denim(node, "status");
  assert.equal(said.code, 0);
  assert.match(said.out, /^node +ready$/m);
  assert.match(said.out, /^mended +route 1$/m);
  assert.match(said.out, /warn +drift-repaired /);
  const { peers }: PeersReport = JSON.parse((await denim(node, "peers", "--json")).out);
  assert.deepEqual(
    peers.map(({ subnet, publicIp, backend, device }) => [
      subnet,
      publicIp,
      backend,
      device,
    ]),
    [[`${other.subnet()}`, `${other.publicIp}`, "vxlan", "flannel.1"]],
  );
  assert.match(
    (await denim(node, "peers")).out,
    new RegExp(`^SUBNET .*\n${other.subnet()} +${other.publicIp} +vxlan by flannel.1 `),
  );
  // Who asks a store that is not there is told where the agent has its leases.
  const lost = await denim(node, "leases", "--store", "sqlite:/nonexistent/denim.db");
  assert.equal(lost.code, 1);
  assert.match(
    lost.err,
    /no store here, and this node's agent has its leases in sqlite:.*denim\.db;/,
  );
});

labTest("denim status and denim peers say how WireGuard is", {
  nodes: 2,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "wireguard" } },
  program: "wireguard-go",
}, async (lab) => {
  const [node, other] = lab.nodes as [LabNode, LabNode];
  await lab.startAgents(NEVER);
  const by = ip(node, "-d link show flannel-wg").includes("tun") ? "wireguard-go" : "kernel";
  assert.deepEqual((await status(node)).node!.wireguard, [
    { device: "flannel-wg", by, listenPort: 51820 },
  ]);
  assert.match(
    (await denim(node, "status")).out,
    /^wireguard +flannel-wg by (the kernel|wireguard-go), UDP port 51820$/m,
  );
  const of = async () => {
    const { peers }: PeersReport = JSON.parse((await denim(node, "peers", "--json")).out);
    return peers[0]?.wireguard ?? undefined;
  };
  await eventually("a handshake", async () => (await of())?.handshakeAt != null);
  const { endpoint, handshakeAt, receivedBytes, sentBytes } = (await of())!;
  assert.equal(endpoint, `${other.publicIp}:51820`);
  assert.ok(Math.abs(Date.parse(handshakeAt!) - Date.now()) < 60_000, handshakeAt!);
  // A message of a handshake has 92 octets at the least.
  assert.ok(receivedBytes >= 92 && sentBytes >= 92, `${receivedBytes} ${sentBytes}`);
  const row = `${other.subnet()} +${other.publicIp}:51820 +\\d+ s ago +[\\d.]+ k?B +[\\d.]+ k?B`;
  assert.match(
    (await denim(node, "peers")).out,
    new RegExp(`^BY WIREGUARD +ENDPOINT +HANDSHAKE +RECEIVED +SENT\n${row}$`, "m"),
  );
});

labTest("denim doctor finds an agent that is gone, with exit code 1", {
  nodes: 1,
  netConf: NET_CONF,
}, async (lab) => {
  const [node] = lab.nodes as [LabNode];
  await lab.startAgents(NEVER);
  const doctor = async () => {
    const { code, out } = await denim(node, "doctor", "--json", "--subnet-file", node.subnetFile);
    const names: string[] = JSON.parse(out).map(({ name }: { name: string }) => name);
    assert.equal(code, names.length > 0 ? 1 : 0);
    // The rest is this machine's.
    return names.filter((name) => name.startsWith("agent-"));
  };
  assert.deepEqual(await doctor(), []);
  await node.stopAgent();
  assert.deepEqual(await doctor(), ["agent-silent"]);
});

labTest("denim status --watch prints what is different, and goes on through a restart", {
  nodes: 1,
  netConf: NET_CONF,
}, async (lab) => {
  const [node] = lab.nodes as [LabNode];
  await lab.startAgents(NEVER);
  const [command, ...words] = denimProgram("agent").slice(0, -1);
  const watching = new Deno.Command(command!, {
    args: [...words, "status", "--watch", "--json", "--api-socket", node.apiSocket],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reports: StatusReport[] = [];
  const reading = (async () => {
    let text = "";
    for await (const part of watching.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (text + part).split("\n");
      text = lines.pop()!;
      reports.push(...lines.map((line) => JSON.parse(line)));
    }
  })();
  await eventually("the first report", () => reports.length > 0);
  await node.stopAgent();
  await node.startAgent(NEVER);
  await eventually(
    "the new agent's",
    () => new Set(reports.map((one) => one.startedAt)).size === 2,
  );
  watching.kill("SIGTERM");
  await Promise.all([watching.status, reading]);
});

async function promtool(args: readonly string[], input?: string): Promise<string> {
  const child = new Deno.Command(PROMTOOL!, {
    args: [...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input ?? ""));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return `${code} ${decoder.decode(stdout)}${decoder.decode(stderr)}`.trim();
}

for (const Type of ["vxlan", "udp"]) {
  labTest(`${Type}: /metrics is as promtool wants it, and has what rules and dashboard ask for`, {
    nodes: 2,
    netConf: { Network: "10.5.0.0/16", Backend: { Type } },
  }, async (lab) => {
    const [node, other] = lab.nodes as [LabNode, LabNode];
    const port = getAvailablePort();
    await node.startAgent(NEVER, ["--healthz-port", `${port}`]);
    await other.startAgent(NEVER);
    const metrics = () => get(node, `http://127.0.0.1:${port}/metrics`);
    await eventually(
      "the peer",
      async () => (await metrics()).includes('denim_peers{state="current"} 1'),
    );
    const text = await metrics();
    if (PROMTOOL !== undefined) assert.equal(await promtool(["check", "metrics"], text), "0");
    const names = new Set(
      [...text.matchAll(/^(\w+?)(_bucket|_sum|_count)?[ {]/gm)].map(([, name]) => name!),
    );
    for (const file of ["prometheus/denim.rules.yml", "grafana/denim.json"]) {
      const asked = Deno.readTextFileSync(`${ROOT}deploy/${file}`)
        .match(/\b(denim|process)_[a-z_]+\b/g)!.map((name) =>
          name.replace(/_(bucket|sum|count)$/, "")
        );
      // Series with labels that come with an event are not there before it.
      const rare = /^denim_reconciler_repairs_total$/;
      const missing = asked.filter((name) =>
        !names.has(name) && !rare.test(name) && !(Type !== "udp" && name.startsWith("denim_udp_"))
      );
      assert.deepEqual(missing, [], file);
    }
  });
}

/** Fetches from inside a node. */
async function get(node: LabNode, url: string): Promise<string> {
  const child = node.spawn([
    Deno.execPath(),
    "eval",
    `Deno.stdout.writeSync(new TextEncoder().encode(await (await fetch(${
      JSON.stringify(url)
    })).text()))`,
  ], { stdout: "piped", stdin: "null" });
  return new TextDecoder().decode((await child.output()).stdout);
}

Deno.test({
  name: `the alert rules pass promtool${
    PROMTOOL === undefined ? " (needs Debian's prometheus)" : ""
  }`,
  ignore: PROMTOOL === undefined,
  async fn() {
    const said = await promtool(["check", "rules", `${ROOT}deploy/prometheus/denim.rules.yml`]);
    assert.match(said, /^0 .*SUCCESS: \d+ rules found$/s);
  },
});
