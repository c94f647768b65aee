import assert from "node:assert/strict";
import {
  ConfigError,
  errorReport,
  isDefect,
  RuntimeError,
  throwDefect,
  throwUnlessAborted,
} from "./errors.ts";

const CASES: readonly [error: unknown, defect: boolean][] = [
  [new ConfigError("a flag"), false],
  [new RuntimeError("a store"), false],
  [new Deno.errors.NotFound("a file"), false],
  // As Deno throws what a file system says that it has no class for.
  [Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" }), false],
  [Object.assign(new TypeError("an argument"), { code: "ERR_INVALID_ARG_TYPE" }), true],
  [new DOMException("over", "AbortError"), false],
  [new DOMException("too late", "TimeoutError"), false],
  [new DOMException("a clone", "DataCloneError"), true],
  [new TypeError("undefined"), true],
  [new RangeError("too long"), true],
  [new Error("anything"), true],
  ["text", true],
];

for (const [error, defect] of CASES) {
  Deno.test(`isDefect() of ${error}`, () => {
    assert.equal(isDefect(error), defect);
    if (defect) assert.throws(() => throwDefect(error), (thrown) => thrown === error);
    else throwDefect(error);
  });
}

Deno.test("errorReport() gives an expected error's message, and its causes when asked", () => {
  const cause = new Deno.errors.NotFound("no such file");
  const error = new RuntimeError("the file can't be read", { cause });
  assert.equal(errorReport(error), "the file can't be read");
  assert.equal(
    errorReport(error, { causes: true }),
    "the file can't be read\n  caused by: no such file",
  );
});

Deno.test("errorReport() gives a defect's stack and causes", () => {
  const error = new TypeError("undefined", { cause: new RuntimeError("the reason") });
  assert.match(
    errorReport(error),
    /defect.*TypeError: undefined\n +at [\s\S]*caused by: the reason$/,
  );
});

Deno.test("throwUnlessAborted: the end of an aborted wait is no failure, but a defect is", () => {
  const reason = new Error("no more time");
  const aborted = AbortSignal.abort(reason);
  const { signal } = new AbortController();
  throwUnlessAborted(reason, aborted);
  throwUnlessAborted(new RuntimeError("closed"), aborted);
  for (
    const [error, of] of [[new TypeError(), aborted], [new RuntimeError("gone"), signal]] as const
  ) {
    assert.throws(() => throwUnlessAborted(error, of), (thrown) => thrown === error);
  }
});
