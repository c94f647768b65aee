import { Cidr, type Family, IpAddress, MetricsRegistry } from "@denim/core";
import type { Probe, ProbeListener } from "@denim/core/linux/probe-socket";
import assert from "node:assert/strict";
import { FakeClock } from "../../tests/support/fake_clock.ts";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import type { ListedPeer } from "../peer_list.ts";
import { Prober, type ProbeWire } from "./prober.ts";

/** A probe as the fakes of this file see it. */
interface SeenProbe extends Omit<Probe, "to"> {
  readonly to: IpAddress;
}

/** A fake of a network: it answers each probe in the next round, unless `drops` says that it is lost. */
class FakeWire implements ProbeWire {
  drops: (probe: SeenProbe) => boolean = () => false;
  /** Whose agents probe, too; and how they tag that. */
  probing: readonly IpAddress[] = [];
  tag = 1;
  /** Takes what is sent. */
  onSend: (probe: SeenProbe) => void = () => {};
  readonly sent: SeenProbe[] = [];
  #waiting: readonly SeenProbe[] = [];

  send(probes: readonly Probe[]): void {
    for (const probe of probes) {
      probe.outcome = "sent";
      probe.sentAtMs = 1000;
    }
    const seen = probes.map((probe) => ({
      ...probe,
      to: IpAddress.fromBytes(probe.to.subarray(0, 4)),
    }));
    this.sent.push(...seen);
    seen.forEach(this.onSend);
    this.#waiting = seen.filter((probe) => !this.drops(probe));
  }

  receive(listener: ProbeListener): void {
    for (const from of this.probing) listener.onRequest(this.tag, from.toBytes());
    for (const { kind, to: address, sequence } of this.#waiting) {
      const to = address.toBytes();
      if (kind === "udp" || kind === "plain") listener.onClosed(kind, to, 1003);
      else if (kind === "near") listener.onExpired(sequence, to, 1003);
      else listener.onAnswer(sequence, to, 1003);
    }
    this.#waiting = [];
  }

  [Symbol.dispose](): void {}
}

function peer(number: number, changes: Partial<ListedPeer["way"]> = {}): ListedPeer {
  const subnet = Cidr.parse(`10.${number >> 8}.${number & 255}.0/24`);
  return {
    key: `${subnet}`,
    way: { backend: "vxlan", mtuBytes: 1450, hasDeviceAddress: true, devices: [], ...changes },
    halves: [{
      subnet,
      publicIp: IpAddress.parse(`172.16.${number >> 8}.${number & 255}`),
      device: "flannel.1",
      isDirect: !(changes.hasDeviceAddress ?? true),
    }],
    changedAtMs: 0,
  };
}

function proberOf(count: number): {
  prober: Prober;
  wire: FakeWire;
  log: RecordingLog;
  metrics: MetricsRegistry;
  ticks: (count: number, everyMs?: number) => void;
} {
  const [wire, log, metrics] = [new FakeWire(), new RecordingLog(), new MetricsRegistry()];
  const open = (family: Family) => {
    assert.equal(family, 4);
    return wire;
  };
  let nowMs = 0;
  const now = () => nowMs;
  const prober = new Prober({ clock: new FakeClock(), log, metrics, open, now });
  for (let number = 1; number <= count; number++) prober.put(peer(number));
  const ticks = (count: number, everyMs = 1000) => {
    for (let tick = 0; tick < count; tick++) {
      nowMs += everyMs;
      prober.tick();
    }
  };
  return { prober, wire, log, metrics, ticks };
}

const healthOf = (prober: Prober, number: number) => prober.of(peer(number).key)[0]?.health;

Deno.test("prober: every peer has its turn within a minute, with one packet each", () => {
  const { prober, wire, metrics, ticks } = proberOf(5000);
  ticks(240);
  assert.equal(metrics.value("denim_probed_peers", { health: "ok" }), 5000);
  wire.sent.length = 0;
  for (let round = 1, before = 0; round <= 60; round++, before = wire.sent.length) {
    ticks(1);
    // At the start all were due at once, and are in rounds apart since.
    const crowd = wire.sent.length - before;
    assert.ok(crowd <= 1.2 * 84, `${crowd} packets`);
  }
  const inner = wire.sent.filter(({ to }) => `${to}`.startsWith("10."));
  assert.equal(new Set(inner.map(({ to }) => `${to}`)).size, 5000);
  assert.ok(inner.length <= 84 * 60, `${inner.length} packets`);
  assert.deepEqual({ ...prober.of(peer(1).key)[0], sinceMs: 0 }, {
    health: "ok",
    sinceMs: 0,
    roundTripMs: 3,
    loss: 0,
    pathMtuBytes: 1450,
  });
});

Deno.test("prober: agents of many peers share the turns, and one that misses answers is heeded at once", () => {
  const count = 5000;
  const { prober, wire, ticks } = proberOf(count);
  ticks(240);
  const inner = (number: number) => peer(number).halves[0]!.subnet.address;
  const asked = () => wire.sent.map(({ to }) => `${to}`).filter((to) => to.startsWith("10."));
  // All have six turns in that time, after a first one.
  for (let round = 0; round < 7 * 60; round++) {
    if (round === 60) wire.sent.length = 0;
    // Every other peer asks this node, too, more often than an agent would.
    wire.probing = Array.from({ length: count / 2 }, (_, index) => 2 * index + 1)
      .filter((number) => (number >> 1) % 30 === round % 30).map(inner);
    ticks(1);
  }
  const times = Map.groupBy(asked(), (to) => to);
  const timesOf = (number: number) => times.get(`${inner(number)}`)?.length;
  assert.deepEqual([1, 3, 4999].map(timesOf), [2, 2, 2]);
  assert.deepEqual([2, 4, 5000].map(timesOf), [6, 6, 6]);
  // Those of half of them are shared.
  assert.ok(asked().length < 1.01 * (2 * 2500 + 6 * 2500), `${asked().length} packets`);
  wire.probing = [inner(7)];
  wire.tag = 3;
  wire.sent.length = 0;
  ticks(1);
  assert.ok(asked().includes(`${inner(7)}`));
  assert.equal(healthOf(prober, 7), "ok");
});

Deno.test("prober: two agents of many peers hear each other often enough, and one of them asks each minute", () => {
  const count = 1500, minutes = 40;
  const [a, b] = [proberOf(count), proberOf(count)];
  const [one, other] = [1, 2].map((number) => peer(number).halves[0]!.subnet.address);
  const asked: number[] = [];
  let second = 0;
  // To the one's agent the other is this address, and the other way round.
  for (const [from, source, to, destination] of [[a, one, b, other], [b, other, a, one]] as const) {
    from.wire.onSend = ({ to: address, kind }) => {
      if (!address.equals(destination!)) return;
      asked.push(second);
      if (kind === "echo") to.wire.probing = [...to.wire.probing, source!];
    };
  }
  const turn = ({ wire, ticks }: ReturnType<typeof proberOf>) => {
    ticks(1);
    wire.probing = [];
  };
  for (; second < minutes * 60; second++) {
    turn(a);
    // Its turns are at other times.
    if (second >= 17) turn(b);
  }
  assert.deepEqual([a.log.events, b.log.events], [[], []]);
  const late = asked.filter((second) => second >= 300);
  assert.ok(late.length <= 1.15 * (minutes - 5), `${late.length} packets`);
  late.slice(1).forEach((second, index) => assert.ok(second - late[index]! <= 62));
});

Deno.test("prober: a narrow path is measured to the byte, and the peer is told of once", () => {
  const { prober, wire, log, ticks } = proberOf(5);
  ticks(5);
  wire.drops = ({ to, bytes }) => `${to}` === "10.0.2.0" && bytes > 1277;
  ticks(15);
  const [found] = prober.of(peer(2).key);
  assert.deepEqual([found!.health, found!.pathMtuBytes], ["mtu", 1277]);
  wire.drops = () => false;
  ticks(6);
  assert.equal(prober.of(peer(2).key)[0]!.pathMtuBytes, 1450);
  assert.deepEqual(log.events, ["warn peer-unhealthy", "info peer-healthy"]);
});

Deno.test("prober: a node that is cut off says so in a few lines, not in one for each peer", () => {
  const { wire, log, metrics, ticks } = proberOf(600);
  ticks(60);
  wire.drops = () => true;
  ticks(300);
  assert.equal(metrics.value("denim_probed_peers", { health: "no-answer" }), 600);
  assert.ok(log.of("peers-changed").length > 0);
  assert.ok(log.records.length < 400, `${log.records.length} lines`);
});

Deno.test("prober: whose agent is silent is told from whom this agent has not listened to", () => {
  const { prober, wire, log, ticks } = proberOf(5);
  wire.probing = [1, 2, 3].map((number) => peer(number).halves[0]!.subnet.address);
  ticks(5);
  // This process stood still, and so did its clock for them.
  ticks(1, 60_000);
  wire.probing = wire.probing.slice(1);
  ticks(3);
  assert.deepEqual(log.events, []);
  ticks(10);
  assert.deepEqual([1, 2, 4].map((number) => healthOf(prober, number)), ["no-agent", "ok", "ok"]);
  assert.deepEqual(log.events, ["warn peer-unhealthy"]);
});

for (const [who, first, later] of [["fall silent", 60, 600], ["never answered", 0, 90]] as const) {
  Deno.test(`prober: thousands who ${who} cost few packets more than those who answer`, () => {
    const { wire, ticks } = proberOf(3000);
    ticks(first);
    wire.drops = () => true;
    ticks(later);
    wire.sent.length = 0;
    ticks(60);
    // Of log 3,000 two things are asked, and of those whose turn it is one.
    assert.ok(wire.sent.length <= 60 * (2 * 24 + 50), `${wire.sent.length} packets`);
  });
}

Deno.test("prober: thousands that fall silent together are found in trouble within minutes, and well as soon", () => {
  const { wire, metrics, ticks } = proberOf(5000);
  ticks(240);
  const secondsUntil = (health: string) => {
    let seconds = 0;
    for (; metrics.value("denim_probed_peers", { health }) !== 5000 && seconds < 3600; seconds++) {
      ticks(1);
    }
    return seconds;
  };
  wire.drops = () => true;
  const found = secondsUntil("no-answer");
  wire.drops = () => false;
  const well = secondsUntil("ok");
  assert.ok(found <= 250 && well <= 250, `found after ${found} s, well after ${well} s`);
});

Deno.test("prober: who leaves is asked no more, who comes anew keeps its health", () => {
  const { prober, wire, metrics, ticks } = proberOf(3);
  ticks(5);
  prober.delete(peer(2).key);
  prober.put(peer(3));
  assert.equal(healthOf(prober, 3), "ok");
  wire.sent.length = 0;
  ticks(5);
  assert.ok(wire.sent.every(({ to }) => `${to}` !== "10.0.2.0"));
  assert.deepEqual(prober.of(peer(2).key), []);
  assert.equal(metrics.value("denim_probed_peers", { health: "ok" }), 2);
});

Deno.test("prober: without a tunnel whoever is on the link may answer; other ways are not probed", () => {
  const { prober, wire, ticks } = proberOf(0);
  prober.put(peer(1, { hasDeviceAddress: false }));
  ticks(3);
  assert.equal(healthOf(prober, 1), "ok");
  assert.deepEqual(
    new Set(wire.sent.map(({ kind, to }) => `${kind} ${to}`)),
    new Set([
      "near 10.0.1.1",
      "echo 172.16.0.1",
    ]),
  );
  const elsewhere = peer(2, { hasDeviceAddress: false });
  prober.put({ ...elsewhere, halves: [{ ...elsewhere.halves[0]!, isDirect: false }] });
  assert.equal(healthOf(prober, 2), undefined);
});
