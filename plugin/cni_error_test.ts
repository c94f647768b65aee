import assert from "node:assert/strict";
import { ConfigError } from "@denim/core/errors";
import { LinuxError } from "@denim/core/linux/attach";
import { CNI_CODE, CniError, DelegateError, Failures, hasDefect, toCniError } from "./cni_error.ts";

/** What the file system says of a path. */
function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

for (
  const [what, error, code, message] of [
    ["a wrong configuration", new ConfigError("x is 1"), 7, /^x is 1$/],
    ["the kernel", new LinuxError(1, "make a bridge"), 102, /^make a bridge: not permitted/],
    ["a missing file", thrownBy(() => Deno.readTextFileSync("/nowhere")), 5, /'\/nowhere'$/],
    ["a folder in a file's place", thrownBy(() => Deno.readTextFileSync("/etc")), 5, /directory/],
    [
      "a full disk",
      Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" }),
      5,
      /^No space left on device .*: make room on that file system$/,
    ],
    ["a file that ends early", new Deno.errors.UnexpectedEof("cut"), 5, /^cut$/],
    ["a defect", new TypeError("x is undefined"), 999, /^x is undefined$/],
    ["a defect that is not even an error", "text", 999, /^text$/],
  ] as const
) {
  Deno.test(`toCniError() says what failed, and keeps the cause: ${what}`, () => {
    const failure = toCniError(error);
    assert.match(failure.message, message);
    assert.deepEqual([failure.code, failure.cause], [code, error]);
  });
}

Deno.test("toCniError() tells a defect's stack in the details", () => {
  const { details } = toCniError(new TypeError("x is undefined"));
  assert.match(details, /^denim has a defect; .*TypeError: x is undefined\n +at .*cni_error_test/);
  assert.equal(toCniError(new ConfigError("x is 1")).details, "");
});

Deno.test("toCniError() tells the failure first, and then what failed while it was undone", () => {
  const undoing = new TypeError("y is undefined"), first = new CniError(CNI_CODE.conflict, "taken");
  const error = new SuppressedError(undoing, first);
  const { code, message, details } = toCniError(error);
  assert.deepEqual([code, message], [101, "taken"]);
  assert.match(details, /^and while it was undone: denim has a defect; .*TypeError: y is/);
  assert.deepEqual([hasDefect(error), hasDefect(first), hasDefect(undoing)], [true, false, true]);
});

Deno.test("Failures keeps failures, and throws them in the end", () => {
  const failures = new Failures();
  failures.rethrow();
  const first = new CniError(CNI_CODE.conflict, "taken");
  failures.add(first);
  assert.throws(() => failures.rethrow(), (error) => error === first);
  assert.equal(failures.attempt(() => 5), 5);
  failures.attempt(() => {
    throw new DelegateError('{"msg":"no"}');
  });
  assert.throws(() => failures.rethrow(), (error) => {
    assert.ok(error instanceof CniError);
    assert.deepEqual([error.code, error.message], [101, 'taken; {"msg":"no"}']);
    assert.ok(error.cause instanceof AggregateError);
    return true;
  });
});

Deno.test("Failures throws a defect at once", () => {
  const defect = new TypeError("x is undefined");
  const failures = new Failures();
  assert.throws(() =>
    failures.attempt(() => {
      throw defect;
    }), (error) => error === defect);
});
