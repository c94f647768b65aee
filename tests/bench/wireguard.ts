/**
 * The WireGuard backend beside WireGuard set up by hand, both by wireguard-go: throughput and round trips, in turns, each
 * in a laboratory of its own on the same machine.
 *
 * @module
 */

import { Lab, type LabNode } from "@denim/agent/lab";
import { inNode, wg } from "../support/wg.ts";
import { type Bench, datagrams, pings, requireIperf, tcp } from "./pair.ts";
import { Samples, summarize } from "./stats.ts";
import type { UdpOptions, UdpResult } from "./udp.ts";

/** Pods with the right MTU, and nothing that carries their packets. */
const NOTHING = { Type: "extension", MTU: 1420 };
const SUBJECTS = { denim: { Type: "wireguard" }, "by hand": NOTHING } as const;
type Subject = keyof typeof SUBJECTS;
/** What counts as equal: medians that differ by less, in percent. */
const EQUAL_PERCENT = 10;

/** Measures. Rejects with a RuntimeError without `iperf3`. */
export async function wireguard(
  { runs, seconds }: UdpOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<UdpResult> {
  await requireIperf();
  await using labs = new AsyncDisposableStack();
  const benches = new Map<Subject, Bench>();
  for (const [subject, backend] of Object.entries(SUBJECTS) as [Subject, object][]) {
    say(`two nodes with WireGuard: ${subject}`);
    const netConf = { Network: "10.5.0.0/16", Backend: backend };
    const lab = labs.use(await Lab.create({ nodes: 2, netConf }));
    await lab.startAgents(signal);
    const [from, to] = [await lab.nodes[0]!.addPod("a"), await lab.nodes[1]!.addPod("b")];
    if (backend === NOTHING) setUpByHand(lab.nodes);
    benches.set(subject, { lab, from, to });
  }
  const samples = new Samples();
  for (let run = 1; run <= runs; run++) {
    say(`round ${run} of ${runs}`);
    for (const [subject, bench] of benches) {
      signal.throwIfAborted();
      samples.add(`TCP, one stream: ${subject}`, "Mbit/s", await tcp(bench, seconds));
    }
    for (const [subject, bench] of benches) {
      signal.throwIfAborted();
      const { delivered } = await datagrams(bench, seconds, 0);
      samples.add(`UDP, unthrottled, delivered: ${subject}`, "Mbit/s", delivered);
    }
    for (const [subject, medianUs] of await pings(benches, signal)) {
      samples.add(`ping, median: ${subject}`, "µs", medianUs);
    }
  }
  return { measures: samples.measures, comparison: compare(samples) };
}

/**
 * As a person would with wireguard-go, wg and ip. Each program has a session of its own, as an agent's has: the kernel
 * shares processors between sessions (autogroup, sched(7)).
 */
function setUpByHand(nodes: readonly LabNode[]): void {
  for (const node of nodes) {
    inNode(
      node,
      `setsid --wait wireguard-go flannel-wg; wg genkey >${node.directory}/key; ` +
        `wg set flannel-wg private-key ${node.directory}/key listen-port 51820; ` +
        `ip addr add ${node.subnet().address}/32 dev flannel-wg; ` +
        "ip link set flannel-wg mtu 1420 up; ip route add 10.5.0.0/16 dev flannel-wg",
    );
  }
  for (const node of nodes) {
    for (const other of nodes) {
      if (other === node) continue;
      const key = wg(other, "show flannel-wg public-key").trim();
      wg(
        node,
        `set flannel-wg peer ${key} endpoint ${other.publicIp}:51820 allowed-ips ${other.subnet()}`,
      );
    }
  }
}

function compare(samples: Samples): string[] {
  return [...Map.groupBy(samples.measures, ({ name }) => name.split(":")[0]!)].map(
    ([what, [denim, byHand]]) => {
      const [ours, theirs] = [denim!, byHand!].map(({ samples }) => summarize(samples).median);
      const percent = 100 * (ours! - theirs!) / theirs!;
      const holds = Math.abs(percent) < EQUAL_PERCENT;
      return `${holds ? "holds " : "MISSED"}  ${what} equal: ${
        percent.toFixed(1)
      }% more than by hand`;
    },
  );
}
