/**
 * The CNI plugin killed at any point: the next ADD, DEL or GC puts things right.
 */

import assert from "node:assert/strict";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { attachment, DONE, PluginNode, programOf, reachesGateways } from "./plugin_node.ts";

/** The exit code of who is killed: 128 and the signal's number. */
const KILLED = 128 + 9;

/** A node, a pod that a plugin is killed over, and one that must not notice. */
interface Scene {
  readonly node: PluginNode;
  readonly pod: ScratchNamespace;
  readonly neighbour: ScratchNamespace;
  /** What the plugin was about to do. */
  readonly step: string;
}

/** Attaches the container, in the same namespace or another, and takes it down again. */
function attachAgain({ node, pod, step }: Scene, namespace: ScratchNamespace): void {
  const call = { containerId: pod.name };
  if (step === "exit") {
    // All is done: an ADD now is one too many.
    assert.match(node.call("ADD", namespace, call).json.msg, /a second ADD needs a DEL first/);
  } else {
    node.succeed("ADD", namespace, call);
    assert.ok(reachesGateways(namespace));
  }
  node.succeed("DEL", namespace, call);
}

async function collect({ node, neighbour }: Scene): Promise<void> {
  node.age();
  assert.deepEqual(await node.gc([attachment(neighbour)]), DONE);
}

/** What is killed, from which step on, and what comes next. */
const CASES: readonly [string, number, string, (scene: Scene) => unknown][] = [
  ["ADD", 1, "a DEL", ({ node, pod }) => node.succeed("DEL", pod)],
  [
    "ADD",
    1,
    "a DEL without the namespace",
    ({ node, pod }) => node.succeed("DEL", pod, { netns: "" }),
  ],
  ["ADD", 1, "a GC", collect],
  ["ADD", 1, "the ADD again", (scene) => attachAgain(scene, scene.pod)],
  ["ADD", 1, "the ADD in another namespace", (scene) => attachAgain(scene, scene.node.pod())],
  ["DEL", 1, "the DEL again", ({ node, pod }) => node.succeed("DEL", pod)],
  ["DEL", 1, "a GC", collect],
  // Before it has taken the interface away all is there, and needs a DEL.
  ["DEL", 3, "an ADD", (scene) => attachAgain({ ...scene, step: "" }, scene.pod)],
  ["GC", 1, "the GC again", collect],
  ["GC", 1, "a DEL", ({ node, pod }) => node.succeed("DEL", pod)],
];
for (const [command, from, name, next] of CASES) {
  rootTest(`${command} killed before each step, and then ${name}`, async () => {
    let at = from;
    while (await killAt(command, at, next)) at++;
    assert.ok(at > { ADD: 30, DEL: 5, GC: 5 }[command]!, `${command} has ${at} steps`);
  });
}

/**
 * Has a plugin killed before its Nth step, and sees that nothing is left of the pod after what comes next, and
 * that its neighbour works. Answers with false if the plugin came through.
 */
async function killAt(
  command: string,
  at: number,
  next: (scene: Scene) => unknown,
): Promise<boolean> {
  using node = new PluginNode({ dualStack: true });
  const [pod, neighbour] = [node.pod(), node.pod()];
  // Beside an ADD's pod there is none: the bridge is its to make.
  if (command !== "ADD") { for (const it of [pod, neighbour]) node.succeed("ADD", it); }
  node.age();
  const log = `${node.directory}/step`;
  const program = programOf("killed_plugin.ts", `${at}`, log);
  const { code, json } = command === "GC"
    ? await node.gc([attachment(neighbour)], program)
    : await node.run(command, pod, {}, program);
  if (code === 0) return false;
  assert.equal(code, KILLED, json?.msg);
  const step = Deno.readTextFileSync(log);
  try {
    await next({ node, pod, neighbour, step });
    if (command === "ADD") node.succeed("ADD", neighbour);
    assert.deepEqual(pod.ipJson("link show type veth"), []);
    assert.ok(reachesGateways(neighbour));
    node.succeed("DEL", neighbour);
    assert.deepEqual(node.leftovers(), []);
    return true;
  } catch (error) {
    throw new Error(`killed before step ${at}: ${step}`, { cause: error });
  }
}

rootTest("ADD by another plugin killed before each step, and then a DEL", async () => {
  for (let at = 1;; at++) {
    using node = new PluginNode();
    const pod = node.pod();
    const conf = { ...node.conf({ cniVersion: "1.0.0" }), delegate: { type: "ptp" } };
    const program = programOf("killed_plugin.ts", `${at}`, `${node.directory}/step`);
    const { code, json } = await node.run("ADD", pod, { conf }, program);
    if (code === 0) return assert.ok(at > 7, `${at} steps`);
    assert.equal(code, KILLED, json?.msg);
    assert.deepEqual(await node.run("DEL", pod, { conf }), DONE);
    assert.deepEqual(node.leftovers(), []);
    assert.deepEqual(pod.ipJson("link show type veth"), []);
  }
});
