/** What the agent says of bad input, with which exit code, and that it leaves nothing half made. */

import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { denimProgram, Lab, type LabNode } from "@denim/agent/lab";
import { ip } from "./support/ip.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { rootTest } from "./support/root_test.ts";
import { eventually, NEVER } from "./support/wait.ts";

/** Runs an agent to its end and returns its exit code and log. */
async function runAgent(
  node: LabNode,
  args: readonly string[],
  program: readonly [string, ...string[]] = denimProgram("agent"),
): Promise<{ code: number; log: string }> {
  const child = node.spawn([...program, ...args], {
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  });
  const { code, stderr } = await child.output();
  return { code, log: new TextDecoder().decode(stderr) };
}

function devices(node: LabNode): string {
  return ip(node, "-br link");
}

interface Case {
  readonly name: string;
  readonly netConf?: string;
  readonly args?: readonly string[];
  readonly code: number;
  readonly says: RegExp;
}

const vxlan = (rest: string) => `{"Network":"10.5.0.0/16",${rest}}`;

/** One case for each part that refuses; what each of them refuses, its own test says. */
const CASES: readonly Case[] = [
  { name: "a net-conf", netConf: "{", code: 2, says: /net-conf\.json: net-conf is not JSON/ },
  {
    name: "a backend's option",
    netConf: vxlan(`"Backend":{"Type":"vxlan","VNI":"one"}`),
    code: 2,
    says: /Backend\.VNI is "one": expected number/,
  },
  {
    name: "what a backend finds on the node",
    netConf: vxlan(`"Backend":{"Type":"vxlan","MTU":100}`),
    code: 2,
    says: /outer MTU of 100 leaves 50 bytes/,
  },
  { name: "a flag", args: ["--ifcae", "eth0"], code: 2, says: /--ifcae: denim agent has no such/ },
  {
    name: "an interface",
    args: ["--iface", "eth9"],
    code: 2,
    says: /no device matches --iface eth9; there are: .*eth0/,
  },
  {
    name: "a net-conf file that is not there",
    args: ["--net-config-path", "/nonexistent"],
    code: 1,
    says: /--net-config-path \/nonexistent/,
  },
];

for (const { name, netConf, args, code, says } of CASES) {
  rootTest(`bad input: ${name}`, async () => {
    await using lab = await Lab.create({
      nodes: 1,
      netConf: JSON.parse(vxlan(`"Backend":{"Type":"vxlan"}`)),
    });
    if (netConf !== undefined) Deno.writeTextFileSync(`${lab.directory}/net-conf.json`, netConf);
    const [node] = lab.nodes;
    const result = await runAgent(node!, [...node!.agentArguments, ...args ?? []]);
    assert.match(result.log, says);
    assert.equal(result.code, code, result.log);
    assert.equal(result.log.match(/ ERROR /g)?.length, 1, "one error");
    assert.match(result.log, / event=failed\n$/);
    assert.doesNotMatch(devices(node!), /flannel/);
    assert.throws(() => Deno.statSync(node!.subnetFile));
    await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
    assert.deepEqual(await store.leases(NEVER), []);
  });
}

rootTest(
  "a defect ends the agent with 1, and its stack is in the log, in the log's format",
  async () => {
    await using lab = await Lab.create({
      nodes: 1,
      netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
    });
    const [node] = lab.nodes;
    const program = new URL("./support/agent_with_defect.ts", import.meta.url).pathname;
    for (const when of ["in open", "in a callback"]) {
      const { code, log } = await runAgent(
        node!,
        [...node!.agentArguments, "--log-format", "json"],
        [Deno.execPath(), "run", "-A", program, when],
      );
      assert.equal(code, 1, log);
      const { level, event, message } = JSON.parse(log.trimEnd().split("\n").at(-1)!);
      assert.deepEqual([level, event], ["error", "defect"]);
      assert.match(message, new RegExp(`TypeError: ${when}\n +at .*agent_with_defect\\.ts`));
    }
  },
);

rootTest("a second agent of a node ends, and the first one hears nothing of it", async () => {
  await using lab = await Lab.create({
    nodes: 1,
    netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  });
  await lab.startAgents(NEVER);
  const [node] = lab.nodes;
  const said = () => Deno.readTextFileSync(node!.logFile);
  // Its last word of the start comes after subnet.env, which is what a start is waited for by.
  await eventually("the first one's last word", () => / event=ready\n$/.test(said()));
  const before = said();
  const { code, log } = await runAgent(node!, node!.agentArguments);
  assert.match(log, / ERROR another agent runs on this node: .* event=failed\n$/);
  assert.equal(code, 1);
  assert.equal(said(), before);
});

rootTest("a full network is said, and costs no device", async () => {
  // /28 in /30s: four subnets, of which the first is never leased.
  await using lab = await Lab.create({
    nodes: 4,
    netConf: { Network: "10.5.0.0/28", Backend: { Type: "vxlan" } },
  });
  const signal = new AbortController().signal;
  await Promise.all(lab.nodes.slice(0, 3).map((node) => node.startAgent(signal)));
  const last = lab.nodes[3]!;
  const { code, log } = await runAgent(last, last.agentArguments);
  assert.equal(code, 1);
  assert.match(log, /the network 10\.5\.0\.0\/28 is full/);
  assert.doesNotMatch(devices(last), /flannel/);
});

rootTest("a kernel without VXLAN is said, and costs no lease", async () => {
  await using lab = await Lab.create({
    nodes: 1,
    netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  });
  const [node] = lab.nodes;
  // A fake: this kernel has VXLAN, so the program asks for a kind of device that it lacks.
  const program = new URL("./support/agent_without_vxlan.ts", import.meta.url).pathname;
  const { code, log } = await runAgent(node!, node!.agentArguments, [
    Deno.execPath(),
    "run",
    "-A",
    program,
  ]);
  assert.equal(code, 1);
  assert.match(
    log,
    /make device flannel\.1: Unknown device type \(EOPNOTSUPP\); load the kernel's/,
  );
  await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log: new RecordingLog() });
  const identity = { publicIps: new Map([[4 as const, node!.publicIp]]), previousSubnets: [] };
  assert.equal(await store.held(identity, NEVER), undefined);
});

rootTest("without root the agent says what it lacks, and makes no file", async () => {
  await using lab = await Lab.create({
    nodes: 1,
    netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  });
  const [node] = lab.nodes;
  const store = `sqlite:${lab.directory}/other/denim.db`;
  const unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] as const;
  const { code, log } = await runAgent(
    node!,
    [...node!.agentArguments, "--store", store].slice(2),
    [...unprivileged, ...denimProgram("agent")],
  );
  assert.equal(code, 1, log);
  assert.match(log, /lacks CAP_NET_ADMIN; run it as root/);
  assert.throws(() => Deno.statSync(`${lab.directory}/other`));
});

rootTest("where /proc/sys can't be written, a node that does not forward says so", async () => {
  await using lab = await Lab.create({
    nodes: 1,
    netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  });
  const [node] = lab.nodes;
  using namespace = node!.open();
  namespace.run(() => Deno.writeTextFileSync("/proc/sys/net/ipv4/ip_forward", "0"));
  const readOnly = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
  const { code, log } = await runAgent(node!, node!.agentArguments, [
    ...["unshare", "--mount", "sh", "-c", `${readOnly} && exec "$@"`, "sh"] as const,
    ...denimProgram("agent"),
  ]);
  assert.equal(code, 1, log);
  assert.match(log, /IPv4 forwarding can't be switched on \(net\/ipv4\/ip_forward\): .*read-only/);
  assert.throws(() => Deno.statSync(node!.subnetFile));
  assert.doesNotMatch(devices(node!), /flannel/);
});
