import { RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { FakeClock, settled } from "../../tests/support/fake_clock.ts";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { eventually } from "../../tests/support/wait.ts";
import { BadNews } from "./bad_news.ts";
import type { Trouble } from "./mesh_report.ts";

const TROUBLE: Trouble = { subnet: "10.5.2.0/24", health: "mtu", sinceMs: 0 };

const SUMMARY = "2 other nodes are in trouble: 10.5.2.0/24 (mtu), 10.5.2.0/24 (mtu)";

Deno.test("bad news are told when they change, taken away when over, and told again if refused", async () => {
  const [clock, log, stop] = [new FakeClock(), new RecordingLog(), new AbortController()];
  let troubles: Trouble[] = [];
  let refuses = false;
  const notes: (string | undefined)[] = [];
  const news = new BadNews({
    store: {
      writeNote: (key, note) => {
        assert.equal(key, "10.5.1.0-24");
        if (refuses) return Promise.reject(new RuntimeError("read-only"));
        notes.push(note && `${JSON.parse(note.text).count}: ${note.summary}`);
        return Promise.resolve();
      },
    },
    key: () => "10.5.1.0-24",
    troubles: () => troubles,
    nodes: () => 3,
    clock,
    log,
  });
  const running = news.run(stop.signal);
  const next = async () => {
    news.changed();
    await settled();
    await clock.advance(500);
  };
  await settled();
  assert.deepEqual(notes, [undefined], "an earlier run's note goes");
  troubles = [TROUBLE, TROUBLE];
  await next();
  troubles = [];
  await next();
  await next();
  assert.deepEqual(notes, [undefined, `2: ${SUMMARY}`, undefined], "nothing is not told twice");
  refuses = true;
  troubles = [TROUBLE];
  await next();
  assert.deepEqual(log.events, ["warn bad-news-untold"]);
  refuses = false;
  await eventually("told again", async () => {
    await clock.advance(500);
    return notes.length === 4;
  });
  stop.abort();
  await running;
});

Deno.test("in a large cluster news that go on and on make few notes, the last of them too, and later ones are soon told", async () => {
  const [clock, stop] = [new FakeClock(), new AbortController()];
  let troubles: Trouble[] = [];
  /** How many each note tells of. */
  const notes: number[] = [];
  const news = new BadNews({
    store: {
      writeNote: (_key, note) => {
        notes.push(note === undefined ? 0 : JSON.parse(note.text).count);
        return Promise.resolve();
      },
    },
    key: () => "10.5.1.0-24",
    troubles: () => troubles,
    nodes: () => 5_000,
    clock,
    log: new RecordingLog(),
  });
  const running = news.run(stop.signal);
  const pass = async (seconds: number, change: () => void = () => {}) => {
    for (let second = 0; second < seconds; second++) {
      change();
      await clock.advance(1_000);
    }
  };
  await settled();
  await pass(60);
  notes.length = 0;
  const one = () => {
    troubles = [...troubles, TROUBLE];
    news.changed();
  };
  await pass(1, one);
  assert.deepEqual(notes, [1], "the first is told at once");
  await pass(119, one);
  assert.ok(notes.length >= 4 && notes.length <= 9, `${notes.length} notes of 120 news`);
  await pass(50);
  assert.equal(notes.at(-1), 120);
  const { length } = notes;
  await pass(50);
  assert.equal(notes.length, length);
  troubles = [];
  news.changed();
  await pass(1);
  assert.equal(notes.at(-1), 0);
  stop.abort();
  await running;
});
