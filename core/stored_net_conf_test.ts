import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { ConfigError } from "./errors.ts";
import { awaitNetConf, followNetConf, readNetConf } from "./stored_net_conf.ts";

const LARGE = '{"Network":"10.5.0.0/16"}';
const SMALL = '{"Network":"10.5.0.0/20"}';

async function* from<T>(...items: T[]): AsyncGenerator<T, void, void> {
  yield* items;
}

async function networks(texts: AsyncIterable<string>, log: RecordingLog): Promise<string[]> {
  const seen = [];
  for await (const { families } of followNetConf(texts, "store", log)) {
    seen.push(`${families[0]!.network}`);
  }
  return seen;
}

Deno.test("followNetConf: the same text again is left out, and so is one that is not valid", async () => {
  const log = new RecordingLog();
  assert.deepEqual(await networks(from(LARGE, LARGE, "{", "{", SMALL, LARGE), log), [
    "10.5.0.0/16",
    "10.5.0.0/20",
    "10.5.0.0/16",
  ]);
  assert.deepEqual(log.events, ["error net-conf-refused"]);
});

Deno.test("followNetConf: rejects if the first is not valid, and names the store", async () => {
  await assert.rejects(networks(from("{", LARGE), new RecordingLog()), {
    name: "ConfigError",
    message: /^store: net-conf is not JSON/,
  });
});

Deno.test("readNetConf: passes what was wrong as the cause", () => {
  assert.throws(
    () => readNetConf("{", "store"),
    (error: Error) => error.cause instanceof ConfigError,
  );
});

Deno.test("awaitNetConf: says once that it waits, and only if there is none at first", async () => {
  for (
    const [stored, events] of [
      [[undefined, undefined, LARGE], ["info net-conf-awaited"]],
      [[LARGE, undefined, SMALL], []],
    ] as const
  ) {
    const log = new RecordingLog();
    const present = await Array.fromAsync(
      awaitNetConf(from<string | undefined>(...stored), "store", log),
    );
    assert.deepEqual(present, stored.filter((text) => text !== undefined));
    assert.deepEqual(log.events, events);
  }
});
