/**
 * Throughput and round trips between two pods on two nodes.
 *
 * @module
 */

import type { Lab, Pod } from "@denim/agent/lab";
import { RuntimeError } from "@denim/core";
import { summarize } from "./stats.ts";

const PAYLOAD_BYTES = 1400;
/** Pings go in turns of so many, since a processor is in one mood for a while. */
const PING_TURNS = 10, PINGS_A_TURN = 50;

/** A laboratory of two nodes, with a pod on each. */
export interface Bench {
  /** The nodes. */
  readonly lab: Lab;
  /** The pod that sends. */
  readonly from: Pod;
  /** The pod that it sends to. */
  readonly to: Pod;
}

/** Throws a RuntimeError without `iperf3`. */
export async function requireIperf(): Promise<void> {
  try {
    await new Deno.Command("iperf3", { args: ["--version"], stdout: "null" }).output();
  } catch {
    throw new RuntimeError(
      "this bench measures with iperf3, which is not here: apt-get install iperf3",
    );
  }
}

/** Sends a stream with iperf3, and reads its report. */
// deno-lint-ignore no-explicit-any -- iperf3's JSON
async function iperf({ from, to }: Bench, args: readonly string[]): Promise<any> {
  using toNamespace = to.open();
  using fromNamespace = from.open();
  const server = toNamespace.run(() =>
    new Deno.Command("iperf3", {
      args: ["-s", "-1", "--forceflush", "-B", `${to.address}`],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn()
  );
  // It says when it listens.
  const output = server.stdout.getReader();
  await output.read();
  output.releaseLock();
  const draining = server.stdout.pipeTo(new WritableStream());
  const client = new Deno.Command("iperf3", {
    args: ["-J", "-c", `${to.address}`, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  });
  const { stdout } = await fromNamespace.run(() => client.spawn()).output();
  const report = JSON.parse(new TextDecoder().decode(stdout));
  if (report.error !== undefined) {
    server.kill("SIGKILL");
    throw new RuntimeError(`iperf3: ${report.error}`);
  }
  await draining;
  await server.status;
  return report.end;
}

/** What one stream of TCP brings, in Mbit/s, in so many seconds. */
export async function tcp(bench: Bench, seconds: number): Promise<number> {
  const end = await iperf(bench, ["-t", `${seconds}`]);
  return end.sum_received.bits_per_second / 1e6;
}

/** Sends datagrams, so many Mbit/s of payload, or as many as can be if that is 0. */
export async function datagrams(
  bench: Bench,
  seconds: number,
  offered: number,
): Promise<{ readonly delivered: number; readonly lost: number }> {
  const rate = offered === 0 ? "0" : `${offered}M`;
  const { sum } = await iperf(bench, [
    ...["-u", "-l", `${PAYLOAD_BYTES}`, "-b", rate],
    ...["-t", `${seconds}`],
  ]);
  const lost = sum.lost_percent;
  return { delivered: sum.bits_per_second / 1e6 * (1 - lost / 100), lost };
}

/** The median time of a ping's way there and back, in microseconds. */
export async function pings<Subject>(
  benches: ReadonlyMap<Subject, Bench>,
  signal: AbortSignal,
): Promise<Map<Subject, number>> {
  const timesUs = new Map([...benches.keys()].map((subject) => [subject, [] as number[]]));
  for (let turn = 0; turn < PING_TURNS; turn++) {
    signal.throwIfAborted();
    for (const [subject, { from, to }] of benches) {
      for (let count = 0; count < PINGS_A_TURN; count++) {
        const { timeMs } = await from.ping(to.address);
        if (timeMs !== undefined) timesUs.get(subject)!.push(timeMs * 1000);
      }
    }
  }
  return new Map([...timesUs].map(([subject, times]) => [subject, summarize(times).median]));
}
