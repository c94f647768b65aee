import assert from "node:assert/strict";
import { bundle } from "../.ci/bundle.ts";
import { rootTest } from "../tests/support/root_test.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

/** denim as it is in a checkout, which is bundled each time. */
const CHECKOUT = new URL("./main.ts", import.meta.url).pathname;
/** denim as a bundle. */
const bundled = new TempFolder();
await bundle(bundled.path);
addEventListener("unload", () => bundled[Symbol.dispose]());
const BUNDLE = `${bundled.path}/agent.js`;

interface Run {
  readonly code: number;
  readonly lines: readonly string[];
}

/** A host's folders. */
class Host extends TempFolder {
  /** The main module of the denim that is run. */
  readonly main: string;
  readonly binDir = `${this.path}/opt/cni/bin`;
  readonly confDir = `${this.path}/etc/cni/net.d`;
  readonly folders = ["--cni-bin-dir", this.binDir, "--cni-conf-dir", this.confDir];
  readonly conf = `${this.confDir}/10-denim.conflist`;

  constructor(main = BUNDLE) {
    super();
    this.main = main;
  }

  /** Runs denim for this host. */
  denim(command: "install" | "uninstall", ...args: readonly string[]): Run {
    const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", this.main, command, "--cni-only", ...this.folders, ...args],
      stdin: "null",
    }).outputSync();
    const decoder = new TextDecoder();
    const output = decoder.decode(stdout) + decoder.decode(stderr);
    return { code, lines: output.trim().split("\n") };
  }

  /** All files and folders, as paths from the host's root. */
  tree(folder = this.path): string[] {
    return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
      const path = `${folder}/${name}`;
      return [path.slice(this.path.length), ...isDirectory ? this.tree(path) : []];
    }).sort();
  }
}

function pluginVersion(path: string): string {
  const { stdout } = new Deno.Command(path, {
    env: { CNI_COMMAND: "VERSION" },
    stdin: "null",
  }).outputSync();
  return new TextDecoder().decode(stdout);
}

Deno.test("install --cni-only puts a plugin that runs, and uninstall takes it away", () => {
  using host = new Host(CHECKOUT);
  const dry = host.denim("install", "--dry-run");
  assert.equal(dry.code, 0, dry.lines.join("\n"));
  assert.ok(dry.lines.includes(`would write ${host.conf}`), dry.lines.join("\n"));
  assert.deepEqual(host.tree(), []);

  const first = host.denim("install");
  assert.equal(first.code, 0, first.lines.join("\n"));
  assert.ok(first.lines.includes(`wrote ${host.binDir}/denim`), first.lines.join("\n"));
  assert.match(pluginVersion(`${host.binDir}/denim`), /"supportedVersions"/);
  const { plugins } = JSON.parse(Deno.readTextFileSync(host.conf));
  assert.deepEqual(plugins.map(({ type }: { type: string }) => type), ["denim"]);

  // The host knows the folder under another name than the installer, and a link leads to the program.
  Deno.renameSync(`${host.path}/opt`, `${host.path}/moved`);
  Deno.symlinkSync(`${host.path}/moved/cni/bin/denim`, `${host.path}/link`);
  assert.match(pluginVersion(`${host.path}/link`), /"supportedVersions"/);
  Deno.removeSync(`${host.path}/link`);
  Deno.renameSync(`${host.path}/moved`, `${host.path}/opt`);

  const before = Deno.lstatSync(`${host.binDir}/denim`).ino;
  const again = host.denim("install");
  assert.equal(again.code, 0, again.lines.join("\n"));
  assert.ok(!again.lines.some((line) => line.startsWith("wrote")), again.lines.join("\n"));
  assert.equal(Deno.lstatSync(`${host.binDir}/denim`).ino, before);

  const removed = host.denim("uninstall");
  assert.equal(removed.code, 0, removed.lines.join("\n"));
  assert.deepEqual(host.tree(), []);
});

Deno.test("install leaves others' configurations alone, and names the one that comes first", () => {
  using host = new Host();
  Deno.mkdirSync(host.confDir, { recursive: true });
  Deno.mkdirSync(host.binDir, { recursive: true });
  Deno.writeTextFileSync(`${host.confDir}/05-other.conflist`, "{}");
  Deno.writeTextFileSync(`${host.binDir}/portmap`, "");
  const { code, lines } = host.denim("install");
  assert.equal(code, 0, lines.join("\n"));
  assert.match(lines.at(-1)!, /has 05-other\.conflist, and runtimes take the first by name/);
  const { plugins } = JSON.parse(Deno.readTextFileSync(host.conf));
  assert.deepEqual(plugins.map(({ type }: { type: string }) => type), ["denim", "portmap"]);

  const removed = host.denim("uninstall");
  assert.match(removed.lines.at(-1)!, /takes .*05-other\.conflist from now on/);
  assert.deepEqual(host.tree(), [
    "/etc",
    "/etc/cni",
    "/etc/cni/net.d",
    "/etc/cni/net.d/05-other.conflist",
    "/opt",
    "/opt/cni",
    "/opt/cni/bin",
    "/opt/cni/bin/portmap",
  ]);
});

Deno.test("install takes an operator's configuration, if it runs denim", () => {
  using host = new Host();
  const given = `${host.path}/given.json`;
  Deno.writeTextFileSync(given, '{"plugins": [{"type": "bridge"}]}');
  const refused = host.denim("install", "--cni-conf", given);
  assert.equal(refused.code, 2);
  assert.match(refused.lines.join("\n"), /not a conflist with \{"type": "denim"\}/);
  assert.deepEqual(host.tree(), ["/given.json"]);

  Deno.writeTextFileSync(given, '{"name": "mine", "plugins": [{"type": "denim"}]}');
  assert.equal(host.denim("install", "--cni-conf", given).code, 0);
  assert.equal(Deno.readTextFileSync(host.conf), Deno.readTextFileSync(given));
  const kept = host.denim("install");
  assert.match(kept.lines.join("\n"), /10-denim\.conflist stays as it is/);
});

Deno.test("install refuses a folder that can't be written, and leaves nothing", () => {
  using host = new Host();
  Deno.writeTextFileSync(`${host.path}/opt`, "");
  const { code, lines } = host.denim("install");
  assert.equal(code, 1, lines.join("\n"));
  assert.match(lines.join("\n"), /opt\/cni: cannot write it: Not a directory/);
  assert.deepEqual(host.tree(), ["/opt"]);
  const relative = host.denim("install", "--cni-bin-dir", "opt");
  assert.equal(relative.code, 2);
  assert.match(relative.lines.join("\n"), /--cni-bin-dir: "opt" is not an absolute path/);
});

rootTest("install names a folder that is read-only, or on a file system without programs", () => {
  using host = new Host();
  Deno.mkdirSync(host.binDir, { recursive: true });
  const install = (mountOptions: string) => {
    const script = `mount -t tmpfs -o ${mountOptions} denim-test "$1" && shift && exec "$@"`;
    const { code, stderr } = new Deno.Command("unshare", {
      args: [
        ...["--mount", "sh", "-c", script, "sh", host.binDir, Deno.execPath(), "run", "-A", BUNDLE],
        ...["install", "--cni-only", ...host.folders],
      ],
      stdin: "null",
    }).outputSync();
    return `${code} ${new TextDecoder().decode(stderr)}`;
  };
  assert.match(install("ro"), /^1 .*bin\/\.denim: cannot write it: .*[Rr]ead-only/s);
  assert.match(install("noexec"), /^1 .*no program can be run there .* --cni-bin-dir/s);
  assert.deepEqual(host.tree(), ["/opt", "/opt/cni", "/opt/cni/bin"]);
});
