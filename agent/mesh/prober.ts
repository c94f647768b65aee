/**
 * Probing the peers over the data path that pods use. It needs nothing of a peer but a kernel, so flannel's nodes are
 * probed as well.
 *
 * Once a second the prober reads what came, judges the peers that it asked a second ago, and asks the next ones, in a few
 * system calls for all. In turn each peer is asked one thing: for its largest packet, or to refuse a datagram. One that
 * does not answer is asked everything, every second, until it is clear how it is.
 *
 * With many peers, two agents share the work and ask each other in turns: one that was just asked knows that the peer's
 * packets come in, and the peer knows whether the answer came back; if not, it says so when it asks again. Whose turn it
 * is, nobody has to agree on: who was asked asks next, and who has asked does so again only if the peer is late.
 *
 * @module
 */

import {
  type Clock,
  type Counter,
  EventCounter,
  FAMILIES,
  type Family,
  type Histogram,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  type Metrics,
  NO_ROW,
  throwDefect,
  withRoom,
} from "@denim/core";
import {
  MIN_PROBE_BYTES,
  type Probe,
  type ProbeListener,
  ProbeSocket,
} from "@denim/core/linux/probe-socket";
import type { ListedPeer, PeerListener } from "../peer_list.ts";
import { ADDRESS_BYTES, HalfRows, startsAt } from "./half_rows.ts";
import type { Trouble } from "./mesh_report.ts";
import {
  type Health,
  HEALTHS,
  isTrouble,
  MEANING,
  type PeerHealth,
  PeerHealths,
  type Question,
} from "./peer_health.ts";

/** The time for answers, and between rounds, in milliseconds. */
const TICK_MS = 1000;
/** A round that comes later was not the peers' fault: the time beyond that does not count against them. */
const LATE_MS = 2 * TICK_MS;
/** In so many rounds each peer has its turn. */
const ROUNDS = 60;
/** So many turns a round at the most: beyond that, all peers take longer than {@link ROUNDS}. */
const MAX_TURNS = 100;
/** In one round so many times as many peers as usual have their turn at the most. */
const MAX_CROWD = 2;
/** Turns are shared with peers where so many rounds lie between them: with fewer peers it would save little. */
const SHARED_FROM_ROUNDS = 30;
/** By so many rounds who was asked comes before who has asked: their rounds are not at the same time. */
const LEAD_ROUNDS = 2;
/** A peer that is heard all the time, as one that is in trouble, is asked after as many times the rounds between turns. */
const MAX_PUT_OFF = 3;
/**
 * Of so many packets for a peer in its turns one is a datagram. Where turns are shared there are fewer: the peer's agent
 * does not hear a datagram and asks itself, and a broken device shows with one of many peers at once.
 */
const DATAGRAM_TURNS = 2, SHARED_DATAGRAM_TURNS = 32;
/**
 * A peer's agent that is not heard for so long, in milliseconds, and so many times the rounds between turns has ended: one
 * that is started again is back before. Where turns are shared every other one is its own, or a third if one of them is
 * for a datagram.
 */
const SILENT_MS = 4_000, SILENT_TURNS = 3, SHARED_SILENT_TURNS = 4;
/** A round that does not come: one a second, there are fewer in 68 years. */
const NEVER = 0x7fff_ffff;
/** Changes of one round that are logged one by one; more are summed up. */
const MAX_LINES = 5;
/** So many sizes are tried at once while the largest packet that gets through is looked for. */
const SEARCHED_SIZES = 8;
/** Bits of a sequence number that tell a round's probes apart; those above tell the rounds apart. */
const INDEX_BITS = 13;
/**
 * What an echo request says of itself: whether it came over the data path, and there, whether its sender misses answers
 * and the receiver had better look itself.
 */
const TAG = { inner: 1, outer: 2, doubtful: 3 } as const;
/** Bounds for round trips, in seconds. */
const ROUND_TRIP_SECONDS = [
  0.0001,
  0.00025,
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.5,
  1,
];
/** Bounds for the share of a peer's probes that are lost. */
const LOSS_RATIOS = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1];

/** What carries probes: {@link ProbeSocket}. */
export type ProbeWire = Pick<ProbeSocket, "send" | "receive" | typeof Symbol.dispose>;

/** What a {@link Prober} works with. */
export interface ProberOptions {
  /** By which rounds follow one another. */
  readonly clock: Clock;
  /** Told when a peer is in trouble, and when it is well again. */
  readonly log: Logger;
  /** Takes round trips, losses, and how many peers are how. */
  readonly metrics: Metrics;
  /** Told when peers are in trouble that were not, or the other way round. */
  readonly onChange?: () => void;
  /** Opens what carries probes; sockets in this thread's network namespace unless given. */
  readonly open?: (family: Family) => ProbeWire;
  /** The time by which healths are dated, in milliseconds since 1970; the system's unless given. */
  readonly now?: () => number;
}

/** How one half of a peer is. */
export interface ProbedHalf {
  /** How it is. */
  readonly health: Health;
  /** Since when, in milliseconds since 1970. */
  readonly sinceMs: number;
  /** How long an answer takes, in milliseconds; `undefined` before the first one. */
  readonly roundTripMs: number | undefined;
  /** Which share of the latest probes was lost, from 0 to 1. */
  readonly loss: number | undefined;
  /** The largest packet that reaches it, in bytes; `undefined` if that is not known. */
  readonly pathMtuBytes: number | undefined;
}

/** A half of a peer that is asked in this round. Rounds use the same objects, and leave nothing to collect. */
interface Target {
  /** Its row; {@link NO_ROW} once it has left or was replaced. */
  row: number;
  health: PeerHealth;
  /** What was asked in this round and is answered under the address alone. */
  udp: Asked | undefined;
  plain: Asked | undefined;
}

/** The largest packet is at least as long as `low` and at most as `high`, while it is looked for. */
interface Search {
  low: number;
  high: number;
}

/** A question that is under way. */
interface Asked {
  target: Target;
  /** `search` looks for the largest packet that gets through. */
  question: Question | "search";
  readonly probe: Probe;
  /** When the answer came, in milliseconds since 1970; 0 if none has come. */
  answeredAtMs: number;
}

/**
 * Keeps what is known of each peer's health, up to date. A half of a peer is a row of a few columns of numbers; only those
 * that are asked in a round are objects meanwhile.
 */
export class Prober implements PeerListener {
  readonly #options: ProberOptions;
  readonly #wires = new Map<Family, ProbeWire>();
  readonly #halves = new HalfRows();
  /** For each row the next half of the same peer. */
  #nextHalves = new Int32Array(0);
  /** From which round on it has its turn, {@link NEVER} if it is not probed; and in which one it had it. */
  #due = new Int32Array(0);
  #turnIn = new Int32Array(0);
  /** In how many turns it was asked since the latest datagram. */
  #turns = new Uint8Array(0);
  readonly #healths = new PeerHealths();
  /** The row of each peer's first half, by the key of its lease. */
  readonly #peers = new Map<string, number>();
  readonly #searches = new Map<number, Search>();
  /** How many rows are probed, and the row that had its turn last of those that were late. */
  #probed = 0;
  #last = 0;
  /** Those that are in trouble or may be. */
  readonly #attention = new Set<number>();
  /** Those that are asked in this round, and behind them those that were in earlier ones. */
  readonly #targets: Target[] = [];
  #targetCount = 0;
  /** For each row its place among them, or {@link NO_ROW}. */
  #targetOf = new Int32Array(0);
  /** What is asked of them, and behind it what was. */
  readonly #asked: Asked[] = [];
  #askedCount = 0;
  /** What is sent of it, by family. */
  readonly #probes: Readonly<Record<Family, Probe[]>> = { 4: [], 6: [] };
  #round = 0;
  /** The time by which health is judged, which stands still while this process does; and when it was set. */
  #awakeMs = 0;
  #setAtMs: number | undefined;
  /** Counts peers that come. */
  readonly #arrivals = new EventCounter();
  readonly #counts = new Map<Health, number>(HEALTHS.map((health) => [health, 0]));
  readonly #sent = new Map<string, Counter>();
  readonly #lost = new Map<string, Counter>();
  readonly #roundTrips: Histogram;
  readonly #losses: Histogram;

  /** Without peers yet. */
  constructor(options: ProberOptions) {
    this.#options = options;
    const { metrics } = options;
    for (const health of HEALTHS) {
      metrics.gauge(
        "denim_probed_peers",
        "Other nodes' subnets, by how they are as probes over the data path show.",
        () => this.#counts.get(health)!,
        { health },
      );
    }
    for (const question of ["small", "large", "udp", "plain", "outer", "search"]) {
      const counter = (what: string, help: string) =>
        metrics.counter(`denim_probes_${what}_total`, help, { question });
      this.#sent.set(question, counter("sent", "Probes of other nodes, by what they ask."));
      this.#lost.set(question, counter("lost", "Probes of other nodes that were not answered."));
    }
    this.#roundTrips = metrics.histogram(
      "denim_probe_round_trip_seconds",
      "How long answers to probes over the data path took, in seconds.",
      ROUND_TRIP_SECONDS,
    );
    this.#losses = metrics.histogram(
      "denim_probe_loss_ratio",
      "Which share of a node's latest probes was lost, each time that it was probed.",
      LOSS_RATIOS,
    );
  }

  /** @inheritdoc */
  put({ key, way, halves }: ListedPeer): void {
    const before = this.#rowsOf(key);
    const rows = halves.map(({ subnet, publicIp, isDirect }, index) => {
      const { hasDeviceAddress } = way;
      // Without a tunnel's device a node has its subnet's gateway, once pods were there.
      const mtuBytes = hasDeviceAddress || isDirect ? way.mtuBytes : 0;
      const row = this.#halves.add({ subnet, publicIp, isNear: !hasDeviceAddress, mtuBytes });
      const was = before[index];
      if (was === undefined) this.#healths.add(row, this.#now());
      else this.#healths.copy(row, was);
      return row;
    });
    this.delete(key);
    rows.forEach((row, index) => {
      this.#nextHalves = withRoom(this.#nextHalves, row);
      this.#nextHalves[row] = rows[index + 1] ?? NO_ROW;
      this.#add(row);
    });
    if (rows.length > 0) this.#peers.set(key, rows[0]!);
    this.#arrivals.add();
  }

  #add(row: number): void {
    this.#due = withRoom(this.#due, row);
    this.#turnIn = withRoom(this.#turnIn, row);
    this.#turns = withRoom(this.#turns, row);
    this.#targetOf = withRoom(this.#targetOf, row);
    this.#due[row] = NEVER;
    this.#turnIn[row] = this.#round;
    this.#turns[row] = 0;
    this.#targetOf[row] = NO_ROW;
    if (!this.#isProbed(row)) return;
    this.#probed++;
    this.#due[row] = this.#round;
    this.#count(this.#healths.at(row).health, 1);
    this.#attention.add(row);
  }

  #isProbed(row: number): boolean {
    return this.#halves.mtuBytes(row) > 0;
  }

  /** The rows of a peer's halves. */
  #rowsOf(key: string): number[] {
    const rows: number[] = [];
    let row = this.#peers.get(key) ?? NO_ROW;
    for (; row !== NO_ROW; row = this.#nextHalves[row]!) rows.push(row);
    return rows;
  }

  /** @inheritdoc */
  delete(key: string): void {
    for (const row of this.#rowsOf(key)) {
      const isProbed = this.#isProbed(row);
      this.#halves.remove(row);
      if (!isProbed) continue;
      this.#probed--;
      this.#due[row] = NEVER;
      const target = this.#targetAt(row);
      if (target !== undefined) target.row = NO_ROW;
      this.#searches.delete(row);
      this.#attention.delete(row);
      const { health } = this.#healths.at(row);
      this.#count(health, -1);
      if (isTrouble(health)) this.#options.onChange?.();
    }
    this.#peers.delete(key);
  }

  #count(health: Health, by: number): void {
    this.#counts.set(health, this.#counts.get(health)! + by);
  }

  /** How a peer's halves are, in their order; `undefined` for one that is not probed. */
  of(key: string): readonly (ProbedHalf | undefined)[] {
    return this.#rowsOf(key).map((row) => {
      if (!this.#isProbed(row)) return undefined;
      const { health, sinceMs, roundTripMs, loss } = this.#healths.at(row);
      const search = this.#searches.get(row);
      const found = search?.low === search?.high ? search?.low : undefined;
      const passesAll = health === "ok" || health === "checksum" || health === "no-agent";
      const pathMtuBytes = passesAll ? this.#halves.mtuBytes(row) : found;
      return { health, sinceMs, roundTripMs, loss, pathMtuBytes };
    });
  }

  /** The peers that are in trouble. */
  troubles(): Trouble[] {
    return [...this.#attention].flatMap((row) => {
      const { health, sinceMs } = this.#healths.at(row);
      if (!isTrouble(health)) return [];
      return [{ subnet: `${this.#halves.subnet(row)}`, health, sinceMs }];
    });
  }

  /** Probes until the signal is aborted. If the kernel does not let it, the log says so, and it returns. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    try {
      while (await clock.sleep(clock.msToTick(TICK_MS), signal)) {
        this.tick();
        if (this.#probed > 0) continue;
        if (!await this.#arrivals.after(this.#arrivals.count, MAX_SLEEP_MS, signal)) return;
      }
    } catch (error) {
      throwDefect(error);
      log.warn("probes-off", `peers are not probed any more: ${messageOf(error)}`);
    } finally {
      for (const wire of this.#wires.values()) wire[Symbol.dispose]();
      this.#wires.clear();
    }
  }

  /** One round; {@link Prober.run} makes one each second. */
  tick(): void {
    const nowMs = this.#now();
    this.#awakeMs += Math.min(Math.max(nowMs - (this.#setAtMs ?? nowMs), 0), LATE_MS);
    this.#setAtMs = nowMs;
    for (const wire of this.#wires.values()) wire.receive(this.#listener);
    this.#settle();
    this.#ask();
  }

  readonly #listener: ProbeListener = {
    onAnswer: (sequence, from, atMs) => {
      const asked = this.#find(sequence);
      if (asked !== undefined && startsAt(asked.probe.to, 0, from)) asked.answeredAtMs = atMs;
    },
    onExpired: (sequence, _from, atMs) => {
      const asked = this.#find(sequence);
      if (asked?.probe.kind === "near") asked.answeredAtMs = atMs;
    },
    onClosed: (kind, from, atMs) => {
      const asked = this.#targetAt(this.#halves.from(from))?.[kind];
      if (asked !== undefined) asked.answeredAtMs = atMs;
    },
    onRequest: (tag, from) => {
      if (tag === TAG.outer) return;
      const row = this.#halves.from(from);
      if (row === NO_ROW) return;
      const health = this.#healths.at(row);
      health.heard(this.#awakeMs);
      if (!this.#isProbed(row)) return;
      if (tag === TAG.doubtful) this.#attention.add(row);
      else if (health.isWell) this.#putOff(row);
    },
  };

  /** The question of this round with a sequence number. */
  #find(sequence: number): Asked | undefined {
    const index = sequence & (1 << INDEX_BITS) - 1;
    const isThisRound = sequence >> INDEX_BITS === (this.#round & 7) && index < this.#askedCount;
    return isThisRound ? this.#asked[index] : undefined;
  }

  /** Takes the answers of the round, and judges the peers that were asked. */
  #settle(): void {
    const changed: Target[] = [];
    for (let index = 0; index < this.#askedCount; index++) {
      const asked = this.#asked[index]!;
      if (asked.target.row !== NO_ROW) this.#take(asked);
    }
    this.#askedCount = 0;
    const dateMs = this.#now();
    // Peers have as many peers, and ask them as often.
    const restRounds = this.#restRounds;
    const silentTurns = isShared(restRounds) ? SHARED_SILENT_TURNS : SILENT_TURNS;
    const silentMs = SILENT_MS + silentTurns * restRounds * TICK_MS;
    for (let index = 0; index < this.#targetCount; index++) {
      const target = this.#targets[index]!;
      const { row, health } = target;
      if (row === NO_ROW) continue;
      this.#targetOf[row] = NO_ROW;
      const before = health.health;
      if (health.judge(this.#awakeMs, dateMs, silentMs)) {
        this.#count(before, -1);
        this.#count(health.health, 1);
        if (health.health === "mtu") {
          this.#searches.set(row, {
            low: MIN_PROBE_BYTES[this.#halves.family(row)],
            high: this.#halves.mtuBytes(row) - 1,
          });
        } else this.#searches.delete(row);
        if (before !== "unknown" || health.health !== "ok") changed.push(target);
      }
      if (health.needsAttention) this.#attention.add(row);
      else this.#attention.delete(row);
      if (health.loss !== undefined) this.#losses.observe(health.loss);
    }
    this.#targetCount = 0;
    if (changed.length === 0) return;
    this.#log(changed);
    this.#options.onChange?.();
  }

  #take({ target, question, probe, answeredAtMs }: Asked): void {
    const { health } = target;
    if (probe.outcome === "busy") return;
    this.#sent.get(question)!.add();
    const isAnswered = answeredAtMs > 0;
    if (!isAnswered) this.#lost.get(question)!.add();
    if (question === "search") {
      const search = this.#searches.get(target.row);
      if (search === undefined) return;
      // The largest comes first: what is lost by chance does not hide a larger one that got through.
      if (probe.bytes <= search.low) return;
      if (isAnswered) search.low = probe.bytes;
      else search.high = probe.bytes - 1;
      return;
    }
    if (!isAnswered) return health.missed(question);
    // The clock may have been set meanwhile.
    const roundTripMs = Math.min(Math.max(answeredAtMs - probe.sentAtMs, 0), TICK_MS);
    if (question !== "outer") this.#roundTrips.observe(roundTripMs / 1000);
    health.answered(question, roundTripMs);
  }

  #log(changed: readonly Target[]): void {
    const { log } = this.#options;
    for (const { row, health: { health } } of changed.slice(0, MAX_LINES)) {
      const subnet = this.#halves.subnet(row), publicIp = this.#halves.publicIp(row);
      const text = `peer ${subnet} (${publicIp}) ${MEANING[health as keyof typeof MEANING]}`;
      const fields = { subnet: `${subnet}`, publicIp: `${publicIp}`, health };
      if (health === "ok") log.info("peer-healthy", text, fields);
      else log.warn("peer-unhealthy", text, fields);
    }
    const more = changed.slice(MAX_LINES);
    if (more.length === 0) return;
    const counts = Map.groupBy(more, ({ health }) => health.health);
    const text = [...counts].map(([health, { length }]) => `${length} ${health}`).join(", ");
    log.warn(
      "peers-changed",
      `the health of ${more.length} more peers is another: ${text}; see denim peers`,
    );
  }

  /** Asks those that need attention, and those whose turn it is. */
  #ask(): void {
    this.#round++;
    const chosen: number[] = [], few = this.#few;
    for (const row of this.#attention) {
      if (chosen.length >= few) break;
      chosen.push(row);
    }
    for (const row of chosen) {
      // Those behind come first the next time.
      this.#attention.delete(row);
      this.#attention.add(row);
      this.#askAll(this.#target(row));
    }
    this.#askInTurns();
    for (const family of FAMILIES) {
      const probes = this.#probes[family];
      if (probes.length > 0) this.#wire(family).send(probes);
      probes.length = 0;
    }
  }

  /**
   * Asks those whose turn it is. Where too many have it at once, as at the start, the others come in later rounds that
   * have room, so that rounds have as many in the end.
   */
  #askInTurns(): void {
    const due = this.#due, round = this.#round, { length } = this.#halves;
    const usual = this.#turnsARound, most = MAX_CROWD * usual, restRounds = this.#restRounds;
    let turns = 0, isAnyLate = false;
    for (let row = 0; row < length; row++) {
      if (due[row]! > round) continue;
      if (due[row]! < round || turns === most) isAnyLate = true;
      else {
        this.#takeTurn(row, restRounds);
        turns++;
      }
    }
    if (!isAnyLate) return;
    let row = this.#last;
    for (let seen = 0; seen < length && turns < usual; seen++) {
      row = row + 1 < length ? row + 1 : 0;
      if (due[row]! >= round) continue;
      this.#takeTurn(row, restRounds);
      turns++;
    }
    this.#last = row;
  }

  /** Puts a turn off, since the peer has asked this node and is well. */
  #putOff(row: number): void {
    const restRounds = this.#restRounds;
    if (!isShared(restRounds)) return;
    this.#due[row] = Math.min(
      this.#round + restRounds - LEAD_ROUNDS,
      this.#turnIn[row]! + MAX_PUT_OFF * restRounds,
    );
  }

  /** What is in a row, to be asked in this round. */
  #target(row: number): Target {
    const place = this.#targetCount++;
    const health = this.#healths.at(row);
    const target = this.#targets[place] ??= { row, health, udp: undefined, plain: undefined };
    target.row = row;
    target.health = health;
    target.udp = target.plain = undefined;
    this.#targetOf[row] = place;
    return target;
  }

  /** What is asked in this round of what is in a row. */
  #targetAt(row: number): Target | undefined {
    const place = row === NO_ROW ? NO_ROW : this.#targetOf[row]!;
    return place === NO_ROW ? undefined : this.#targets[place];
  }

  /** So many peers that need attention get it in one round. */
  get #few(): number {
    return Math.ceil(2 * Math.log2(this.#probed + 1));
  }

  /** So many peers have their turn in a round. */
  get #turnsARound(): number {
    const all = this.#probed;
    return Math.min(all, Math.max(this.#few, Math.min(Math.ceil(all / ROUNDS), MAX_TURNS)));
  }

  /** So many rounds after a peer's turn it has the next one. */
  get #restRounds(): number {
    return Math.ceil(this.#probed / Math.max(this.#turnsARound, 1));
  }

  #now(): number {
    return this.#options.now?.() ?? Date.now();
  }

  #wire(family: Family): ProbeWire {
    const { open = (family) => new ProbeSocket(family) } = this.#options;
    let wire = this.#wires.get(family);
    if (wire === undefined) this.#wires.set(family, wire = open(family));
    return wire;
  }

  /** A peer's turn, after which so many rounds pass until the next. */
  #takeTurn(row: number, restRounds: number): void {
    this.#due[row] = this.#round + restRounds;
    this.#turnIn[row] = this.#round;
    if (this.#targetAt(row) !== undefined) return;
    const datagramTurns = isShared(restRounds) ? SHARED_DATAGRAM_TURNS : DATAGRAM_TURNS;
    this.#askInTurn(this.#target(row), datagramTurns);
  }

  /** Asks one thing, one time in `datagramTurns` for a datagram, or two of a peer that is about to be in trouble. */
  #askInTurn(target: Target, datagramTurns: number): void {
    const { row, health } = target;
    if (health.needsAttention) {
      this.#askOne(target, "small");
      // Of many that fall silent together few get attention, and none is judged without this.
      if (health.health === "ok") this.#askOne(target, "outer");
      return;
    }
    // What answers to either also shows that small packets pass.
    const isDatagram = ++this.#turns[row]! >= datagramTurns && !this.#halves.isNear(row);
    if (isDatagram) this.#turns[row] = 0;
    this.#askOne(target, !isDatagram ? "large" : health.isMute ? "plain" : "udp");
  }

  /** Asks everything that there is to find out. */
  #askAll(target: Target): void {
    const { row, health } = target;
    const isNear = this.#halves.isNear(row);
    for (const question of health.questions) {
      if (!isNear || question !== "udp" && question !== "plain") this.#askOne(target, question);
    }
    const search = this.#searches.get(row);
    if (search === undefined || search.low === search.high) return;
    const step = Math.ceil((search.high - search.low) / SEARCHED_SIZES);
    for (let bytes = search.high; bytes > search.low; bytes -= step) {
      this.#askOne(target, "search", bytes);
    }
  }

  #askOne(target: Target, question: Asked["question"], bytes?: number): void {
    const { row } = target, halves = this.#halves;
    const index = this.#askedCount;
    if (index >= 1 << INDEX_BITS) return;
    this.#askedCount++;
    const asked = this.#asked[index] ??= { target, question, probe: newProbe(), answeredAtMs: 0 };
    asked.target = target;
    asked.question = question;
    asked.answeredAtMs = 0;
    const family = halves.family(row);
    const isOuter = question === "outer";
    const isDatagram = question === "udp" || question === "plain";
    const { probe } = asked;
    probe.kind = isDatagram ? question : halves.isNear(row) && !isOuter ? "near" : "echo";
    halves.write(row, isOuter, probe.to);
    probe.bytes = bytes ??
      (question === "large" ? halves.mtuBytes(row) : MIN_PROBE_BYTES[family]);
    probe.sequence = (this.#round & 7) << INDEX_BITS | index;
    probe.tag = isOuter ? TAG.outer : target.health.isMissed ? TAG.doubtful : TAG.inner;
    probe.outcome = "waiting";
    this.#probes[family].push(probe);
    if (isDatagram) target[question] = asked;
  }
}

/** Whether agents share their turns, between which so many rounds lie. */
function isShared(restRounds: number): boolean {
  return restRounds >= SHARED_FROM_ROUNDS;
}

function newProbe(): Probe {
  return {
    kind: "echo",
    to: new Uint8Array(ADDRESS_BYTES),
    bytes: 0,
    sequence: 0,
    tag: 0,
    sentAtMs: 0,
    outcome: "waiting",
  };
}
