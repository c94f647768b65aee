/** The demo, as a newcomer runs it. */

import assert from "node:assert/strict";
import { leftovers } from "./support/leftovers.ts";
import { rootTest } from "./support/root_test.ts";
import { eventually } from "./support/wait.ts";

const MAIN = new URL("../agent/main.ts", import.meta.url).pathname;

function demo(...args: string[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, "demo", ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

function text({ stdout, stderr }: Deno.CommandOutput): string {
  const decoder = new TextDecoder();
  return decoder.decode(stdout) + decoder.decode(stderr);
}

function prefixOf(output: string): string {
  return /denim-[0-9a-f]{6}/.exec(output)![0];
}

rootTest(
  "the demo with three nodes: all six pairs, a whole transfer, one packet's way",
  async () => {
    const result = await demo("--nodes", "3").output();
    const output = text(result);
    assert.equal(result.code, 0, output);
    assert.equal(output.match(/^ {2}pod\d( +(–|\d+\.\d{3})){3}$/gm)?.length, 3, output);
    assert.doesNotMatch(output, /no answer/);
    assert.match(output, /1 MiB over TCP from pod1 to pod2: whole/);
    for (const hop of ["pod1 eth0", "node1 cni0", "node1 flannel.1", "node2 cni0", "pod2 eth0"]) {
      assert.ok(output.includes(`  ${hop} `), `${hop} in ${output}`);
    }
    assert.match(output, /node1 eth0 .*10\.99\.0\.1 → 10\.99\.0\.2[^]*VXLAN VNI 1/);
    assert.deepEqual(leftovers(prefixOf(output)), []);
  },
);

rootTest("the demo with host-gw: the same pods, and no encapsulation on the way", async () => {
  const result = await demo("--nodes", "3", "--backend", "host-gw").output();
  const output = text(result);
  assert.equal(result.code, 0, output);
  assert.equal(output.match(/^ {2}pod\d( +(–|\d+\.\d{3})){3}$/gm)?.length, 3, output);
  assert.match(output, /1 MiB over TCP from pod1 to pod2: whole/);
  assert.match(output, /node1 eth0 .*IPv4 10\.5\.\d+\.\d+ → 10\.5\.\d+\.\d+ ttl 63 \| ICMP echo/);
  assert.doesNotMatch(output, /VXLAN|flannel/);
  assert.deepEqual(leftovers(prefixOf(output)), []);
});

for (const [what, signal] of [["Ctrl-C", "SIGINT"], ["a closed terminal", "SIGHUP"]] as const) {
  rootTest(`${what} in the middle leaves nothing behind`, async () => {
    const child = demo("--nodes", "3").spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let output = "";
    while (!output.includes("an agent on each")) {
      const { value, done } = await reader.read();
      assert.ok(!done, output);
      output += value;
    }
    child.kill(signal);
    reader.releaseLock();
    await Promise.all([child.stdout.cancel().catch(() => {}), child.stderr.cancel()]);
    const { code } = await child.status;
    assert.equal(code, 1);
    assert.deepEqual(leftovers(prefixOf(output)), []);
  });
}

rootTest("--keep leaves it up, --remove takes it away", async () => {
  const output = text(await demo("--nodes", "2", "--keep").output());
  const directory = /denim demo --remove (\S+)/.exec(output)?.[1];
  assert.ok(directory !== undefined, output);
  const prefix = prefixOf(output);
  assert.ok(leftovers(prefix).length >= 6, "two nodes, two pods, their network, two agents");
  const removed = await demo("--remove", directory).output();
  assert.equal(removed.code, 0, text(removed));
  await eventually("nothing left", () => leftovers(prefix).length === 0);
});

rootTest(
  "--open serves the nodes' pages, and faults are struck that are asked for or typed",
  async () => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", MAIN, "demo", "--open", "--break", "delete-device"],
      // Without a desktop, whatever this machine has.
      env: { DISPLAY: "", WAYLAND_DISPLAY: "" },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const keyboard = child.stdin.getWriter();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let output = "";
    const until = async (words: RegExp) => {
      while (!words.test(output)) {
        const { value, done } = await reader.read();
        assert.ok(!done, output);
        output += value;
      }
    };
    await until(/node3 +http:.*\n/);
    const urls = [...output.matchAll(/node\d +(http:\/\/127\.0\.0\.1:\d+\/)$/gm)];
    assert.equal(urls.length, 3, output);
    for (const [, url] of urls) {
      const response = await fetch(url!);
      assert.equal(response.status, 200);
      assert.match(await response.text(), /<title>denim<\/title>/);
    }
    await until(/delete-device: node2 [^]*put it right[^]*all is well after .*\n[^]*Type a fault/);
    await keyboard.write(new TextEncoder().encode("nonsense\nstop-forwarding\n"));
    await until(/"nonsense" is none of [^]*stop-forwarding: node2 [^]*all is well after .*\n/);
    child.kill("SIGINT");
    const { code } = await child.status;
    await Promise.all([reader.cancel(), keyboard.close().catch(() => {})]);
    assert.equal(code, 0, output);
    assert.deepEqual(leftovers(prefixOf(output)), []);
  },
);

Deno.test("a wrong flag of the demo is named, with exit code 2", async () => {
  for (
    const args of [["--nodez", "3"], ["--nodes", "1"], ["--nodes", "x"], ["--break", "x"], [
      "--backend",
      "x",
    ], [
      "--open",
      "--keep",
    ], [
      "stray",
    ]]
  ) {
    const result = await demo(...args).output();
    assert.equal(result.code, 2);
    assert.match(text(result), new RegExp(args[0]!));
    assert.doesNotMatch(text(result), /namespaces/, "nothing was made");
  }
});

rootTest(
  "the demo with a backend that carries nothing says so, and ends",
  async () => {
    const result = await demo("--nodes", "2", "--backend", "alloc").output();
    const output = text(result);
    assert.equal(result.code, 1, output);
    assert.match(
      output,
      /no answer[^]*Not every pod reaches every other; the agents' logs say more/,
    );
    assert.deepEqual(leftovers(prefixOf(output)), []);
  },
);
