/**
 * The CNI plugin on file systems that are full or read-only, or that it has no rights to.
 */

import assert from "node:assert/strict";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { rootTest } from "../support/root_test.ts";
import { attachment, DONE, PluginNode, programOf, reachesGateways } from "./plugin_node.ts";

const DISK_BYTES = 256 * 1024;

/** A file system of its own in a folder. */
class Disk implements Disposable {
  readonly #path: string;

  constructor(path: string) {
    Deno.mkdirSync(path);
    this.#path = path;
    command("mount", "-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "denim-test", path);
  }

  [Symbol.dispose](): void {
    command("umount", "--lazy", this.#path);
  }

  /** Writes it full. */
  fill(): void {
    assert.throws(() => Deno.writeFileSync(`${this.#path}/.fill`, new Uint8Array(DISK_BYTES)), {
      code: "ENOSPC",
    });
  }

  empty(): void {
    Deno.removeSync(`${this.#path}/.fill`);
  }

  remount(how: "ro" | "rw"): void {
    command("mount", "-o", `remount,${how}`, this.#path);
  }

  /** Gives its files to somebody else, and lets nobody else in; and back. */
  giveAway(): void {
    command("chown", "-R", "nobody", this.#path);
    command("chmod", "700", this.#path);
  }

  takeBack(): void {
    command("chown", "-R", "root", this.#path);
  }
}

function command(name: string, ...args: readonly string[]): void {
  const { success, stderr } = new Deno.Command(name, { args: [...args] }).outputSync();
  if (!success) throw new Error(`${name} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** root as most containers have it: it owns what it owns, and no more. */
const WITHOUT_OVERRIDE = [
  "setpriv",
  "--bounding-set=-dac_override,-dac_read_search",
  ...programOf("../../plugin/main.ts"),
] as const;

/** What is wrong, how it is made and mended, and what ADD says. */
const FAULTS: readonly [string, (disk: Disk) => void, (disk: Disk) => void, RegExp][] = [
  [
    "full",
    (disk) => disk.fill(),
    (disk) => disk.empty(),
    /^No space left on device .*'(?<path>\/.*)': make room on that file system$/,
  ],
  [
    "read-only",
    (disk) => disk.remount("ro"),
    (disk) => disk.remount("rw"),
    /^Read-only file system .*'(?<path>\/.*)': mount that file system read-write$/,
  ],
  [
    "somebody else's",
    (disk) => disk.giveAway(),
    (disk) => disk.takeBack(),
    /^Permission denied .*'(?<path>\/.*)': the plugin needs root's rights there$/,
  ],
];

for (const place of ["flannel", "networks"]) {
  for (const [what, breakIt, mend, message] of FAULTS) {
    const readable = what !== "somebody else's", deletable = what === "full";
    rootTest(
      `the folder ${place} is ${what}: ADD says so, DEL and GC do what they can`,
      async () => {
        using node = new PluginNode({ dualStack: true });
        using disk = new Disk(`${node.directory}/${place}`);
        const [living, deleted, gone] = [node.pod(), node.pod(), node.pod()];
        for (const pod of [living, deleted, gone]) node.succeed("ADD", pod);
        node.age();
        const run = (command: string, pod = node.pod()) =>
          node.run(command, pod, {}, WITHOUT_OVERRIDE);
        const collect = () => node.gc([attachment(living)], WITHOUT_OVERRIDE);

        breakIt(disk);
        const before = node.leftovers();
        const pod = node.pod();
        const { code, json } = await run("ADD", pod);
        assert.match(json.msg, message);
        assert.ok(message.exec(json.msg)!.groups!.path!.startsWith(`${node.directory}/${place}/`));
        assert.deepEqual([code, json.code], [1, 5]);
        assert.deepEqual(node.leftovers(), before);
        assert.deepEqual(pod.ipJson("link show type veth"), []);

        // Of a pod that holds nothing there is nothing to delete.
        if (readable) assert.deepEqual(await run("DEL", pod), DONE);
        for (const answer of [await run("DEL", deleted), await collect()]) {
          if (deletable) assert.deepEqual(answer, DONE);
          else assert.match(answer.json.msg, message);
        }
        assert.deepEqual(deleted.ipJson("link show type veth"), []);
        if (readable) assert.deepEqual(gone.ipJson("link show type veth"), []);
        assert.ok(reachesGateways(living));

        mend(disk);
        assert.deepEqual(await run("DEL", deleted), DONE);
        assert.deepEqual(await collect(), DONE);
        assert.equal((await run("ADD", pod)).code, 0);
        assert.ok(reachesGateways(pod));
        for (const it of [living, pod]) assert.deepEqual(await run("DEL", it), DONE);
        assert.deepEqual(node.leftovers(), []);
      },
    );
  }
}

for (
  const [what, leave, message] of [
    [
      "the folder of the networks",
      (node) => Deno.writeTextFileSync(`${node.directory}/networks`, ""),
      /a file has a folder's place; remove it/,
    ],
    ["the network's folder", (node) => {
      Deno.mkdirSync(`${node.directory}/networks`);
      Deno.writeTextFileSync(node.addressDirectory, "");
    }, /a file has a folder's place; remove it/],
    [
      "the folder of flannel's records",
      (node) => Deno.writeTextFileSync(node.dataDir, ""),
      /a file has a folder's place; remove it/,
    ],
    [
      "a record",
      (node, pod) => Deno.mkdirSync(`${node.dataDir}/${pod.name}`, { recursive: true }),
      /a folder has a file's place; remove it/,
    ],
  ] as readonly [string, (node: PluginNode, pod: ScratchNamespace) => void, RegExp][]
) {
  rootTest(`an ADD names what was left in the place of ${what}`, () => {
    using node = new PluginNode();
    const pod = node.pod();
    leave(node, pod);
    const { code, json } = node.call("ADD", pod);
    assert.equal(code, 1);
    assert.match(json.msg, message);
    assert.match(json.msg, new RegExp(node.directory), "where it is");
    assert.deepEqual(pod.ipJson("link show type veth"), []);
  });
}
