/**
 * Probing the peers over the data path that pods use. It needs nothing of a peer but a kernel, so flannel's nodes are
 * probed as well.
 *
 * Once a second the prober reads what came, judges the peers that it asked a second ago, and asks the next ones, in a few
 * system calls for all. In turn each peer is asked one thing: for its largest packet, or to refuse a datagram. One that
 * does not answer is asked everything, every second, until it is clear how it is.
 *
 * @module
 */

import {
  type Clock,
  type Counter,
  EventCounter,
  type Family,
  type Histogram,
  type IpAddress,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  type Metrics,
  throwDefect,
} from "@denim/core";
import {
  MIN_PROBE_BYTES,
  type Probe,
  type ProbeListener,
  ProbeSocket,
} from "@denim/core/linux/probe-socket";
import type { ListedHalf, ListedPeer, PeerListener } from "../peer_list.ts";
import type { Trouble } from "./mesh_report.ts";
import {
  type Health,
  HEALTHS,
  isTrouble,
  MEANING,
  PeerHealth,
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
/** Among so many turns of a well peer is one in which its address on the underlay is asked too. */
const OUTER_TURNS = 16;
/** Changes of one round that are logged one by one; more are summed up. */
const MAX_LINES = 5;
/** So many sizes are tried at once while the largest packet that gets through is looked for. */
const SEARCHED_SIZES = 8;
/** Bits of a sequence number that tell a round's probes apart; those above tell the rounds apart. */
const INDEX_BITS = 13;
/** What an echo request says of itself: whether it came over the data path. */
const TAG = { inner: 1, outer: 2 } as const;
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

/** A peer in one family. */
interface Target {
  readonly key: string;
  readonly half: ListedHalf;
  /** The address that is asked over the data path. */
  readonly address: IpAddress;
  /** Whether no router may pass the packets on. */
  readonly isNear: boolean;
  readonly mtuBytes: number;
  readonly health: PeerHealth;
  /** Its place in the order of turns. */
  place: number;
  turns: number;
  /** The largest packet is at least as long as `low` and at most as `high`, while it is looked for. */
  search: { low: number; high: number } | undefined;
  /** What was asked in this round and is answered under the address alone. */
  closed: { udp?: Asked; plain?: Asked };
}

/** A question that is under way. */
interface Asked {
  readonly target: Target;
  /** `search` looks for the largest packet that gets through. */
  readonly question: Question | "search";
  readonly probe: Probe;
  /** When the answer came, in milliseconds since 1970; 0 if none has come. */
  answeredAtMs: number;
}

/** Keeps what is known of each peer's health, up to date. */
export class Prober implements PeerListener {
  readonly #options: ProberOptions;
  readonly #wires = new Map<Family, ProbeWire>();
  readonly #targets = new Map<string, readonly (Target | undefined)[]>();
  readonly #byAddress: Readonly<Record<Family, Map<bigint, Target>>> = {
    4: new Map(),
    6: new Map(),
  };
  /** All targets, in the order of their turns, and whose turn is next. */
  readonly #order: Target[] = [];
  #next = 0;
  /** Those that are in trouble or may be. */
  readonly #attention = new Set<Target>();
  #asked: Asked[] = [];
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
  put(peer: ListedPeer): void {
    const before = this.#targets.get(peer.key);
    const { hasDeviceAddress, mtuBytes } = peer.way;
    const targets = peer.halves.map((half, index): Target | undefined => {
      const { subnet, isDirect } = half;
      // Without a tunnel's device a node has its subnet's gateway, once pods were there.
      if (!hasDeviceAddress && !isDirect) return undefined;
      const target: Target = {
        key: peer.key,
        half,
        address: hasDeviceAddress ? subnet.address : subnet.at(1n),
        isNear: !hasDeviceAddress,
        mtuBytes,
        health: before?.[index]?.health ?? new PeerHealth(this.#now()),
        place: -1,
        turns: 0,
        search: undefined,
        closed: {},
      };
      return target;
    });
    this.delete(peer.key);
    this.#targets.set(peer.key, targets);
    for (const target of targets) if (target !== undefined) this.#add(target);
    this.#arrivals.add();
  }

  #add(target: Target): void {
    const { address, half: { publicIp }, isNear, health } = target;
    target.place = this.#order.push(target) - 1;
    // Whom a packet is heard from, too: a node sends from this address, or, on the link, from its own.
    this.#byAddress[address.family].set(address.value, target);
    if (isNear) this.#byAddress[publicIp.family].set(publicIp.value, target);
    this.#count(health.health, 1);
    this.#attention.add(target);
  }

  /** @inheritdoc */
  delete(key: string): void {
    for (const target of this.#targets.get(key) ?? []) {
      if (target === undefined) continue;
      const last = this.#order.pop()!;
      if (last !== target) {
        this.#order[target.place] = last;
        last.place = target.place;
      }
      target.place = -1;
      const { address, half: { publicIp } } = target;
      for (const one of [address, publicIp]) {
        const known = this.#byAddress[one.family];
        if (known.get(one.value) === target) known.delete(one.value);
      }
      this.#attention.delete(target);
      this.#count(target.health.health, -1);
      if (isTrouble(target.health.health)) this.#options.onChange?.();
    }
    this.#targets.delete(key);
  }

  #count(health: Health, by: number): void {
    this.#counts.set(health, this.#counts.get(health)! + by);
  }

  /** How a peer's halves are, in their order; `undefined` for one that is not probed. */
  of(key: string): readonly (ProbedHalf | undefined)[] {
    return (this.#targets.get(key) ?? []).map((target) => {
      if (target === undefined) return undefined;
      const { health: { health, sinceMs, roundTripMs, loss }, search, mtuBytes } = target;
      const found = search?.low === search?.high ? search?.low : undefined;
      const passesAll = health === "ok" || health === "checksum" || health === "no-agent";
      const pathMtuBytes = passesAll ? mtuBytes : found;
      return { health, sinceMs, roundTripMs, loss, pathMtuBytes };
    });
  }

  /** The peers that are in trouble. */
  troubles(): Trouble[] {
    return [...this.#attention].filter(({ health: { health } }) => isTrouble(health))
      .map(({ half, health: { health, sinceMs } }) => ({
        subnet: `${half.subnet}`,
        health,
        sinceMs,
      }));
  }

  /** Probes until the signal is aborted. If the kernel does not let it, the log says so, and it returns. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    try {
      while (await clock.sleep(clock.msToTick(TICK_MS), signal)) {
        this.tick();
        if (this.#order.length > 0) continue;
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
      if (asked?.probe.to.equals(from)) asked.answeredAtMs = atMs;
    },
    onExpired: (sequence, _from, atMs) => {
      const asked = this.#find(sequence);
      if (asked?.probe.kind === "near") asked.answeredAtMs = atMs;
    },
    onClosed: (kind, from, atMs) => {
      const asked = this.#byAddress[from.family].get(from.value)?.closed[kind];
      if (asked !== undefined) asked.answeredAtMs = atMs;
    },
    onRequest: (tag, from) => {
      if (tag === TAG.inner) {
        this.#byAddress[from.family].get(from.value)?.health.heard(this.#awakeMs);
      }
    },
  };

  /** The question of this round with a sequence number. */
  #find(sequence: number): Asked | undefined {
    const isThisRound = sequence >> INDEX_BITS === (this.#round & 7);
    return isThisRound ? this.#asked[sequence & (1 << INDEX_BITS) - 1] : undefined;
  }

  /** Takes the answers of the round, and judges the peers that were asked. */
  #settle(): void {
    const changed: Target[] = [];
    const targets = new Set<Target>();
    for (const asked of this.#asked) {
      // It has left, or was replaced.
      if (asked.target.place < 0) continue;
      targets.add(asked.target);
      this.#take(asked);
    }
    this.#asked = [];
    const dateMs = this.#now();
    // Peers have as many peers, and ask them as often.
    const turnsMs = TICK_MS * this.#order.length / Math.max(this.#turns, 1);
    for (const target of targets) {
      target.closed = {};
      const { health } = target;
      const before = health.health;
      if (health.judge(this.#awakeMs, dateMs, turnsMs)) {
        this.#count(before, -1);
        this.#count(health.health, 1);
        target.search = health.health === "mtu"
          ? { low: MIN_PROBE_BYTES[target.address.family], high: target.mtuBytes - 1 }
          : undefined;
        if (before !== "unknown" || health.health !== "ok") changed.push(target);
      }
      if (health.needsAttention) this.#attention.add(target);
      else this.#attention.delete(target);
      if (health.loss !== undefined) this.#losses.observe(health.loss);
    }
    if (changed.length === 0) return;
    this.#log(changed);
    this.#options.onChange?.();
  }

  #take({ target, question, probe, answeredAtMs }: Asked): void {
    const { health, search } = target;
    if (probe.outcome === "busy") return;
    this.#sent.get(question)!.add();
    const isAnswered = answeredAtMs > 0;
    if (!isAnswered) this.#lost.get(question)!.add();
    if (question === "search") {
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
    for (const { half, health: { health } } of changed.slice(0, MAX_LINES)) {
      const text = `peer ${half.subnet} (${half.publicIp}) ${
        MEANING[health as keyof typeof MEANING]
      }`;
      const fields = { subnet: `${half.subnet}`, publicIp: `${half.publicIp}`, health };
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
    const chosen = new Set<Target>();
    for (const target of this.#attention) {
      if (chosen.size >= this.#few) break;
      chosen.add(target);
    }
    for (const target of chosen) {
      // Those behind come first the next time.
      this.#attention.delete(target);
      this.#attention.add(target);
      this.#askAll(target);
    }
    const { length: count } = this.#order;
    const turns = this.#turns;
    for (let turn = 0; turn < turns; turn++) {
      this.#next = (this.#next + 1) % count;
      const target = this.#order[this.#next]!;
      if (!chosen.has(target)) this.#askInTurn(target);
    }
    const probes = Map.groupBy(this.#asked.map(({ probe }) => probe), ({ to }) => to.family);
    for (const [family, of] of probes) this.#wire(family).send(of);
  }

  /** So many peers that need attention get it in one round. */
  get #few(): number {
    return Math.ceil(2 * Math.log2(this.#order.length + 1));
  }

  /** So many peers have their turn in one round. */
  get #turns(): number {
    const { length } = this.#order;
    return Math.min(length, Math.max(this.#few, Math.min(Math.ceil(length / ROUNDS), MAX_TURNS)));
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

  /** Asks one thing, which costs as much whether the peer answers or not. */
  #askInTurn(target: Target): void {
    const { health, isNear } = target;
    const turn = target.turns++;
    if (health.needsAttention) return this.#askOne(target, "small");
    if (turn % OUTER_TURNS === 0) this.#askOne(target, "outer");
    // What answers to either of these also shows that small packets pass.
    const isDatagram = !isNear && turn % 2 === 1;
    this.#askOne(target, isDatagram ? health.isMute ? "plain" : "udp" : "large");
  }

  /** Asks everything that there is to find out. */
  #askAll(target: Target): void {
    const { health, search, isNear } = target;
    for (const question of health.questions) {
      if (!isNear || question !== "udp" && question !== "plain") this.#askOne(target, question);
    }
    if (search === undefined || search.low === search.high) return;
    const step = Math.ceil((search.high - search.low) / SEARCHED_SIZES);
    for (let bytes = search.high; bytes > search.low; bytes -= step) {
      this.#askOne(target, "search", bytes);
    }
  }

  #askOne(target: Target, question: Asked["question"], bytes?: number): void {
    const { address, half: { publicIp }, isNear, mtuBytes } = target;
    const index = this.#asked.length;
    if (index >= 1 << INDEX_BITS) return;
    const isOuter = question === "outer";
    const to = isOuter ? publicIp : address;
    const probe: Probe = {
      kind: question === "udp" || question === "plain"
        ? question
        : isNear && !isOuter
        ? "near"
        : "echo",
      to,
      bytes: bytes ?? (question === "large" ? mtuBytes : MIN_PROBE_BYTES[to.family]),
      sequence: (this.#round & 7) << INDEX_BITS | index,
      tag: isOuter ? TAG.outer : TAG.inner,
      sentAtMs: 0,
      outcome: "waiting",
    };
    const asked: Asked = { target, question, probe, answeredAtMs: 0 };
    this.#asked.push(asked);
    if (question === "udp" || question === "plain") target.closed[question] = asked;
  }
}
