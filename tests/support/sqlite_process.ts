/**
 * For sqlite_test.ts: a process of its own that uses a store, `sqlite_process.ts PATH JOB`. It prints
 * "ready" when the file is open and waits for a line on its standard input. Then, by its job:
 *
 * - `acquire FROM COUNT`: leases subnets to COUNT nodes, and prints each key or error;
 * - `flood COUNT`: leases to COUNT nodes in turn until it is killed, each time with the number of the write as
 *   their VNI, which it prints after each commit.
 *
 * @module
 */

import { type Family, IpAddress, type LeaseRequest, messageOf } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";

const [path, job, ...numbers] = Deno.args;
const { signal } = new AbortController();
const log = { debug() {}, info() {}, warn: console.error, error: console.error };
await using store = SqliteStore.open(path!, { log });
say("ready");
await Deno.stdin.read(new Uint8Array(1));
if (job === "acquire") await acquire(Number(numbers[0]), Number(numbers[1]));
else await flood(Number(numbers[0]));

async function acquire(from: number, count: number): Promise<void> {
  for (let number = from; number < from + count; number++) {
    say(await store.acquire(request(number), signal).then(({ key }) => key, messageOf));
  }
}

async function flood(count: number): Promise<void> {
  for (let write = 1;; write++) {
    const backendData = new Map([[4 as Family, { VNI: write }]]);
    await store.acquire({ ...request(write % count), backendData }, signal);
    say(`${write}`);
  }
}

function request(number: number): LeaseRequest {
  return {
    publicIps: new Map([[4 as Family, new IpAddress(4, BigInt(0x0a63_0000 + number))]]),
    previousSubnets: [],
    backendType: "vxlan",
    backendData: new Map(),
  };
}

/** Written whole before the process goes on: what was printed was committed. */
function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}
