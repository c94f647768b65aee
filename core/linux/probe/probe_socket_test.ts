import { FAMILIES, IpAddress } from "@denim/core";
import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { MIN_PROBE_BYTES, type Probe, type ProbeKind, ProbeSocket } from "./probe_socket.ts";

const HERE = { 4: "10.99.0.1", 6: "fd99::1" } as const;
const THERE = { 4: "10.99.0.2", 6: "fd99::2" } as const;
/** An address that nobody has, behind the other node, which is no router for it. */
const BEHIND = { 4: "10.5.2.1", 6: "fc00:5:0:2::1" } as const;

/** Two namespaces, joined by a wire. */
function twoNodes(): Disposable & { here: ScratchNamespace; there: ScratchNamespace } {
  using undo = new DisposableStack();
  const here = undo.use(new ScratchNamespace());
  const there = undo.use(new ScratchNamespace());
  here.ip(`link add eth0 mtu 1500 type veth peer name eth0 netns ${there.name}`);
  for (const [node, addresses] of [[here, HERE], [there, THERE]] as const) {
    node.ip(`addr add ${addresses[4]}/24 dev eth0`);
    node.ip(`addr add ${addresses[6]}/64 dev eth0 nodad`);
    node.ip("link set eth0 up");
    node.ip("link set lo up");
  }
  for (const family of FAMILIES) here.ip(`route add ${BEHIND[family]} via ${THERE[family]}`);
  there.run(() => {
    Deno.writeTextFileSync("/proc/sys/net/ipv4/ip_forward", "1");
    Deno.writeTextFileSync("/proc/sys/net/ipv6/conf/all/forwarding", "1");
  });
  // Back to where it came from: a router in between would pass it on for ever.
  for (const family of FAMILIES) there.ip(`route add default via ${HERE[family]}`);
  const all = undo.move();
  return { here, there, [Symbol.dispose]: () => all[Symbol.dispose]() };
}

function probe(kind: ProbeKind, to: string, changes: Partial<Probe> = {}): Probe {
  const address = IpAddress.parse(to);
  return {
    kind,
    to: address.toBytes(),
    bytes: MIN_PROBE_BYTES[address.family],
    sequence: 7,
    tag: 5,
    sentAtMs: 0,
    outcome: "waiting",
    ...changes,
  };
}

const name = (address: Uint8Array) => `${IpAddress.fromBytes(address)}`;

for (const family of FAMILIES) {
  rootTest(
    `probes over IPv${family}: echoes of every size, closed ports, and who asks`,
    async () => {
      using nodes = twoNodes();
      const { here, there } = nodes;
      using asking = here.run(() => new ProbeSocket(family));
      using asked = there.run(() => new ProbeSocket(family));
      const probes = [
        probe("echo", THERE[family], { sequence: 1 }),
        probe("echo", THERE[family], { sequence: 65_535, bytes: 1500 }),
        probe("echo", THERE[family], { sequence: 3, bytes: 1501 }),
        probe("near", THERE[family], { sequence: 4 }),
        probe("near", BEHIND[family], { sequence: 5 }),
        probe("udp", THERE[family]),
        probe("plain", THERE[family]),
      ];
      const heard: string[] = [];
      const times: number[] = [];
      const wanted = [
        `answer 1 ${THERE[family]}`,
        `answer 4 ${THERE[family]}`,
        `answer 65535 ${THERE[family]}`,
        `closed plain ${THERE[family]}`,
        `closed udp ${THERE[family]}`,
        `expired 5 ${THERE[family]}`,
      ];
      asking.send(probes);
      await eventually("all answers", () => {
        asking.receive({
          onAnswer: (sequence, from, atMs) => {
            heard.push(`answer ${sequence} ${name(from)}`);
            times.push(atMs);
          },
          onExpired: (sequence, from) => void heard.push(`expired ${sequence} ${name(from)}`),
          onClosed: (kind, from) => void heard.push(`closed ${kind} ${name(from)}`),
          onRequest: () => void heard.push("request"),
        });
        return heard.length >= wanted.length;
      });
      assert.deepEqual(heard.sort(), wanted);
      assert.deepEqual(
        probes.map(({ outcome }) => outcome),
        ["sent", "sent", "refused", "sent", "sent", "sent", "sent"],
      );
      // By the clock of the probe's own time.
      for (const atMs of times) assert.ok(Math.abs(atMs - probes[0]!.sentAtMs) < 5000);
      const requests: string[] = [];
      asked.receive({
        onAnswer: () => void requests.push("answer"),
        onExpired: () => void requests.push("expired"),
        onClosed: () => void requests.push("closed"),
        onRequest: (tag, from) => void requests.push(`${tag} ${name(from)}`),
      });
      assert.deepEqual(new Set(requests), new Set([`5 ${HERE[family]}`]));
    },
  );
}
