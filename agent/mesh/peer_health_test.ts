import assert from "node:assert/strict";
import { type Health, PeerHealths, type Question } from "./peer_health.ts";

/** One round: which questions are answered, and which are not. */
type Round = readonly [answered: readonly Question[], missed: readonly Question[]];

const ALL = ["small", "large", "udp", "plain", "outer"] as const;
const WELL: Round = [ALL, []];

/** The healths after each round, one a second; `heard` says that the peer's own probes come in all the while. */
function story(rounds: readonly Round[], heard = false): Health[] {
  const health = new PeerHealths().add(0, 0);
  return rounds.map(([answered, missed], index) => {
    const nowMs = 1000 * (index + 1);
    if (heard) health.heard(nowMs);
    for (const question of missed) health.missed(question);
    for (const question of answered) health.answered(question, 1);
    health.judge(nowMs);
    return health.health;
  });
}

const times = (count: number, round: Round): Round[] => Array.from({ length: count }, () => round);

const TROUBLES: readonly (readonly [Health, Round])[] = [
  ["mtu", [["small", "udp", "plain", "outer"], ["large"]]],
  ["checksum", [["small", "large", "plain", "outer"], ["udp"]]],
  ["blocked", [["outer"], ["small", "large", "udp", "plain"]]],
  ["no-answer", [[], ALL]],
];

for (const [health, round] of TROUBLES) {
  Deno.test(`peer health: ${health} is named after some rounds, and over after some others`, () => {
    const healths = story([WELL, ...times(6, round), ...times(3, WELL)]);
    assert.equal(healths[0], "ok");
    assert.equal(healths[2], "ok", "two losses may be chance");
    assert.equal(healths[6], health);
    assert.deepEqual(new Set(healths), new Set(["ok", health]), "no other name on the way");
    assert.deepEqual(healths.slice(7), [health, health, "ok"]);
  });
}

Deno.test("peer health: one that is heard and gets no answer on the underlay is cut off one way", () => {
  assert.equal(story([WELL, ...times(4, [[], ALL])], true).at(-1), "one-way");
  assert.equal(story([WELL, ...times(4, [["outer"], ["small", "large"]])], true).at(-1), "blocked");
});

Deno.test("peer health: one that has yet to answer for the first time gets more time", () => {
  const [answered, missed]: Round = [["outer"], ["small", "large", "udp", "plain"]];
  const healths = story([...times(13, [answered, missed]), ...times(3, WELL)]);
  assert.equal(healths[9], "unknown");
  assert.equal(healths[12], "blocked");
  assert.equal(healths.at(-1), "ok");
});

Deno.test("peer health: a firewall that refuses no datagram aloud is no trouble", () => {
  const silent: Round = [["small", "large", "outer"], ["udp", "plain"]];
  const health = new PeerHealths().add(0, 0);
  for (let round = 0; round < 10; round++) {
    for (const question of silent[1]) health.missed(question);
    for (const question of silent[0]) health.answered(question, 1);
    health.judge(round);
    assert.equal(health.health, "ok");
  }
  assert.ok(health.isMute);
  assert.ok(!health.needsAttention);
});

Deno.test("peer health: a loss now and then is no trouble, but is counted", () => {
  const health = new PeerHealths().add(0, 0);
  for (let round = 1; round <= 320; round++) {
    if (round % 16 === 0) health.missed("large");
    else health.answered("large", 2);
    assert.equal(health.judge(round), round === 1);
    assert.equal(health.needsAttention, round % 16 === 0);
  }
  assert.equal(health.loss, 2 / 32);
  assert.equal(health.roundTripMs, 2);
});

Deno.test("peer health: one that answers and whose agent probes no more has no agent, until it does again", () => {
  const health = new PeerHealths().add(0, 0);
  const healths = Array.from({ length: 30 }, (_, index) => {
    const nowMs = 1000 * (index + 1);
    if (index < 10 || index >= 20) health.heard(nowMs);
    health.answered("large", 1);
    health.judge(nowMs, nowMs, 7000);
    return health.health;
  });
  // Heard at 10 s for the last time, and for the first time again at 21 s.
  assert.equal(healths.indexOf("no-agent"), 17);
  assert.equal(healths.lastIndexOf("no-agent"), 21);
  assert.deepEqual(new Set(healths), new Set(["ok", "no-agent"]));
});

Deno.test("peer health: one that never probed, as flannel's, is not missed", () => {
  const health = new PeerHealths().add(0, 0);
  for (let nowMs = 0; nowMs < 100_000; nowMs += 1000) {
    health.answered("large", 1);
    health.judge(nowMs, nowMs, 7000);
  }
  assert.equal(health.health, "ok");
});

Deno.test("peer health: a datagram that is lost right after an outage is no broken checksum", () => {
  const after: Round = [["small", "large", "plain", "outer"], ["udp"]];
  const healths = story([WELL, ...times(20, [[], ALL]), ...times(3, after), ...times(4, WELL)]);
  assert.deepEqual(new Set(healths), new Set(["ok", "no-answer"]));
  assert.equal(healths.at(-1), "ok");
});

Deno.test("peer health: as a cut ends, neither what comes in first nor an agent that starts is trouble", () => {
  const health = new PeerHealths().add(0, 0);
  const healths = Array.from({ length: 40 }, (_, index) => {
    const nowMs = 1000 * (index + 1);
    const isCut = index >= 5 && index < 20;
    // It is heard 2 s before it answers, and then its agent starts again.
    if (index < 5 || index === 18 || index === 19 || index > 25) health.heard(nowMs);
    for (const question of ALL) isCut ? health.missed(question) : health.answered(question, 1);
    health.judge(nowMs, nowMs, 7000);
    return health.health;
  });
  assert.deepEqual(new Set(healths), new Set(["ok", "no-answer"]));
});
