/** The data path with sockets, a device and threads that only remember what they are told. */

import { Cidr, IpAddress, MetricsRegistry } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { eventually } from "../../tests/support/wait.ts";
import type { CarrierOrder, CarrierReport, CarrierSetup } from "./carrier_messages.ts";
import { Counters, DROP } from "./counters.ts";
import { type CarrierThread, DataPath, type DataPathHost } from "./data_path.ts";
import { PeerMap } from "./peer_map.ts";

const OFFLOADS = { checksums: true, tcp: true, udp: false };

/** A thread that does what the test says. */
class FakeThread implements CarrierThread {
  readonly orders: CarrierOrder[] = [];
  terminated = false;
  onmessage: CarrierThread["onmessage"] = null;
  onerror: CarrierThread["onerror"] = null;
  readonly #onOrder: (thread: FakeThread) => void;

  constructor(onOrder: (thread: FakeThread) => void) {
    this.#onOrder = onOrder;
  }

  postMessage(order: CarrierOrder): void {
    this.orders.push(order);
    this.#onOrder(this);
  }

  /** Says something, as the real one would. */
  say(data: CarrierReport): void {
    this.onmessage!(new MessageEvent("message", { data }));
  }

  terminate(): void {
    this.terminated = true;
  }

  get setup(): CarrierSetup {
    return this.orders[0] as CarrierSetup;
  }
}

/** A data path and all that it has outside itself. */
class DataPathRig {
  readonly log = new RecordingLog();
  readonly metrics = new MetricsRegistry();
  readonly failures: unknown[] = [];
  readonly threads: FakeThread[] = [];
  /** What is open: each thing once. */
  readonly open = new Set<string>();
  hasDevice = true;
  attached = 0;
  attachError: Error | undefined;
  /** What a thread does when it is told something; by default it runs. */
  onOrder: (thread: FakeThread) => void = (thread) => thread.say("running");
  #fds = 100;

  readonly #host: DataPathHost = {
    openSockets: (address, _port, count, offloads) =>
      Array.from({ length: count }, (_, index) => ({
        ...this.#resource(`socket ${address} ${index}`),
        offloads: { segment: offloads, gro: offloads },
      })),
    openRawSocket: (family) => {
      const { descriptor, ...resource } = this.#resource(`raw socket ${family}`);
      return { ...resource, fd: descriptor.fd };
    },
    openTun: (device) => ({
      ...this.#resource(`${device} ${this.#fds}`),
      header: true,
      attach: () => {
        if (this.attachError !== undefined) throw this.attachError;
        this.attached++;
      },
      setOffloads: () => OFFLOADS,
      clearOffloads: () => ({ checksums: false, tcp: false, udp: false }),
    }),
    loadThread: () => {
      const thread = new FakeThread((one) => this.onOrder(one));
      this.threads.push(thread);
      return thread;
    },
  };

  /** What can be closed, once. */
  #resource(name: string) {
    assert.ok(!this.open.has(name), name);
    this.open.add(name);
    return {
      descriptor: { fd: this.#fds++ },
      [Symbol.dispose]: () => assert.ok(this.open.delete(name), `${name} is closed once`),
    };
  }

  openPath(changes: { readonly queues?: number; readonly threadADirection?: boolean } = {}) {
    return DataPath.open({
      device: "flannel0",
      addresses: [IpAddress.parse("10.99.0.1"), IpAddress.parse("fd99::1")],
      port: 8285,
      capacity: 16,
      offloads: true,
      hasDevice: () => this.hasDevice,
      log: this.log,
      metrics: this.metrics,
      fail: (error) => void this.failures.push(error),
      queues: 1,
      threadADirection: false,
      ...changes,
    }, this.#host);
  }
}

const OWN = [Cidr.parse("10.5.1.0/24")];

Deno.test("a data path starts a thread for each queue and direction, and closes all that it opened", async () => {
  const rig = new DataPathRig();
  {
    await using path = rig.openPath({ queues: 2, threadADirection: true });
    assert.deepEqual(
      rig.threads.flatMap(({ orders }) => orders),
      [],
      "none before there is a lease",
    );
    await path.start(OWN);
    assert.deepEqual(
      rig.threads.map(({ setup: { number, outbound, inbound } }) => [
        number,
        outbound !== undefined,
        inbound !== undefined,
      ]),
      [[0, true, false], [1, false, true], [2, true, false], [3, false, true]],
    );
    assert.deepEqual(
      rig.threads[1]!.setup.inbound,
      { header: true, ...OFFLOADS },
      "what the kernel was found to do",
    );
    assert.equal(rig.open.size, 2 * 2 + 2 + 2);
    for (const thread of rig.threads) thread.say("ended");
  }
  assert.deepEqual([...rig.open], []);
  assert.ok(rig.threads.every(({ terminated }) => terminated));
  assert.deepEqual([rig.log.events, rig.failures], [["info udp-started"], []]);
});

Deno.test("peers are in the table that the threads share, and what they count in the metrics", async () => {
  const rig = new DataPathRig();
  await using path = rig.openPath();
  await path.start(OWN);
  const { setup } = rig.threads[0]!;
  const peers = new PeerMap(setup.peers, setup.capacity);
  const address = IpAddress.parse("10.99.0.2");
  path.put({ subnet: Cidr.parse("10.5.2.0/24"), publicIp: address, partialChecksums: true });
  const view = new DataView(IpAddress.parse("10.5.1.7").toBytes().buffer);
  assert.ok(peers.isOwn(4, view, 0));
  assert.notEqual(peers.version, 0);

  const counters = new Counters(setup.counters, setup.capacity, setup.number);
  counters.drop(DROP.inForged, 3);
  counters.icmpErrorSent();
  counters.pass("outbound", 0, 2, 200);
  counters.pass("inbound", 0, 1, 50);
  const value = rig.metrics.value.bind(rig.metrics);
  assert.equal(value("denim_udp_dropped_packets_total", { reason: "inForged" }), 3);
  assert.equal(value("denim_udp_dropped_packets_total", { reason: "outNoPeer" }), 0);
  assert.equal(value("denim_udp_icmp_errors_total"), 1);
  assert.equal(value("denim_udp_packets_total", { direction: "outbound" }), 2);
  assert.equal(value("denim_udp_bytes_total", { direction: "outbound" }), 200);
  assert.equal(value("denim_udp_bytes_total", { direction: "inbound" }), 50);
  path.remove(Cidr.parse("10.5.2.0/24"));
  assert.equal(value("denim_udp_bytes_total", { direction: "inbound" }), 50, "it never falls");
  rig.threads[0]!.say("ended");
});

Deno.test("more subnets than there is room for are named", async () => {
  const rig = new DataPathRig();
  await using path = rig.openPath();
  const publicIp = IpAddress.parse("10.99.0.2");
  for (let index = 0; index <= 16; index++) {
    path.put({ subnet: Cidr.parse(`10.5.${index}.0/24`), publicIp, partialChecksums: false });
  }
  assert.match(
    rig.log.of("udp-table-full")[0]!.message,
    /pods of 10\.5\.16\.0\/24 can't be reached/,
  );
  assert.equal(rig.log.records.length, 1);
});

Deno.test("a thread's defect ends the node with its stack; the thread is not started again", async () => {
  const rig = new DataPathRig();
  const error = new TypeError("Cannot read properties of undefined");
  await using path = rig.openPath();
  rig.onOrder = (thread) => thread.say({ error, defect: true });
  await assert.rejects(path.start(OWN), error, "also before it carries");
  assert.deepEqual(rig.failures, [error]);
  assert.equal(rig.threads.length, 1);
  assert.deepEqual(rig.log.events, []);
});

Deno.test("a thread that ends without a report is a defect, too", async () => {
  const rig = new DataPathRig();
  await using path = rig.openPath();
  await path.start(OWN);
  const event = new ErrorEvent("error", {
    cancelable: true,
    message: "Uncaught SyntaxError: x",
    filename: "file:///carrier_worker.ts",
    lineno: 3,
    colno: 7,
  });
  rig.threads[0]!.onerror!(event);
  assert.ok(event.defaultPrevented, "the agent ends in its own way");
  assert.match(`${rig.failures}`, /SyntaxError: x \(file:\/\/\/carrier_worker\.ts:3:7\)/);
});

Deno.test("what the system refuses a thread is said once, and the thread started again", async () => {
  const rig = new DataPathRig();
  await using path = rig.openPath();
  await path.start(OWN);
  const error = new Error("receive datagrams: ENOMEM");
  rig.onOrder = (thread) =>
    rig.threads.length < 3 ? thread.say({ error, defect: false }) : thread.say("running");
  rig.threads[0]!.say({ error, defect: false });
  await eventually("the third thread", () => rig.threads.length === 3, 5_000);
  assert.deepEqual(rig.threads.map(({ terminated }) => terminated), [true, true, false]);
  assert.deepEqual(rig.log.of("udp-thread-failed").map(({ message }) => message), [
    'thread "udp 0": receive datagrams: ENOMEM; starting it again every 1 s',
  ]);
  assert.deepEqual(rig.failures, []);
  rig.threads[2]!.say("ended");
});

Deno.test("a device that is gone is waited for, and opened again when it is back", async () => {
  const rig = new DataPathRig();
  await using path = rig.openPath();
  await path.start(OWN);
  const [thread] = rig.threads as [FakeThread];
  rig.hasDevice = false;
  thread.say("gone");
  await eventually("it is said", () => rig.log.of("device-gone").length === 1);
  assert.equal(rig.attached, 0);
  rig.attachError = new Deno.errors.Busy("flannel0: another program has it");
  rig.hasDevice = true;
  await eventually("why it does not work", () => rig.log.of("device-unusable").length === 1);
  rig.attachError = undefined;
  await eventually("it is back", () => rig.log.of("device-back").length === 1);
  assert.equal(rig.attached, 1);
  assert.deepEqual(thread.orders.slice(1), ["go on"]);
  assert.equal(rig.log.of("device-unusable").length, 1, "said once");
  thread.say("ended");
});

Deno.test("a defect while the device is waited for ends the node", async () => {
  const rig = new DataPathRig();
  await using path = rig.openPath();
  await path.start(OWN);
  rig.attachError = new TypeError("a defect");
  rig.threads[0]!.say("gone");
  await eventually("it ends the node", () => rig.failures.length === 1);
  assert.equal(rig.failures[0], rig.attachError);
});
