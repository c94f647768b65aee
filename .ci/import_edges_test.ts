import assert from "node:assert/strict";
import { importEdges } from "./import_edges.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

Deno.test("importEdges sees every kind of import", () => {
  using temp = new TempFolder();
  const root = temp.path;
  const files: Record<string, string> = {
    "deno.json": `{ "imports": { "@name/b": "./b.ts" } }`,
    "a.ts": `import { b } from "@name/b";
      export * from "./c.ts";
      import type { D } from "./d.ts";
      export type E = import("./e.ts").E;
      export const f = await import("./f.ts");
      new Worker(new URL("./g_worker.ts", import.meta.url), { type: "module" });
      console.log(import.meta.resolve("./h.ts"), b, {} as D);
      await import("./missing.ts");
      await import("@name/missing");
      import "node:fs";`,
    "b.ts": "export const b = 1;",
    "d.ts": "export type D = 1;",
    "e.ts": "export type E = 1;",
  };
  for (const name of ["c.ts", "f.ts", "g_worker.ts", "h.ts"]) files[name] = "export {};";
  for (const [name, text] of Object.entries(files)) {
    Deno.writeTextFileSync(`${root}/${name}`, text);
  }
  const modules = Object.keys(files).filter((name) => name.endsWith(".ts"));

  assert.deepEqual(
    importEdges(root, modules).map(({ from, to, specifier }) => `${from} ${to} ${specifier}`)
      .sort(),
    [
      "a.ts b.ts @name/b",
      "a.ts c.ts ./c.ts",
      "a.ts d.ts ./d.ts",
      "a.ts e.ts ./e.ts",
      "a.ts f.ts ./f.ts",
      "a.ts g_worker.ts ./g_worker.ts",
      "a.ts h.ts ./h.ts",
      "a.ts no module ./missing.ts",
      "a.ts no module @name/missing",
      "a.ts node:fs node:fs",
    ],
  );
});
