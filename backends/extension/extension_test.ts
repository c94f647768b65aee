import { type Family, IpAddress, parseLease, parseNetworkConfig, type Peer } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { eventually } from "../../tests/support/wait.ts";
import { extension } from "./mod.ts";
import { PeerCommands } from "./peer_commands.ts";
import { runCommand } from "./run_command.ts";

const NEVER = new AbortController().signal;

function run(command: string, changes: Partial<Parameters<typeof runCommand>[1]> = {}) {
  const options = { name: "Command", variables: {}, input: "", timeoutMs: 5_000, signal: NEVER };
  return runCommand(command, { ...options, ...changes });
}

Deno.test("a command line is a small program of the shell's", async () => {
  const { output, errors } = await run('read LINE; echo "$LINE $SUBNET"; echo hm >&2', {
    variables: { SUBNET: "10.5.1.0/24; echo no" },
    input: "02:00:00:00:00:01",
  });
  assert.deepEqual({ output, errors }, {
    output: "02:00:00:00:00:01 10.5.1.0/24; echo no",
    errors: "hm",
  });
  assert.equal((await run("true", { input: "x".repeat(1_000_000) })).output, "", "nobody reads it");
});

Deno.test("a command that fails is said with its exit code and its words", async () => {
  await assert.rejects(run("echo out; echo err >&2; exit 3"), {
    name: "RuntimeError",
    message: "Command failed with exit code 3: err; out",
  });
});

Deno.test("a command that takes too long is killed with all that it started", async () => {
  const started = await Deno.makeTempFile();
  try {
    const startMs = performance.now();
    await assert.rejects(
      run(`sleep 300 & echo $! >${started}; echo begun; sleep 300`, { timeoutMs: 300 }),
      /Command took longer than 0\.3 s and was killed: begun/,
    );
    assert.ok(performance.now() - startMs < 3_000);
    const pid = (await Deno.readTextFile(started)).trim();
    await eventually("its child is gone", () => {
      try {
        return / Z /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
      } catch {
        return true;
      }
    });
  } finally {
    await Deno.remove(started);
  }
});

Deno.test("a command ends with the node", async () => {
  const stopping = new AbortController();
  const running = run("sleep 300", { signal: stopping.signal });
  stopping.abort();
  await assert.rejects(running, { name: "AbortError" });
});

/** Steps that are recorded, and done or failed by hand. */
class Steps {
  readonly begun: string[] = [];
  readonly #fails = new Map<string, number>();
  readonly hanging = new Set<string>();
  readonly stop = new AbortController();
  readonly log = new RecordingLog();
  readonly commands = new PeerCommands<string>(
    { add: (peer) => this.#step(`+${peer}`), remove: (peer) => this.#step(`-${peer}`) },
    this.log,
    this.stop.signal,
  );

  fail(step: string, times: number): void {
    this.#fails.set(step, times);
  }

  async #step(step: string): Promise<void> {
    this.begun.push(step);
    if (this.hanging.has(step)) {
      const { promise, reject } = Promise.withResolvers<never>();
      this.stop.signal.addEventListener("abort", () => reject(new Error("ended")));
      await promise;
    }
    await Promise.resolve();
    const left = this.#fails.get(step) ?? 0;
    this.#fails.set(step, left - 1);
    if (left > 0) throw new Error(`${step} failed`);
  }

  async sees(...steps: string[]): Promise<void> {
    await eventually(`${steps} in ${this.begun}`, () => `${this.begun}` === `${steps}`, 3_000);
  }
}

Deno.test("peers' commands: what comes is added, what changes removed first, what leaves removed", async () => {
  const steps = new Steps();
  steps.commands.want("a", "a1");
  await steps.sees("+a1");
  steps.commands.want("a", "a2");
  await steps.sees("+a1", "-a1", "+a2");
  steps.commands.want("a", undefined);
  await steps.sees("+a1", "-a1", "+a2", "-a2");
  assert.deepEqual(steps.log.lines, []);
});

Deno.test("peers' commands: a failure is said, and tried again, until it is not wanted any more", async () => {
  const steps = new Steps();
  steps.fail("+a", 1);
  steps.fail("+b", 1_000);
  steps.fail("-c", 1);
  for (const peer of ["a", "b", "c"]) steps.commands.want(peer, peer);
  await steps.sees("+a", "+b", "+c", "+a", "+b");
  assert.deepEqual(steps.log.lines, ["error +a failed", "error +b failed", "error +b failed"]);
  steps.commands.want("b", undefined);
  // One that fails to go does not keep the next from coming.
  steps.commands.want("c", "c2");
  await steps.sees("+a", "+b", "+c", "+a", "+b", "-c", "+c2");
});

Deno.test("peers' commands: those that hang hold up nobody", async () => {
  const steps = new Steps();
  const hanging = Array.from({ length: 50 }, (_, index) => `h${index}`);
  for (const peer of hanging) steps.hanging.add(`+${peer}`);
  for (const peer of hanging) steps.commands.want(peer, peer);
  steps.commands.want("a", "a");
  const tookMs = await eventually("the last one's turn", () => steps.begun.includes("+a"), 5_000);
  assert.ok(tookMs > 100, "not all run at the same time");
  steps.stop.abort();
});

Deno.test("flannel's four commands, with its environment and standard input", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const record = (name: string) => `(read LINE; echo "$LINE"; env) >${directory}/${name}`;
    const options = extension.options.parse({
      prestartupcommand: "echo warned >&2; echo '{\"key\": 7}'",
      PostStartupCommand: record("post"),
      SubnetAddCommand: record("add"),
      SubnetRemoveCommand: record("remove"),
    });
    const addresses = new Map<Family, IpAddress>([
      [4, IpAddress.parse("10.99.0.1")],
      [6, IpAddress.parse("fd99::1")],
    ]);
    const log = new RecordingLog();
    const netConf = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48"}`;
    const session = await extension.open({
      config: parseNetworkConfig(netConf),
      outer: { name: "eth0", mtuBytes: 1500, addresses, publicIps: addresses },
      held: undefined,
      kernel: { macOf: () => undefined, hasDevice: () => false, routeTo: () => undefined },
      log,
      signal: NEVER,
    }, options);
    assert.deepEqual([...session.publishes], [[4, '{"key": 7}']]);
    assert.ok(log.lines.includes("info PreStartupCommand ran"));

    const lease = (number: number) =>
      parseLease(
        `10.5.${number}.0-24&fc00:5:0:${number}::-64`,
        `{"PublicIP":"10.99.0.${number}","PublicIPv6":"fd99::${number}","BackendType":"extension"}`,
        undefined,
      );
    await session.leased!(lease(1));
    const peer: Peer<string> = {
      key: lease(2).key,
      halves: lease(2).halves.map((half, index) => ({ ...half, data: index === 0 ? "told" : "" })),
    };
    session.peersChanged!([peer], []);
    const text = (name: string) => {
      try {
        return Deno.readTextFileSync(`${directory}/${name}`).split("\n");
      } catch {
        return [];
      }
    };
    await eventually("the peer added", () => text("add").length > 1);
    await eventually("said", () => log.lines.includes("info SubnetAddCommand ran for 10.5.2.0/24"));
    session.peersChanged!([], [peer.key]);
    await eventually("the peer removed", () => text("remove").length > 1);
    const post = text("post");
    for (
      const [name, number, input] of [["post", 1, ""], ["add", 2, "told"], [
        "remove",
        2,
        "told",
      ]] as const
    ) {
      const lines = text(name);
      assert.equal(lines[0], input, name);
      for (
        const variable of [
          `SUBNET=10.5.${number}.0/24`,
          `IPV6SUBNET=fc00:5:0:${number}::/64`,
          `PUBLIC_IP=10.99.0.${number}`,
          `PUBLIC_IPV6=fd99::${number}`,
        ]
      ) assert.ok(lines.includes(variable), `${name}: ${variable}`);
    }
    assert.ok(post.includes("NETWORK=10.5.0.0/16") && post.includes("IPV6NETWORK=fc00:5::/48"));
    await session[Symbol.asyncDispose]();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
