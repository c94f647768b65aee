/**
 * The plugin as a script that asks an agent: what the agent does, and what the plugin does itself.
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { PluginServer } from "@denim/plugin";
import { PLACES } from "../../plugin/calls.ts";
import { rootTest } from "../support/root_test.ts";
import { all, eventually } from "../support/wait.ts";
import {
  answersPing,
  type CniAnswer,
  type CniCall,
  DONE,
  GATEWAY,
  PLUGIN,
  PluginNode,
  programOf,
  reachesGateways,
} from "./plugin_node.ts";

/** Fails where no agent does the work. */
const NEVER_ALONE = "false";
/** Runs a command by an agent alone, however late a busy machine is: what finds it late does nothing. */
async function byAgent(
  node: PluginNode,
  ...call: Parameters<PluginNode["run"]>
): Promise<CniAnswer> {
  let answer: CniAnswer | undefined;
  await eventually("the agent is in time", async () => {
    answer = await node.run(...call);
    return answer.code === 0 || answer.json !== undefined;
  }, 60_000);
  return answer!;
}

/** Says that no agent does the work, and gives the input back. */
const ALONE = `sh -c 'printf "alone %s\\n" "$0"; cat'`;

/** POSIX shells, as a script's first line names them. */
const SHELLS = ["/bin/sh", "/bin/bash --posix", "/bin/busybox ash"];

for (const shell of SHELLS) {
  if (!existsSync(shell.split(" ")[0]!)) continue;
  rootTest(`${shell} has an agent attach pods, whatever is in the input`, async () => {
    using node = new PluginNode({ dualStack: true });
    await node.startAgent();
    node.writeLauncher(NEVER_ALONE, shell);
    // As many bytes as a pipe takes, and more; letters whose bytes are special to dash; what a shell would expand.
    for (const odd of ["", 'é ā 聁 \\n \\" $HOME `id` %s *', "x".repeat(100_000)]) {
      for (const space of [undefined, 2]) {
        const pod = node.pod();
        const conf = JSON.stringify({ ...node.conf(), odd, "e\no": " \t" }, null, space);
        const { code, json } = await byAgent(node, "ADD", pod, { conf });
        assert.equal(code, 0, json?.msg);
        assert.ok(reachesGateways(pod));
        assert.deepEqual(await byAgent(node, "DEL", pod, { conf }), DONE);
      }
    }
    const { code, json } = await byAgent(node, "ADD", node.pod(), { netns: "/nowhere/é" });
    assert.deepEqual([code, json.code, json.msg.includes("/nowhere/é")], [1, 3, true]);
    assert.deepEqual(node.leftovers(), []);
  });
}

/** Why no agent does the work. */
const REASONS: readonly [string, (node: PluginNode) => unknown, CniCall?][] = [
  ["there is none", (node) => node.killAgent()],
  ["it is stopped", (node) => node.signalAgent("SIGSTOP")],
  ["it left its folder alone", (node) => Deno.renameSync(node.calls, `${node.calls}.away`)],
  ["it is of another build", (node) => {
    const agent = `${node.calls}/agent`;
    Deno.writeTextFileSync(agent, `${Deno.readTextFileSync(agent).trim()}-dirty\n`);
  }],
  ["it has many calls already", (node) => {
    for (let place = 0; place < PLACES; place++) {
      Deno.writeTextFileSync(`${node.calls}/call.${place}`, "");
    }
  }],
  ["its FIFO is a file", (node) => {
    Deno.removeSync(`${node.calls}/ask`);
    Deno.writeTextFileSync(`${node.calls}/ask`, "");
  }],
];
for (const [reason, spoil] of REASONS) {
  rootTest(`the plugin does the work itself, with all of its input: ${reason}`, async () => {
    using node = new PluginNode();
    await node.startAgent();
    await spoil(node);
    node.writeLauncher(ALONE);
    const conf = node.conf({ odd: "x".repeat(100_000) });
    const child = await node.start("ADD", node.pod(), { conf }, [node.launcher]);
    const { code, stdout } = await child.output();
    const [line, ...rest] = new TextDecoder().decode(stdout).split("\n");
    assert.equal(line, `alone ${node.calls}`);
    assert.deepEqual(JSON.parse(rest.join("\n")), conf);
    assert.equal(code, 0);
  });
}

for (const [where, flag] of [["mounts", "-m"], ["network", "-n"]] as const) {
  rootTest(`an agent that has other ${where} is not asked`, async () => {
    using node = new PluginNode();
    await node.startAgent();
    node.writeLauncher(ALONE);
    const program = ["unshare", flag, node.launcher] as const;
    const { stdout } = await (await node.start("DEL", node.pod(), {}, program)).output();
    assert.match(new TextDecoder().decode(stdout), /^alone /);
  });
}

rootTest("what takes another plugin is left to the plugin, and so are other commands", async () => {
  using node = new PluginNode();
  await node.startAgent();
  node.writeLauncher(ALONE);
  const conf = { ...node.conf({ cniVersion: "1.0.0" }), delegate: { type: "ptp" } };
  for (const [command, call] of [["ADD", { conf }], ["CHECK", {}], ["VERSION", {}]] as const) {
    const { stdout } = await (await node.start(command, node.pod(), call)).output();
    assert.match(new TextDecoder().decode(stdout), /^alone /, command);
  }
  assert.deepEqual(node.leftovers(), []);
});

rootTest("an agent that is killed before each step of an ADD: the plugin does it", async () => {
  for (let at = 1;;) {
    using node = new PluginNode({ dualStack: true });
    const pod = node.pod();
    const log = `${node.directory}/step`, alone = `${node.directory}/alone`;
    await node.startAgent(programOf("killed_agent.ts", `${at}`, log, node.calls));
    node.writeLauncher(`sh -c ': >"$0"; exec "$@"' ${alone} ${PLUGIN.join(" ")}`);
    const { code, json } = await node.run("ADD", pod);
    if (!existsSync(log)) {
      assert.equal(code, 0);
      // On a busy machine a script may find the agent late.
      if (existsSync(alone)) continue;
      return assert.ok(at > 30, `${at} steps`);
    }
    at++;
    // All may be done by then.
    if (code !== 0) assert.match(json.msg, /a second ADD needs a DEL first/);
    assert.ok(reachesGateways(pod), Deno.readTextFileSync(log));
    node.succeed("DEL", pod);
    assert.deepEqual(node.leftovers(), [], Deno.readTextFileSync(log));
  }
});

for (const atOnce of [1, 3]) {
  rootTest(
    `an agent that is killed before each step of DELs, ${atOnce} at once: the plugin does them`,
    async () => {
      for (let at = 1;;) {
        using node = new PluginNode({ dualStack: true });
        const pods = Array.from({ length: atOnce }, () => node.pod());
        for (const pod of pods) node.succeed("ADD", pod);
        const log = `${node.directory}/step`, alone = `${node.directory}/alone`;
        await node.startAgent(programOf("killed_agent.ts", `${at}`, log, node.calls));
        node.writeLauncher(`sh -c ': >"$0"; exec "$@"' ${alone} ${PLUGIN.join(" ")}`);
        await all(pods.map(async (pod) => assert.deepEqual(await node.run("DEL", pod), DONE)));
        assert.deepEqual(node.leftovers(), [], existsSync(log) ? Deno.readTextFileSync(log) : "");
        if (existsSync(log)) at++;
        // On a busy machine a script may find the agent late.
        else if (!existsSync(alone)) return assert.ok(at > 8, `${at} steps`);
      }
    },
  );
}

rootTest("DELs that wait for an agent at the same time are done together", async () => {
  using node = new PluginNode();
  await node.startAgent();
  const [command, ...args] = ["ip", "-netns", node.namespace.name, "monitor", "link"] as const;
  await using monitor = new Deno.Command(command, { args, stdout: "piped" }).spawn();
  let seen = "";
  const watching = monitor.stdout.pipeThrough(new TextDecoderStream()).pipeTo(
    new WritableStream({ write: (text) => void (seen += text) }),
  );
  const pods = Array.from({ length: 8 }, () => node.pod());
  await eventually("devices go in a group", async () => {
    await all(pods.map((pod) => node.succeedAsProcess("ADD", pod)));
    await all(pods.map((pod) => node.succeedAsProcess("DEL", pod)));
    assert.deepEqual(node.leftovers(), []);
    return / group 1684369001 /.test(seen);
  }, 60_000);
  monitor.kill("SIGKILL");
  await watching;
});

rootTest("an agent serves in a folder of its owner's, and alone", () => {
  using node = new PluginNode();
  Deno.mkdirSync(node.calls, { mode: 0o755 });
  assert.throws(() => PluginServer.open(node.calls, undefined), /others than its owner/);
  Deno.chmodSync(node.calls, 0o700);
  {
    using _server = PluginServer.open(node.calls, undefined);
    assert.throws(() => PluginServer.open(node.calls, undefined), /another agent serves there/);
  }
  assert.deepEqual([...Deno.readDirSync(node.calls)].map(({ name }) => name), ["lock"]);
});

rootTest(
  "a place is free again when its script was killed, and the folder is its owner's",
  async () => {
    using node = new PluginNode();
    await node.startAgent();
    assert.equal(Deno.statSync(node.calls).mode! & 0o777, 0o700);
    for (const { name } of Deno.readDirSync(node.calls)) {
      assert.equal(Deno.statSync(`${node.calls}/${name}`).mode! & 0o777, 0o600, name);
    }
    // A script that is killed between its claim and its question.
    Deno.writeTextFileSync(`${node.calls}/call.0`, "");
    Deno.utimeSync(`${node.calls}/call.0`, 0, 0);
    node.writeLauncher(NEVER_ALONE);
    await eventually("the place is free", async () => {
      const pod = node.pod();
      assert.equal((await byAgent(node, "ADD", pod)).code, 0);
      assert.ok(answersPing(pod, GATEWAY));
      return !existsSync(`${node.calls}/call.0`);
    });
  },
);
