/**
 * How a peer is, judged by which probes it answers.
 *
 * @module
 */

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
/**
 * A peer's agent that is not heard for so long, in milliseconds, and for so many of the times in which it asks each peer
 * once, has ended: one that is started again is back before.
 */
const SILENT_MS = 4_000, SILENT_TURNS = 3;
/** For so long one that answers nothing is listened to before it is said not to answer, in milliseconds. */
const LISTEN_MS = 3_500;
/** As a cut ends, one side may be so far ahead of the other, in milliseconds. */
const AHEAD_MS = 3_000;
/** A peer has to be well in so many judgements in a row. */
const CALM = 3;
/** How many results the loss is counted over. */
const WINDOW = 32;

const EVERYTHING: readonly Question[] = ["small", "large", "outer", "udp", "plain"];
/** As much as shows that one that is known to be silent is so no more. */
const SIGNS_OF_LIFE: readonly Question[] = ["small", "outer"];

/** One peer's health in one family. */
export class PeerHealth {
  /** How many answers to each question were missing in a row; `undefined` before the first result. */
  #missing: Partial<Record<Question, number>> = {};
  #health: Health = "unknown";
  #sinceMs: number;
  #calm = 0;
  #heardAtMs = -Infinity;
  /** Since when it is heard, without a long pause. */
  #heardSinceMs = -Infinity;
  /** Since when it answers. */
  #answersSinceMs = -Infinity;
  /** When it was first found that answers are missing; `undefined` while none is. */
  #missingSinceMs: number | undefined;
  /** The latest results, one a bit, the last one lowest; 1 is a loss. */
  #results = 0;
  #count = 0;
  #roundTripMs: number | undefined;

  /** Not judged yet. Times are in milliseconds, by any clock. */
  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  /** How it is. */
  get health(): Health {
    return this.#health;
  }

  /** Since when. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** How long an answer took, in milliseconds, smoothed; `undefined` before the first one. */
  get roundTripMs(): number | undefined {
    return this.#roundTripMs;
  }

  /** Which share of the latest probes over the data path was lost, from 0 to 1; `undefined` before the first one. */
  get loss(): number | undefined {
    return this.#count === 0 ? undefined : bits(this.#results) / this.#count;
  }

  /** Whether it has to be asked everything, often: it is in trouble, or may be. */
  get needsAttention(): boolean {
    const { small = 0, large = 0 } = this.#missing;
    return small > 0 || large > 0 || this.#mayRefuseChecksums ||
      isTrouble(this.#health);
  }

  /** What to ask one that needs attention. */
  get questions(): readonly Question[] {
    const { small = 0 } = this.#missing;
    return small > 0 && isTrouble(this.#health) ? SIGNS_OF_LIFE : EVERYTHING;
  }

  /** Whether it was ever asked for a datagram and nothing says that it never answers those. */
  get #mayRefuseChecksums(): boolean {
    const { udp = 0, plain = 0 } = this.#missing;
    return udp > 0 && plain < MORE;
  }

  /** Whether it answers no datagrams to closed ports at all, as behind a firewall. */
  get isMute(): boolean {
    const { udp = 0, plain = 0 } = this.#missing;
    return udp > 0 && plain >= MORE;
  }

  /** It answered. */
  answered(question: Question, roundTripMs: number): void {
    this.#missing[question] = 0;
    if (question === "outer") return;
    // Any answer over the data path shows that small packets pass.
    this.#missing.small = 0;
    this.#note(0);
    const before = this.#roundTripMs;
    // As TCP smooths it (RFC 6298).
    this.#roundTripMs = before === undefined ? roundTripMs : before + (roundTripMs - before) / 8;
  }

  /** It did not. */
  missed(question: Question): void {
    this.#missing[question] = (this.#missing[question] ?? 0) + 1;
    // A datagram may go unanswered because the peer's kernel limits how many it refuses.
    if (question === "small" || question === "large") this.#note(1);
  }

  #note(result: 0 | 1): void {
    this.#results = this.#results << 1 | result;
    this.#count = Math.min(this.#count + 1, WINDOW);
  }

  /** A packet came from its agent over the data path, at a time as {@link PeerHealth.judge} has it. */
  heard(nowMs: number): void {
    if (nowMs - this.#heardAtMs > HEARD_MS) this.#heardSinceMs = nowMs;
    this.#heardAtMs = nowMs;
  }

  /**
   * Judges by all that is known now. Returns whether the health is another.
   *
   * @param nowMs the time, by a clock that stands still while nobody reads what comes in
   * @param dateMs the time by the clock of {@link PeerHealth.sinceMs}
   * @param turnsMs the time in which peers' agents ask each of theirs once
   */
  judge(nowMs: number, dateMs: number = nowMs, turnsMs: number = Infinity): boolean {
    if (this.#missing.small) this.#missingSinceMs ??= nowMs;
    else if (this.#missingSinceMs !== undefined) {
      this.#missingSinceMs = undefined;
      this.#answersSinceMs = nowMs;
    }
    // Where nothing answers, that does not answer either. What it would have said before is not known afterwards.
    if (this.#missingSinceMs !== undefined) this.#missing = pick(this.#missing, SIGNS_OF_LIFE);
    const next = this.#judgement(nowMs, turnsMs);
    if (next === undefined) return false;
    this.#calm = next === "ok" ? this.#calm + 1 : 0;
    if (next === this.#health) return false;
    if (next === "ok" && this.#health !== "unknown" && this.#calm < CALM) return false;
    this.#health = next;
    this.#sinceMs = dateMs;
    return true;
  }

  /** Of a peer that answers nothing: whether it is heard. `undefined` before it had time to be. */
  #silence(nowMs: number): Health | undefined {
    const sinceMs = this.#missingSinceMs ?? nowMs;
    if (this.#heardAtMs > sinceMs + LAST_WORDS_MS && nowMs - this.#heardAtMs < HEARD_MS) {
      return nowMs - this.#heardSinceMs < AHEAD_MS ? undefined : "one-way";
    }
    return nowMs - sinceMs < LISTEN_MS ? undefined : "no-answer";
  }

  /** `undefined` while it may be chance. */
  #judgement(nowMs: number, turnsMs: number): Health | undefined {
    const { small, large = 0, udp = 0, plain, outer } = this.#missing;
    if (small === undefined) return undefined;
    if (small >= (this.#roundTripMs === undefined ? PATIENT : FEW)) {
      if (outer === 0) return "blocked";
      if (outer === undefined || outer < FEW) return undefined;
      return this.#silence(nowMs);
    }
    if (small > 0) return undefined;
    if (large >= MORE) return "mtu";
    if (udp >= MORE && plain === 0) return "checksum";
    const isDoubtful = large > 0 || this.#health === "checksum" && this.#mayRefuseChecksums;
    if (isDoubtful) return undefined;
    // Before the first time nothing says that it has an agent that probes; after an outage it has time again.
    const isSilent = this.#heardAtMs > -Infinity &&
      nowMs - Math.max(this.#heardAtMs, this.#answersSinceMs) > SILENT_MS + SILENT_TURNS * turnsMs;
    return isSilent ? "no-agent" : "ok";
  }
}

function pick(
  missing: Partial<Record<Question, number>>,
  questions: readonly Question[],
): Partial<Record<Question, number>> {
  return Object.fromEntries(questions.flatMap((question) => {
    const count = missing[question];
    return count === undefined ? [] : [[question, count]];
  }));
}

function bits(value: number): number {
  let count = 0;
  for (let rest = value >>> 0; rest !== 0; rest >>>= 1) count += rest & 1;
  return count;
}
