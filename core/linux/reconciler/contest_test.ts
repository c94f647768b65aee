import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import { type KernelState, nexthopId } from "../../kernel_state.ts";
import { findLink } from "../objects/link.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { writeLinkSettings } from "../objects/pod_link.ts";
import { Reconciler } from "./reconciler.ts";
import { listRoutes, writeRouteHeader } from "../objects/route.ts";
import { readSysctl, writeSysctl } from "../sys/sysctl.ts";
import { RT_SCOPE_NOWHERE, RTM_DELROUTE } from "../uapi/rtnetlink.ts";

const DEVICE = "flannel0";

/** A node whose reconciler runs, with a device that carries whatever there is, and a stranger's socket. */
class ContestedNode implements AsyncDisposable {
  readonly ns = new ScratchNamespace();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler;
  readonly stranger: NetlinkSocket;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor() {
    this.ns.addOuterDevice();
    [this.reconciler, this.stranger] = this.ns.run(() =>
      [new Reconciler({ log: this.log }), new NetlinkSocket()] as const
    );
    this.reconciler.networks = [{ network: Cidr.parse("10.5.0.0/16"), subnetLength: 24 }];
    const link = { kind: "link", name: DEVICE, mtuBytes: 1400 } as const;
    this.reconciler.set("node", [{ ...link, info: { type: "tun", queueLength: 1000 } }]);
    this.reconciler.set("host", [{ kind: "forwarding", family: 4, device: "eth0" }]);
    for (const number of [2, 3]) this.reconciler.set(`${number}`, peer(number));
    assert.deepEqual(this.reconciler.check().failures, []);
    this.#running = this.reconciler.run(this.#stop.signal);
  }

  routes(): string[] {
    return listRoutes(this.stranger, 4).map(({ destination }) => `${destination}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.stranger[Symbol.dispose]();
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
  }
}

function peer(number: number, via = 100 + number): KernelState {
  const subnet = Cidr.parse(`10.5.${number}.0/24`);
  const id = nexthopId(subnet);
  return [
    { kind: "nexthop", id, device: "eth0", via: IpAddress.parse(`10.99.0.${via}`) },
    { kind: "route", destination: subnet, nexthopId: id },
  ];
}

/** Undoes what is right as soon as it is so, for as long as it is not stopped. Counts how often. */
class Fighter implements AsyncDisposable {
  undone = 0;
  #stopped = false;
  readonly #running: Promise<void>;

  constructor(isRight: () => boolean, undo: () => void) {
    this.#running = this.#fight(isRight, undo);
  }

  async #fight(isRight: () => boolean, undo: () => void): Promise<void> {
    while (!this.#stopped) {
      if (isRight()) {
        undo();
        this.undone++;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }
}

rootTest(
  "a route that another program deletes again and again is repaired ever more slowly",
  async () => {
    await using node = new ContestedNode();
    const { ns, reconciler, stranger } = node;
    const subnet = "10.5.2.0/24";
    const isThere = () => node.routes().includes(subnet);
    {
      await using fighter = new Fighter(
        isThere,
        () =>
          stranger.request(
            "delete the route",
            (writer) =>
              writeRouteHeader(
                writer.begin(RTM_DELROUTE, 0),
                Cidr.parse(subnet),
                0,
                RT_SCOPE_NOWHERE,
              )
                .end(),
          ),
      );
      await eventually("its being noticed", () => node.log.of("drift-contested").length > 0);
      assert.ok(fighter.undone >= 10, `${fighter.undone} repairs at full speed`);
      // Others are repaired at once, by events and by full checks, and neither lifts the wait.
      const before = fighter.undone;
      for (let count = 0; count < 3; count++) {
        ns.ip("route del 10.5.3.0/24");
        await eventually("the other", () => node.routes().includes("10.5.3.0/24"), 500);
        ns.run(() => writeSysctl("net/ipv4/conf/eth0/forwarding", "0"));
        reconciler.check();
        assert.equal(ns.run(() => readSysctl("net/ipv4/conf/eth0/forwarding")), "1");
      }
      await eventually("some repairs more", () => fighter.undone >= before + 4);
      const startMs = performance.now();
      // The first of these two waits may have begun before.
      await eventually("two others", () => fighter.undone >= before + 6);
      assert.ok(performance.now() - startMs > 100, "it waits");
      // What an owner asks for is not what others change.
      const undone = fighter.undone;
      reconciler.check();
      assert.ok(!isThere());
      reconciler.set("2", peer(2, 77));
      reconciler.set("2", []);
      reconciler.set("2", peer(2));
      assert.deepEqual(reconciler.apply().failures, []);
      await eventually("that at once", () => fighter.undone > undone, 100);
    }
    await eventually("peace", isThere, 5_000);
    assert.deepEqual(node.log.events.filter((event) => event.startsWith("error")), []);
    assert.match(
      node.log.of("drift-contested").map(({ message }) => message).join(),
      /^something keeps changing route 10\.5\.2\.0\/24: repaired 10 times in \d\.\d s; [^,]*, and stop it$/,
    );
    const repaired = node.log.of("drift-repaired");
    assert.equal(repaired.filter(({ message }) => message.includes("10.5.2.0/24")).length, 9);
  },
);

rootTest(
  "a device that another program sets down again and again is repaired ever more slowly, and nothing fails",
  async () => {
    await using node = new ContestedNode();
    const { ns, stranger, reconciler } = node;
    reconciler.set("peer", [{
      kind: "route",
      destination: Cidr.parse("10.5.9.0/24"),
      device: DEVICE,
      source: IpAddress.parse("10.99.0.1"),
    }]);
    assert.deepEqual(reconciler.apply().failures, []);
    const isUp = () => findLink(stranger, DEVICE)!.up;
    {
      await using fighter = new Fighter(
        isUp,
        () =>
          stranger.request(
            "set it down",
            (writer) => writeLinkSettings(writer, findLink(stranger, DEVICE)!.index, { up: false }),
          ),
      );
      await eventually("its being noticed", () => node.log.of("drift-contested").length > 0);
      for (let count = 0; count < 5; count++) {
        ns.ip("route del 10.5.3.0/24");
        await eventually("the other", () => node.routes().includes("10.5.3.0/24"), 500);
      }
      // After so many repairs a wait lasts longer than a check, and this one has just begun.
      await eventually("a long wait", () => fighter.undone >= 16);
      assert.deepEqual(reconciler.check().failures, []);
      assert.ok(!isUp(), "a check lifts no wait");
    }
    await eventually("peace", () => isUp() && node.routes().includes("10.5.9.0/24"), 5_000);
    assert.deepEqual(node.log.events.filter((event) => event.startsWith("error")), []);
    assert.deepEqual(node.log.of("drift-contested").map(({ message }) => message.split(":")[0]), [
      `something keeps changing device ${DEVICE}`,
    ]);
  },
);

rootTest("an outer device that comes and goes does not cause a check each time", async () => {
  await using node = new ContestedNode();
  const { stranger } = node;
  const index = findLink(stranger, "eth0")!.index;
  for (let count = 0; count < 12; count++) {
    for (const up of [false, true]) {
      stranger.request("flap", (writer) => writeLinkSettings(writer, index, { up }));
    }
    await eventually("the routes", () => node.routes().length === 3, 1_000);
  }
  assert.match(node.log.of("drift-contested")[0]!.message, /the state of device eth0/);
});
