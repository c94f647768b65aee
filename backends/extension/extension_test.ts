import { type Lease, parseLease, type Peer, RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { nodeContext } from "../../tests/support/node_context.ts";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { eventually, NEVER } from "../../tests/support/wait.ts";
import { extension } from "./mod.ts";
import { PeerCommands, type PeerSteps } from "./peer_commands.ts";
import { MAX_OUTPUT_BYTES, runCommand } from "./run_command.ts";
import { TempFolder } from "../../tests/support/temp_folder.ts";

/** In so much time a command has begun, also on a busy machine. */
const STARTS_MS = 3_000;

function run(command: string, changes: Partial<Parameters<typeof runCommand>[1]> = {}) {
  const options = { name: "Command", variables: {}, input: "", timeoutMs: 5_000, signal: NEVER };
  return runCommand(command, { ...options, ...changes });
}

Deno.test("a command line is a small program of the shell's", async () => {
  const written = await run('read LINE; echo "$LINE $SUBNET"; echo hm >&2', {
    variables: { SUBNET: "10.5.1.0/24; echo no" },
    input: "02:00:00:00:00:01",
  });
  assert.deepEqual(written, {
    output: "02:00:00:00:00:01 10.5.1.0/24; echo no",
    errors: "hm",
    cut: false,
  });
  assert.equal((await run("true", { input: "x".repeat(1_000_000) })).output, "", "nobody reads it");
});

Deno.test("a command that fails is said with its exit code and its words", async () => {
  await assert.rejects(run("echo out; echo err >&2; exit 3"), {
    name: "RuntimeError",
    message: "Command failed with exit code 3: err; out",
  });
});

Deno.test("of a command that writes without end only the beginning is kept", async () => {
  const { output, cut } = await run(`head -c ${MAX_OUTPUT_BYTES + 1} /dev/zero | tr '\\0' x`);
  assert.deepEqual([output.length, cut], [MAX_OUTPUT_BYTES, true]);
  const { message } = await run("yes", { timeoutMs: STARTS_MS }).catch((error) => error);
  assert.match(message, /^Command took longer than 3 s and was killed: y\ny/);
  assert.ok(message.length < 2 * MAX_OUTPUT_BYTES);
});

Deno.test("a command that takes too long is killed with all that it started", async () => {
  const started = await Deno.makeTempFile();
  try {
    const startMs = performance.now();
    await assert.rejects(
      run(`sleep 300 & echo $! >${started}; echo begun; sleep 300`, { timeoutMs: STARTS_MS }),
      /Command took longer than 3 s and was killed: begun/,
    );
    await assert.rejects(
      run(`sleep 300 & echo begun`, { timeoutMs: STARTS_MS }),
      /Command took longer than 3 s and was killed: begun/,
      "also if the shell is gone, and its child holds the output",
    );
    assert.ok(performance.now() - startMs < 100_000, "long before the 300 s are over");
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
  readonly failures: unknown[] = [];
  readonly commands = new PeerCommands({
    log: this.log,
    signal: this.stop.signal,
    fail: (error) => void this.failures.push(error),
  });

  want(key: string, peer: string): PeerSteps {
    const steps = {
      add: () => this.#step(`+${peer}`),
      remove: () => this.#step(`-${peer}`),
    };
    this.commands.want(key, steps);
    return steps;
  }

  fail(step: string, times: number): void {
    this.#fails.set(step, times);
  }

  async #step(step: string): Promise<void> {
    this.begun.push(step);
    if (this.hanging.has(step)) {
      const { promise, reject } = Promise.withResolvers<never>();
      this.stop.signal.addEventListener(
        "abort",
        () => reject(new DOMException("ended", "AbortError")),
      );
      await promise;
    }
    await Promise.resolve();
    const left = this.#fails.get(step) ?? 0;
    this.#fails.set(step, left - 1);
    if (left > 0) throw new RuntimeError(`${step} failed`);
  }

  async sees(...steps: string[]): Promise<void> {
    await eventually(`${steps} in ${this.begun}`, () => `${this.begun}` === `${steps}`);
  }
}

Deno.test("peers' commands: what comes is added, what changes removed first, what leaves removed", async () => {
  const steps = new Steps();
  steps.want("a", "a1");
  await steps.sees("+a1");
  const a2 = steps.want("a", "a2");
  await steps.sees("+a1", "-a1", "+a2");
  steps.commands.drop("a", a2);
  await steps.sees("+a1", "-a1", "+a2", "-a2");
  assert.deepEqual(steps.log.lines, []);
});

Deno.test("peers' commands: a failure is said once, and tried again, until it is not wanted any more", async () => {
  const steps = new Steps();
  steps.fail("+a", 1);
  steps.fail("+b", 1_000);
  steps.fail("-c", 1);
  const [, b] = ["a", "b", "c"].map((peer) => steps.want(peer, peer));
  await steps.sees("+a", "+b", "+c", "+a", "+b");
  assert.deepEqual(
    steps.log.lines,
    ["error +a failed; trying again", "error +b failed; trying again"],
  );
  // What failed may have left something.
  steps.commands.drop("b", b!);
  await steps.sees("+a", "+b", "+c", "+a", "+b", "-b");
  // One that fails to go does not keep the next from coming.
  steps.want("c", "c2");
  await steps.sees("+a", "+b", "+c", "+a", "+b", "-b", "-c", "+c2");
  assert.deepEqual(steps.log.lines.slice(2), ["error -c failed; giving up"]);
});

Deno.test("peers' commands: a defect ends the node rather than be tried again", async () => {
  const steps = new Steps();
  const defect = new TypeError("a defect");
  steps.commands.want("a", {
    add: () => Promise.reject(defect),
    remove: () => Promise.resolve(),
  });
  await eventually("the node ends", () => steps.failures.length === 1);
  assert.deepEqual([steps.failures, steps.log.events], [[defect], []]);
});

Deno.test("peers' commands: of two who ask for a peer the latter has it, once the former's is removed", async () => {
  const steps = new Steps();
  const a1 = steps.want("a", "a1");
  await steps.sees("+a1");
  const a2 = steps.want("a", "a2");
  steps.commands.drop("a", a1);
  await steps.sees("+a1", "-a1", "+a2");
  steps.commands.drop("a", a2);
  steps.want("a", "a3");
  await steps.sees("+a1", "-a1", "+a2", "-a2", "+a3");
});

Deno.test("peers' commands: those that hang hold up nobody", async () => {
  const steps = new Steps();
  const hanging = Array.from({ length: 50 }, (_, index) => `h${index}`);
  for (const peer of hanging) steps.hanging.add(`+${peer}`);
  for (const peer of hanging) steps.want(peer, peer);
  steps.want("a", "a");
  const tookMs = await eventually("the last one's turn", () => steps.begun.includes("+a"), 5_000);
  assert.ok(tookMs > 100, "not all run at the same time");
  steps.stop.abort();
});

/** A node with the backend, and a directory that its commands write to. */
class ExtensionNode implements Disposable {
  readonly #folder = new TempFolder();
  readonly directory = this.#folder.path;
  readonly stopping = new AbortController();
  readonly #context = nodeContext({
    netConf: { EnableIPv6: true, IPv6Network: "fc00:5::/48" },
    signal: this.stopping.signal,
  });
  readonly log = this.#context.log;

  open(options: Record<string, unknown>) {
    return extension.open(this.#context, extension.options.parse(options));
  }

  /** A command that writes its input's first line and its environment. */
  record(name: string): string {
    return `(read LINE; echo "$LINE"; env) >${this.directory}/${name}`;
  }

  async recorded(name: string): Promise<string[]> {
    await eventually(
      `${name} ran`,
      () => this.log.count(new RegExp(`^info command-ran: ${name} `)) > 0,
    );
    return Deno.readTextFileSync(`${this.directory}/${name}`).split("\n");
  }

  [Symbol.dispose](): void {
    this.stopping.abort();
    this.#folder[Symbol.dispose]();
  }
}

function lease(number: number): Lease {
  return parseLease(
    `10.5.${number}.0-24&fc00:5:0:${number}::-64`,
    `{"PublicIP":"10.99.0.${number}","PublicIPv6":"fd99::${number}","BackendType":"extension"}`,
    undefined,
  );
}

const PEER: Peer<string> = {
  key: lease(2).key,
  halves: lease(2).halves.map((half, index) => ({ ...half, data: index === 0 ? "told" : "" })),
};

Deno.test("flannel's four commands, with its environment and standard input", async () => {
  using node = new ExtensionNode();
  const session = await node.open({
    prestartupcommand: "echo warned >&2; echo '{\"key\": 7}'",
    PostStartupCommand: node.record("PostStartupCommand"),
    SubnetAddCommand: node.record("SubnetAddCommand"),
    SubnetRemoveCommand: node.record("SubnetRemoveCommand"),
  });
  assert.deepEqual([...session.publishes], [[4, '{"key": 7}']]);
  assert.equal(node.log.count(/^info command-ran: PreStartupCommand /), 1);
  await session.onLeased!(lease(1));
  const post = await node.recorded("PostStartupCommand");
  session.peersChanged!([PEER], []);
  const added = await node.recorded("SubnetAddCommand");
  session.peersChanged!([], [PEER.key]);
  const removed = await node.recorded("SubnetRemoveCommand");
  assert.deepEqual([post[0], added[0], removed[0]], ["", "told", "told"]);
  for (const [lines, number] of [[post, 1], [added, 2], [removed, 2]] as const) {
    for (
      const variable of [
        `SUBNET=10.5.${number}.0/24`,
        `IPV6SUBNET=fc00:5:0:${number}::/64`,
        `PUBLIC_IP=10.99.0.${number}`,
        `PUBLIC_IPV6=fd99::${number}`,
      ]
    ) assert.ok(lines.includes(variable), variable);
  }
  assert.ok(post.includes("NETWORK=10.5.0.0/16") && post.includes("IPV6NETWORK=fc00:5::/48"));
});

Deno.test("a node that goes on without the backend removes its peers, one that stops leaves them", async () => {
  using goesOn = new ExtensionNode();
  using stops = new ExtensionNode();
  for (const node of [stops, goesOn]) {
    const session = await node.open({
      SubnetAddCommand: node.record("SubnetAddCommand"),
      SubnetRemoveCommand: node.record("SubnetRemoveCommand"),
    });
    session.peersChanged!([PEER], []);
    await node.recorded("SubnetAddCommand");
    if (node === stops) node.stopping.abort();
    await session[Symbol.asyncDispose]();
  }
  await goesOn.recorded("SubnetRemoveCommand");
  assert.deepEqual([...Deno.readDirSync(stops.directory)].map(({ name }) => name), [
    "SubnetAddCommand",
  ]);
});

Deno.test("other commands add a peer once the former ones have removed it", async () => {
  using node = new ExtensionNode();
  const story = `${node.directory}/story`;
  const open = (name: string) =>
    node.open({
      SubnetAddCommand: `echo +${name} >>${story}`,
      SubnetRemoveCommand: `sleep 0.2; echo -${name} >>${story}`,
    });
  const former = await open("former");
  former.peersChanged!([PEER], []);
  await eventually(
    "the peer added",
    () => node.log.count(/^info command-ran: SubnetAddCommand /) > 0,
  );
  const latter = await open("latter");
  await former[Symbol.asyncDispose]();
  latter.peersChanged!([PEER], []);
  await eventually("three commands", () => Deno.readTextFileSync(story).split("\n").length > 3);
  assert.equal(Deno.readTextFileSync(story), "+former\n-former\n+latter\n");
});

Deno.test("what is too much to be published is not published in part", async () => {
  using node = new ExtensionNode();
  await assert.rejects(node.open({ PreStartupCommand: "head -c 100000 /dev/zero" }), {
    name: "RuntimeError",
    message: "PreStartupCommand wrote more than 65536 bytes, too much to be published",
  });
});
