/**
 * The UDP backend beside kernel VXLAN: throughput, round trips and idle processors, in turns, each in a
 * laboratory of its own on the same machine.
 *
 * @module
 */

import { Lab, type LabNode } from "@denim/agent/lab";
import { type Bench, datagrams, pings, requireIperf, tcp } from "./pair.ts";
import { type Measure, Samples, summarize } from "./stats.ts";

/** How the bench is run. */
export interface UdpOptions {
  /** How often everything is measured. */
  readonly runs: number;
  /** How long each stream is sent, in seconds. */
  readonly seconds: number;
}

/** What the bench comes to. */
export interface UdpResult {
  /** Every sample. */
  readonly measures: readonly Measure[];
  /** How the backends compare, a line each. */
  readonly comparison: readonly string[];
}

/** What is measured, the yardstick first. */
const SUBJECTS = {
  vxlan: { Type: "vxlan" },
  udp: { Type: "udp" },
  "udp, whole checksums": { Type: "udp", PartialChecksums: false },
} as const;
type Subject = keyof typeof SUBJECTS;

const IDLE_MS = 10_000;
/** What is offered for a comparison of loss: this part of what VXLAN delivers when nobody holds back. */
const OFFERED_SHARE = 2 / 3;

/** Measures. Rejects with a RuntimeError without `iperf3`. */
export async function udp(
  options: UdpOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<UdpResult> {
  await requireIperf();
  await using labs = new AsyncDisposableStack();
  const benches = new Map<Subject, Bench>();
  for (const [subject, backend] of Object.entries(SUBJECTS) as [Subject, object][]) {
    say(`two nodes with ${subject}`);
    const netConf = { Network: "10.5.0.0/16", Backend: backend };
    const lab = labs.use(await Lab.create({ nodes: 2, netConf }));
    await lab.startAgents(signal);
    const [from, to] = [await lab.nodes[0]!.addPod("a"), await lab.nodes[1]!.addPod("b")];
    benches.set(subject, { lab, from, to });
  }
  const samples = new Samples();
  for (let run = 1; run <= options.runs; run++) {
    say(`round ${run} of ${options.runs}`);
    for (const [subject, bench] of benches) {
      signal.throwIfAborted();
      samples.add(`TCP, one stream: ${subject}`, "Mbit/s", await tcp(bench, options.seconds));
    }
    for (const [subject, bench] of benches) {
      signal.throwIfAborted();
      const { delivered, lost } = await datagrams(bench, options.seconds, 0);
      samples.add(`UDP, unthrottled, delivered: ${subject}`, "Mbit/s", delivered);
      samples.add(`UDP, unthrottled, lost: ${subject}`, "%", lost);
    }
    const yardstick = median(samples, "UDP, unthrottled, delivered: vxlan");
    const offered = Math.round(yardstick * OFFERED_SHARE);
    for (const [subject, bench] of benches) {
      signal.throwIfAborted();
      const { delivered, lost } = await datagrams(bench, options.seconds, offered);
      samples.add(`UDP, two thirds offered, delivered: ${subject}`, "Mbit/s", delivered);
      samples.add(`UDP, two thirds offered, lost: ${subject}`, "%", lost);
    }
    for (const [subject, medianUs] of await pings(benches, signal)) {
      samples.add(`ping, median: ${subject}`, "µs", medianUs);
    }
  }
  say(`idle for ${IDLE_MS / 1000} s`);
  for (const [subject, share] of await idle(benches)) samples.add(`idle: ${subject}`, "%", share);
  return { measures: samples.measures, comparison: compare(samples) };
}

function median(samples: Samples, name: string): number {
  return summarize(samples.measures.find((measure) => measure.name === name)!.samples).median;
}

/** The claims that the backend is held to, and what they came to. */
function compare(samples: Samples): string[] {
  const value = (name: string) => median(samples, name);
  const line = (what: string, found: string, holds: boolean) =>
    `${holds ? "holds " : "MISSED"}  ${what}: ${found}`;
  const share = (name: string, subject: Subject) =>
    100 * value(`${name}: ${subject}`) / value(`${name}: vxlan`);
  const percent = (number: number) => `${number.toFixed(1)}%`;
  const tcpShare = share("TCP, one stream", "udp");
  const wholeShare = share("TCP, one stream", "udp, whole checksums");
  const delivered = share("UDP, unthrottled, delivered", "udp");
  const [lost, lostByVxlan] = [
    value("UDP, two thirds offered, lost: udp"),
    value("UDP, two thirds offered, lost: vxlan"),
  ];
  const slower = value("ping, median: udp") - value("ping, median: vxlan");
  const idleShare = value("idle: udp");
  return [
    line("TCP at least 60% of VXLAN's", percent(tcpShare), tcpShare >= 60),
    line("TCP with whole checksums at least 25% of VXLAN's", percent(wholeShare), wholeShare >= 25),
    line("UDP delivered at least 67% of VXLAN's", percent(delivered), delivered >= 66.6),
    line(
      "UDP lost no more than VXLAN's at the same load",
      `${percent(lost)} and ${percent(lostByVxlan)}`,
      lost <= lostByVxlan,
    ),
    line("ping at most 100 µs above VXLAN's", `${slower.toFixed(0)} µs`, slower <= 100),
    line("an idle tunnel under 0.1% of a core", `${idleShare.toFixed(3)}%`, idleShare < 0.1),
  ];
}

/** What the threads that carry packets take of one core on a node on which no packet travels, in percent. */
async function idle(benches: ReadonlyMap<Subject, Bench>): Promise<Map<Subject, number>> {
  const nodes = [...benches].filter(([subject]) => subject !== "vxlan")
    .map(([subject, { lab }]) => [subject, lab.nodes[0]!] as const);
  const before = nodes.map(([, node]) => threadTimeNs(node));
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  return new Map(
    nodes.map(([subject, node], index) => [
      subject,
      100 * (threadTimeNs(node) - before[index]!) / (IDLE_MS * 1e6),
    ]),
  );
}

/** How long the agent's workers have run, in nanoseconds. */
function threadTimeNs(node: LabNode): number {
  const tasks = `/proc/${node.agentPid}/task`;
  let sum = 0;
  for (const { name } of Deno.readDirSync(tasks)) {
    if (!Deno.readTextFileSync(`${tasks}/${name}/comm`).startsWith("worker-")) continue;
    sum += Number(Deno.readTextFileSync(`${tasks}/${name}/schedstat`).split(" ")[0]);
  }
  return sum;
}
