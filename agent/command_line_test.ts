import assert from "node:assert/strict";

const MAIN = new URL("./main.ts", import.meta.url).pathname;

/** Runs denim as a person does. */
async function denim(...args: string[]): Promise<{ code: number; out: string; errors: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, ...args],
  }).output();
  const [out, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out: out!, errors: errors! };
}

Deno.test("denim help says what a command's --help says", async () => {
  const [asked, own] = await Promise.all([denim("help", "peers"), denim("peers", "--help")]);
  assert.deepEqual(asked, own);
  assert.match(own.out, /^Usage: denim peers/);
  const { code, out } = await denim("help");
  assert.match(out, /Usage: denim COMMAND/);
  assert.equal(code, 0);
  assert.deepEqual(await denim("help", "pears"), {
    code: 2,
    out: "",
    errors: "pears: denim has no such command; see denim help\n",
  });
});
