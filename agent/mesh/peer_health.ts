/**
 * How a peer is, judged by which probes it answers.
 *
 * @module
 */

import { withRoom } from "@denim/core/row-index";

/**
 * What is asked of a peer: `small`, an echo of the shortest packet over the data path; `large`, one of the largest packet
 * that pods may send; `udp`, whether a datagram arrives with the checksum that the kernel or a device did; `plain`,
 * whether one arrives that needs no such checksum; `outer`, an echo of its address on the underlay.
 */
export type Question = "small" | "large" | "udp" | "plain" | "outer";

/**
 * How a peer is:
 *
 * - `unknown`: it was not judged yet
 * - `ok`: packets of every size reach it, and come back
 * - `mtu`: small packets do, the largest do not
 * - `checksum`: datagrams whose checksum a device does are refused, others are not
 * - `blocked`: its address on the underlay answers, its subnet does not: something drops the data path's packets
 * - `one-way`: its packets come in, and nothing that this node sends is answered, on the underlay neither
 * - `no-answer`: its address on the underlay does not answer either: it is down, or the underlay is cut
 * - `no-agent`: it answers everything, and its agent, which probed this node, does so no more
 */
export type Health =
  | "unknown"
  | "ok"
  | "mtu"
  | "checksum"
  | "blocked"
  | "one-way"
  | "no-answer"
  | "no-agent";

/** Every health that there is. */
export const HEALTHS: readonly Health[] = [
  "unknown",
  "ok",
  "mtu",
  "checksum",
  "blocked",
  "one-way",
  "no-answer",
  "no-agent",
];

/** Whether a health is a trouble. */
export function isTrouble(health: Health): boolean {
  return health !== "ok" && health !== "unknown";
}

/** What each trouble means, as a sentence's end for operators: "peer 10.5.2.0/24 …". */
export const MEANING: Readonly<Record<Exclude<Health, "unknown">, string>> = {
  "ok": "is well",
  "mtu": "gets small packets and not the largest: the path's MTU is too small; lower net-conf's " +
    "Backend.MTU, or let the underlay carry larger packets",
  "checksum":
    "refuses datagrams whose checksum a device did: checksum offload is broken; switch it off " +
    "(ethtool -K flannel.1 tx off)",
  "blocked":
    "answers on the underlay and not over the data path: a firewall drops the backend's packets, " +
    "or nobody takes them there",
  "one-way":
    "sends packets that arrive here, and does not get this node's: the underlay is cut one way",
  "no-answer":
    "answers neither over the data path nor on the underlay: the node is down, or the underlay " +
    "between is cut",
  "no-agent":
    "carries pods' packets, and its agent does not probe this node any more: the agent has ended, or hangs",
};

/** So many small packets in a row have to be lost: one may be by chance. */
const FEW = 3;
/** So many from a peer that never answered: its node may be about to come up, or to agree on keys. */
const PATIENT = 12;
/** So many others, of which more are sent. */
const MORE = 4;
/** A peer whose packets came in so short a time ago can send, in milliseconds. */
const HEARD_MS = 5_000;
/** For so long after answers began to be missing, what comes in may have been sent before, in milliseconds. */
const LAST_WORDS_MS = 1_500;
/** For so long one that answers nothing is listened to before it is said not to answer, in milliseconds. */
const LISTEN_MS = 3_500;
/** As a cut ends, one side may be so far ahead of the other, in milliseconds. */
const AHEAD_MS = 3_000;
/** A peer has to be well in so many judgements in a row. */
const CALM = 3;
/** How many results the loss is counted over. */
const WINDOW = 32;

const EVERYTHING: readonly Question[] = ["small", "large", "outer", "udp", "plain"];
/** As much as shows that one that is known to be silent, or has yet to answer for the first time, is so no more. */
const SIGNS_OF_LIFE: readonly Question[] = ["small", "outer"];

/** What is remembered of a peer as a byte, by its place: its health, two counts, and missing answers to each question. */
const HEALTH = 0, CALM_ROUNDS = 1, COUNT = 2;
const MISSING: Readonly<Record<Question, number>> = {
  small: 3,
  large: 4,
  udp: 5,
  plain: 6,
  outer: 7,
};
const BYTES = 8;
/** A question that was never asked; more answers than fit below are not counted. */
const NEVER_ASKED = 255, MAX_MISSING = 254;
/** What is remembered as a number, by its place; NaN if there is none. */
const SINCE = 0,
  HEARD_AT = 1,
  HEARD_SINCE = 2,
  ANSWERS_SINCE = 3,
  MISSING_SINCE = 4,
  ROUND_TRIP = 5;
const TIMES = 6;

/** How many peers are: 60 bytes for each, in a row that it is given. */
export class PeerHealths {
  /** @internal */
  bytes = new Uint8Array(0);
  /** @internal The latest results, one a bit, the last one lowest; 1 is a loss. */
  results = new Int32Array(0);
  /** @internal */
  times = new Float64Array(0);

  /** A peer's health in a row that is there. */
  at(row: number): PeerHealth {
    return new PeerHealth(this, row);
  }

  /** A peer that was not judged yet. Times are in milliseconds, by any clock. */
  add(row: number, nowMs: number): PeerHealth {
    this.#makeRoom(row);
    this.bytes.fill(0, row * BYTES, row * BYTES + Math.min(...Object.values(MISSING)));
    this.bytes.fill(
      NEVER_ASKED,
      row * BYTES + Math.min(...Object.values(MISSING)),
      (row + 1) * BYTES,
    );
    this.results[row] = 0;
    this.times.fill(NaN, row * TIMES, (row + 1) * TIMES);
    this.times[row * TIMES + SINCE] = nowMs;
    return this.at(row);
  }

  /** A peer that is as another one was. */
  copy(row: number, from: number): void {
    this.#makeRoom(row);
    this.bytes.copyWithin(row * BYTES, from * BYTES, (from + 1) * BYTES);
    this.results[row] = this.results[from]!;
    this.times.copyWithin(row * TIMES, from * TIMES, (from + 1) * TIMES);
  }

  #makeRoom(row: number): void {
    this.bytes = withRoom(this.bytes, (row + 1) * BYTES - 1);
    this.results = withRoom(this.results, row);
    this.times = withRoom(this.times, (row + 1) * TIMES - 1);
  }
}

/** One peer's health in one family, in a row of {@link PeerHealths}. */
export class PeerHealth {
  readonly #of: PeerHealths;
  readonly #row: number;

  /** The health in a row. */
  constructor(of: PeerHealths, row: number) {
    this.#of = of;
    this.#row = row;
  }

  #byte(place: number): number {
    return this.#of.bytes[this.#row * BYTES + place]!;
  }

  #setByte(place: number, value: number): void {
    this.#of.bytes[this.#row * BYTES + place] = value;
  }

  #time(place: number): number | undefined {
    const time = this.#of.times[this.#row * TIMES + place]!;
    return Number.isNaN(time) ? undefined : time;
  }

  #setTime(place: number, time: number | undefined): void {
    this.#of.times[this.#row * TIMES + place] = time ?? NaN;
  }

  /** How many answers to a question were missing in a row; `undefined` before the first result. */
  #missing(question: Question): number | undefined {
    const count = this.#byte(MISSING[question]);
    return count === NEVER_ASKED ? undefined : count;
  }

  /** How it is. */
  get health(): Health {
    return HEALTHS[this.#byte(HEALTH)]!;
  }

  /** Since when. */
  get sinceMs(): number {
    return this.#time(SINCE)!;
  }

  /** How long an answer took, in milliseconds, smoothed; `undefined` before the first one. */
  get roundTripMs(): number | undefined {
    return this.#time(ROUND_TRIP);
  }

  /** Which share of the latest probes over the data path was lost, from 0 to 1; `undefined` before the first one. */
  get loss(): number | undefined {
    const count = this.#byte(COUNT);
    return count === 0 ? undefined : bits(this.#of.results[this.#row]!) / count;
  }

  /** Whether the latest answer to a question is missing. */
  #missed(question: Question): boolean {
    return (this.#missing(question) ?? 0) > 0;
  }

  /** Whether it left echo requests over the data path unanswered lately. */
  get isMissed(): boolean {
    return this.#missed("small") || this.#missed("large");
  }

  /** Whether it has to be asked everything, often: it is in trouble, or may be. */
  get needsAttention(): boolean {
    return this.isMissed || this.#mayRefuseChecksums || isTrouble(this.health);
  }

  /** What to ask one that needs attention. */
  get questions(): readonly Question[] {
    const isSilent = this.#missed("small") && isTrouble(this.health);
    return isSilent || this.roundTripMs === undefined ? SIGNS_OF_LIFE : EVERYTHING;
  }

  /** Whether it was ever asked for a datagram and nothing says that it never answers those. */
  get #mayRefuseChecksums(): boolean {
    return this.#missed("udp") && (this.#missing("plain") ?? 0) < MORE;
  }

  /** Whether it answers no datagrams to closed ports at all, as behind a firewall. */
  get isMute(): boolean {
    return this.#missed("udp") && (this.#missing("plain") ?? 0) >= MORE;
  }

  /** It answered. */
  answered(question: Question, roundTripMs: number): void {
    this.#setByte(MISSING[question], 0);
    if (question === "outer") return;
    // Any answer over the data path shows that small packets pass.
    this.#setByte(MISSING.small, 0);
    this.#note(0);
    const before = this.roundTripMs;
    // As TCP smooths it (RFC 6298).
    const now = before === undefined ? roundTripMs : before + (roundTripMs - before) / 8;
    this.#setTime(ROUND_TRIP, now);
  }

  /** It did not. */
  missed(question: Question): void {
    const before = this.#missing(question) ?? 0;
    this.#setByte(MISSING[question], Math.min(before + 1, MAX_MISSING));
    // A datagram may go unanswered because the peer's kernel limits how many it refuses.
    if (question === "small" || question === "large") this.#note(1);
  }

  #note(result: 0 | 1): void {
    this.#of.results[this.#row] = this.#of.results[this.#row]! << 1 | result;
    this.#setByte(COUNT, Math.min(this.#byte(COUNT) + 1, WINDOW));
  }

  /** A packet came from its agent over the data path, at a time as {@link PeerHealth.judge} has it. */
  heard(nowMs: number): void {
    if (nowMs - (this.#time(HEARD_AT) ?? -Infinity) > HEARD_MS) this.#setTime(HEARD_SINCE, nowMs);
    this.#setTime(HEARD_AT, nowMs);
  }

  /** Whether nothing is wrong with it. */
  get isWell(): boolean {
    return this.health === "ok" && !this.needsAttention;
  }

  /**
   * Judges by all that is known now. Returns whether the health is another.
   *
   * @param nowMs the time, by a clock that stands still while nobody reads what comes in
   * @param dateMs the time by the clock of {@link PeerHealth.sinceMs}
   * @param silentMs after so long without a packet from it a peer's agent that was heard has ended, in milliseconds
   */
  judge(nowMs: number, dateMs: number = nowMs, silentMs: number = Infinity): boolean {
    const missingSinceMs = this.#time(MISSING_SINCE);
    if (this.#missed("small")) {
      this.#setTime(MISSING_SINCE, missingSinceMs ?? nowMs);
      // Where nothing answers, that does not answer either. What it would have said before is not known afterwards.
      for (const question of EVERYTHING) {
        if (!SIGNS_OF_LIFE.includes(question)) this.#setByte(MISSING[question], NEVER_ASKED);
      }
    } else if (missingSinceMs !== undefined) {
      this.#setTime(MISSING_SINCE, undefined);
      this.#setTime(ANSWERS_SINCE, nowMs);
    }
    const next = this.#judgement(nowMs, silentMs);
    if (next === undefined) return false;
    const calm = next === "ok" ? Math.min(this.#byte(CALM_ROUNDS) + 1, CALM) : 0;
    this.#setByte(CALM_ROUNDS, calm);
    if (next === this.health) return false;
    if (next === "ok" && this.health !== "unknown" && calm < CALM) return false;
    this.#setByte(HEALTH, HEALTHS.indexOf(next));
    this.#setTime(SINCE, dateMs);
    return true;
  }

  /** Of a peer that answers nothing: whether it is heard. `undefined` before it had time to be. */
  #silence(nowMs: number): Health | undefined {
    const sinceMs = this.#time(MISSING_SINCE) ?? nowMs;
    const heardAtMs = this.#time(HEARD_AT) ?? -Infinity;
    if (heardAtMs > sinceMs + LAST_WORDS_MS && nowMs - heardAtMs < HEARD_MS) {
      return nowMs - this.#time(HEARD_SINCE)! < AHEAD_MS ? undefined : "one-way";
    }
    return nowMs - sinceMs < LISTEN_MS ? undefined : "no-answer";
  }

  /** `undefined` while it may be chance. */
  #judgement(nowMs: number, silentMs: number): Health | undefined {
    const small = this.#missing("small"), outer = this.#missing("outer");
    const large = this.#missing("large") ?? 0, udp = this.#missing("udp") ?? 0;
    if (small === undefined) return undefined;
    if (small >= (this.roundTripMs === undefined ? PATIENT : FEW)) {
      if (outer === 0) return "blocked";
      if (outer === undefined || outer < FEW) return undefined;
      return this.#silence(nowMs);
    }
    if (small > 0) return undefined;
    if (large >= MORE) return "mtu";
    if (udp >= MORE && this.#missing("plain") === 0) return "checksum";
    const isDoubtful = large > 0 || this.health === "checksum" && this.#mayRefuseChecksums;
    if (isDoubtful) return undefined;
    // Before the first time nothing says that it has an agent that probes; after an outage it has time again.
    const heardAtMs = this.#time(HEARD_AT);
    if (heardAtMs === undefined) return "ok";
    const lastMs = Math.max(heardAtMs, this.#time(ANSWERS_SINCE) ?? -Infinity);
    return nowMs - lastMs > silentMs ? "no-agent" : "ok";
  }
}

function bits(value: number): number {
  let count = 0;
  for (let rest = value >>> 0; rest !== 0; rest >>>= 1) count += rest & 1;
  return count;
}
