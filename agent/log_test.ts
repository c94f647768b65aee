import assert from "node:assert/strict";
import { createLogger, type LogFormat } from "./log.ts";

function written(format: LogFormat, debug = false): string[] {
  const lines: string[] = [];
  const log = createLogger({ format, debug, write: (line) => lines.push(line) });
  log.debug("unseen", "quiet");
  log.warn("noted", "two words", {
    peers: 3,
    subnet: "10.5.1.0/24",
    why: "a b",
    gone: undefined,
  });
  return lines;
}

Deno.test("text: one line an event, with the values that go with it", () => {
  const [line, ...more] = written("text");
  assert.match(
    line!,
    /^\d{4}-\d\d-\d\dT[\d:.]+Z WARN {2}two words peers=3 subnet=10\.5\.1\.0\/24 why="a b" event=noted\n$/,
  );
  assert.deepEqual(more, []);
});

Deno.test("json: the same as an object, debug where asked for", () => {
  const [debug, warn] = written("json", true).map((line) => JSON.parse(line));
  assert.equal(debug.level, "debug");
  const { time, ...rest } = warn;
  assert.ok(!Number.isNaN(Date.parse(time)));
  assert.deepEqual(rest, {
    level: "warn",
    event: "noted",
    message: "two words",
    peers: 3,
    subnet: "10.5.1.0/24",
    why: "a b",
  });
});

Deno.test("text: a longer message goes on below its line, indented; json keeps one line", () => {
  const lines: string[] = [];
  for (const format of ["text", "json"] as const) {
    createLogger({ format, write: (line) => lines.push(line) })
      .error("defect", "TypeError: x\n    at f (a.ts:1:2)", { peers: 3 });
  }
  assert.match(
    lines[0]!,
    /^\S+ ERROR TypeError: x peers=3 event=defect\n {6}at f \(a\.ts:1:2\)\n$/,
  );
  assert.equal(lines[1]!.indexOf("\n"), lines[1]!.length - 1);
});
