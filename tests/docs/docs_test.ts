/** What the pages say holds: the reference is the code's, links lead somewhere, log events exist, commands work. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { filesUnder, ROOT } from "../../.ci/source_files.ts";
import { Certificates } from "../support/certificates.ts";
import { rootTest } from "../support/root_test.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { CONFIGURATION_PAGE, configurationPage } from "./configuration.ts";
import { anchors, commandBlocks, innerLinks, PAGES, pageText } from "./pages.ts";
import { sandboxed } from "./sandbox.ts";

Deno.test("docs/configuration.md is what `deno task docs` makes", async () => {
  assert.equal(Deno.readTextFileSync(CONFIGURATION_PAGE), await configurationPage());
});

Deno.test("the README has at most 170 lines, and names every page", () => {
  const text = pageText("README.md");
  assert.ok(text.split("\n").length <= 171, "the README is too long");
  const named = new Set(innerLinks("README.md", text));
  assert.deepEqual(PAGES.filter((path) => path !== "README.md" && !named.has(path)), []);
});

for (const path of PAGES) {
  Deno.test(`${path}: every link leads somewhere`, () => {
    const dead = innerLinks(path, pageText(path)).filter((target) => {
      const [file, anchor] = target.split("#") as [string, string?];
      return !existsSync(`${ROOT}/${file}`) ||
        anchor !== undefined && !anchors(pageText(file)).has(anchor);
    });
    assert.deepEqual(dead, []);
  });
}

Deno.test("docs/troubleshooting.md has every warning and error of the log, and no event that there is not", () => {
  const serious = new Set<string>();
  const all = new Set<string>();
  const modules = filesUnder(ROOT).filter((file) =>
    /^(core|backends|agent)\/.*\.ts$/.test(file) && !file.endsWith("_test.ts")
  );
  for (const module of modules) {
    const calls = Deno.readTextFileSync(`${ROOT}/${module}`)
      .matchAll(/\.(info|warn|error)\(\s*(?:\w+ \? "([\w-]+)" : )?"([\w-]+)"/g);
    for (const [, level, ...events] of calls) {
      for (const event of events.filter((event) => event !== undefined)) {
        all.add(event);
        if (level !== "info") serious.add(event);
      }
    }
  }
  const tables = pageText("docs/troubleshooting.md").match(/^\| event [^]*?(?=\n\n)/gm)!;
  const rows = tables.join("\n").matchAll(/^\| `([\w-]+)` /gm);
  const listed = new Set(Array.from(rows, ([, event]) => event!));
  assert.deepEqual([...serious.difference(listed)], []);
  assert.deepEqual([...listed.difference(all)], []);
});

/** What a page takes for granted, as shell commands. */
const BEFORE: Readonly<Record<string, string>> = {
  "README.md":
    "serve_etcd --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379",
  "docs/pods.md":
    `echo '{ "Network": "10.5.0.0/16", "Backend": { "Type": "vxlan" } }' >net-conf.json
denim agent --net-config-path net-conf.json >/run/agent.log 2>&1 &
started event=ready /run/agent.log`,
  "docs/etcd.md":
    `serve_etcd --listen-client-urls https://10.0.0.1:2379 --advertise-client-urls https://10.0.0.1:2379 \\
    --client-cert-auth --trusted-ca-file ca.pem --cert-file server.pem --key-file server-key.pem`,
};

for (const path of PAGES.filter((path) => path !== "docs/write-a-backend.md")) {
  const blocks = commandBlocks(pageText(path)).filter(({ notRun }) => notRun === undefined);
  if (blocks.length === 0) continue;
  rootTest(`${path}: its commands work, word for word`, async () => {
    using folder = new TempFolder();
    using certificates = new Certificates();
    const authority = certificates.authority("ca");
    const pairs = [
      ["server", certificates.issue("server", authority, "IP:10.0.0.1")],
      ["node", certificates.issue("node", authority, "DNS:node")],
    ] as const;
    for (const [name, { cert, key }] of pairs) {
      Deno.copyFileSync(cert, `${folder.path}/${name}.pem`);
      Deno.copyFileSync(key, `${folder.path}/${name}-key.pem`);
    }
    Deno.copyFileSync(authority.cert, `${folder.path}/ca.pem`);
    const { code, output } = await sandboxed(blocks, folder.path, BEFORE[path] ?? "");
    assert.equal(code, 0, output);
  });
}
