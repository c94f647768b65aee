/** The example keeps the contract for backends, and carries what pods send. */

import { backendContract, denimProgram, Lab, rootTest } from "@denim/tests";
import assert from "node:assert/strict";

const agentProgram = denimProgram("agent", import.meta.resolve("./main.ts"));
const backend = { Type: "tcp", Port: 8478 };

backendContract("tcp", { backend, agentProgram, outlivesAgent: false });

/** Runs the example's program and returns what it prints. */
function run(args: readonly string[], env: Record<string, string> = {}): string {
  const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.resolve("./main.ts"), ...args],
    env,
  }).outputSync();
  const decoder = new TextDecoder();
  assert.ok(success, decoder.decode(stderr));
  return decoder.decode(stdout);
}

Deno.test("the program's commands know the backend, and it is a CNI plugin", () => {
  const conf = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(conf, JSON.stringify({ Network: "10.5.0.0/16", Backend: backend }));
    assert.match(run(["config", "check", conf]), /; backend tcp$/m);
  } finally {
    Deno.removeSync(conf);
  }
  assert.match(run([], { CNI_COMMAND: "VERSION" }), /"supportedVersions"/);
});

rootTest("the program's demo shows the backend", () => {
  assert.match(
    run(["demo", "--nodes", "2", "--backend", "tcp"]),
    /node1 denim-tcp +IPv4 [^]*Every pod reaches every other/,
  );
});

rootTest("tcp carries 10 MiB from pod to pod, whole, in TCP connections", async () => {
  await using lab = await Lab.create({
    nodes: 2,
    netConf: { Network: "10.5.0.0/16", Backend: backend },
    agentProgram,
  });
  await lab.startAgents(new AbortController().signal);
  const [a, b] = await Promise.all(lab.nodes.map((node, index) => node.addPod(`pod${index + 1}`)));
  const { port } = await b!.listen();
  const startMs = performance.now();
  const bytes = 10 * 1024 * 1024;
  const sent = await a!.send(b!.address, port, bytes);
  assert.deepEqual(await b!.received(), { sha256: sent.sha256, bytes });
  console.log(`10 MiB in ${(performance.now() - startMs).toFixed()} ms`);
  const { stdout } = new Deno.Command("ip", {
    args: ["netns", "exec", lab.nodes[0]!.namespaceName, "ss", "-tnH", "dport", "=", ":8478"],
  }).outputSync();
  const connections = new TextDecoder().decode(stdout);
  assert.match(connections, /10\.99\.0\.1:\d+ +10\.99\.0\.2:8478/, "the way that it came");
});
