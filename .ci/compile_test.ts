import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { findDenort } from "./denort.ts";
import { ROOT } from "./source_files.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

interface Run {
  readonly code: number;
  readonly stderr: string;
}

function deno(args: readonly string[], env: Record<string, string> = {}): Run {
  const { code, stderr } = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
  }).outputSync();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** Compiles into a folder of its own, which `check` may look into. */
function compile(env: Record<string, string>, check: (run: Run, folder: string) => void): void {
  using temp = new TempFolder();
  const folder = temp.path;
  check(deno(["run", "-A", ".ci/compile.ts", `${folder}/dist/denim`], env), folder);
}

Deno.test("compile says where DENORT_BIN points to nothing, and makes nothing", () => {
  compile({ DENORT_BIN: "/nowhere/denort" }, ({ code, stderr }, folder) => {
    assert.equal(code, 1, stderr);
    assert.match(stderr, /DENORT_BIN says \/nowhere\/denort, where there is nothing/);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("compile says where to put denort if it can't be fetched, and leaves nothing", () => {
  // All of Deno's cache but denort, and a proxy that refuses.
  using temp = new TempFolder();
  const cache = temp.path;
  assert.equal(deno(["run", "-A", ".ci/bundle.ts", `${cache}/bundle`]).code, 0);
  const [own = ""] = /^.*(?=\/dl\/)/.exec(findDenort().archive) ?? [];
  Deno.symlinkSync(`${own}/npm`, `${cache}/npm`);
  Deno.mkdirSync(`${cache}/dl`);
  for (const { name } of Deno.readDirSync(`${own}/dl`)) {
    // What `deno bundle` bundles with.
    if (name.startsWith("esbuild")) Deno.symlinkSync(`${own}/dl/${name}`, `${cache}/dl/${name}`);
  }
  const env = { DENO_DIR: cache, DENORT_BIN: "", HTTPS_PROXY: "http://127.0.0.1:1" };
  compile(env, ({ code, stderr }, folder) => {
    assert.equal(code, 1, stderr);
    const name = `denort-${Deno.build.target}.zip`;
    assert.ok(stderr.includes(`${cache}/dl/release/v${Deno.version.deno}/${name}`), stderr);
    assert.match(stderr, /set DENORT_BIN to the path of the program/);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("compile puts the bundle into the binary, with the permissions that denim needs", () => {
  // Any ELF program can carry the modules; only running them takes denort.
  compile({ DENORT_BIN: Deno.realPathSync("/bin/true") }, ({ code, stderr }, folder) => {
    assert.equal(code, 0, stderr);
    const binary = Buffer.from(Deno.readFileSync(`${folder}/dist/denim`));
    for (
      const part of ["denim COMMAND --help", "supportedVersions", "EventSource(", "etcdserverpb"]
    ) {
      assert.ok(binary.includes(part), part);
    }
    const [, permissions = ""] = /"permissions":(\{.*?\})/.exec(binary.toString("latin1")) ?? [];
    const allowed = Object.entries(JSON.parse(permissions))
      .filter(([name, value]) => name.startsWith("allow_") && value !== null)
      .map(([name, value]) => `${name.slice(6)} ${value}`.trim());
    assert.deepEqual(allowed.filter((name) => !name.startsWith("import")).sort(), [
      "env",
      "ffi",
      "net",
      "read",
      "run",
      "sys osUptime",
      "write",
    ]);
  });
});

Deno.test("compile refuses a kind of machine that denim does not run on", () => {
  const { code, stderr } = deno([
    ...["run", "-A", ".ci/compile.ts", "dist/denim", "agent/main.ts", "riscv64-unknown-linux-gnu"],
  ]);
  assert.equal(code, 1);
  assert.match(stderr, /not one of x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu/);
});

const denort = findDenort();
Deno.test({
  name: "compile makes a binary that tells its version" +
    (denort.found
      ? ""
      : ` (not run for want of denort: it is neither at ${denort.archive} nor named by DENORT_BIN)`),
  ignore: !denort.found,
  fn() {
    compile({}, ({ code, stderr }, folder) => {
      assert.equal(code, 0, stderr);
      const { code: ran, stdout } = new Deno.Command(`${folder}/dist/denim`, {
        args: ["--version"],
      }).outputSync();
      assert.equal(ran, 0);
      assert.match(new TextDecoder().decode(stdout), /\d+\.\d+\.\d+/);
    });
  },
});
