/** In a process of its own each: Deno's test runner takes errors that nothing catches for itself. */

import assert from "node:assert/strict";

const here = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);

/** Runs a command whose `run` has this body, and tells its exit code and standard error. */
async function run(body: string, ...args: readonly string[]): Promise<readonly [number, string]> {
  const program = `
    import { ConfigError, RuntimeError } from ${here("../core/errors.ts")};
    import { runCommand } from ${here("./run_command.ts")};
    const forever = () => new Promise((_, reject) => setTimeout(reject, 60_000));
    Deno.exit(await runCommand({
      name: "denim x", help: "Usage", flags: [], stopped: "stopped; nothing is left",
      async run(_flags, signal) { ${body} },
    }, Deno.args));`;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", program, ...args],
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return [code, decoder.decode(stderr) + decoder.decode(stdout)];
}

const REFUSED = `throw new RuntimeError("no store", { cause: new RuntimeError("ECONNREFUSED") });`;
const STACK = /^denim x: denim has a defect; please report it: TypeError: odd\n +at /m;

const CASES: readonly (readonly [
  name: string,
  body: string,
  args: readonly string[],
  code: number,
  says: RegExp,
])[] = [
  ["a command's own exit code", "return 7;", [], 7, /^$/],
  ["wrong configuration", `throw new ConfigError("bad");`, [], 2, /^denim x: bad\n$/],
  ["an expected error", REFUSED, [], 1, /^denim x: no store\n$/],
  ["--debug: its causes", REFUSED, ["--debug"], 1, /^denim x: no store\n {2}caused by: ECONN/],
  ["a defect", `throw new TypeError("odd");`, [], 1, STACK],
  [
    "a rejection that nothing catches",
    "Promise.reject(new TypeError('odd')); await forever();",
    [],
    1,
    STACK,
  ],
  [
    "an exception in a callback",
    "setTimeout(() => { throw new TypeError('odd'); }); await forever();",
    [],
    1,
    STACK,
  ],
  [
    "an exception in a worker",
    `new Worker("data:application/javascript,setTimeout(()=>{throw new TypeError('odd')})",
       { type: "module" });
     await forever();`,
    [],
    1,
    /^denim x: denim has a defect; .*TypeError: odd/m,
  ],
  [
    "SIGTERM",
    `setTimeout(() => Deno.kill(Deno.pid, "SIGTERM"));
     await new Promise((_, reject) => signal.onabort = () => reject(signal.reason));`,
    [],
    1,
    /^denim x: stopped; nothing is left\n$/,
  ],
  ["a wrong flag", "", ["--nodez"], 2, /^denim x: --nodez: denim x has no such flag/],
  ["help", "", ["--help"], 0, /^Usage\n {2}--debug [^]*\n {2}--help /],
];

for (const [name, body, args, code, says] of CASES) {
  Deno.test(`runCommand() ends with ${code}: ${name}`, async () => {
    const [actual, output] = await run(body, ...args);
    assert.match(output, says);
    assert.equal(actual, code, output);
  });
}
