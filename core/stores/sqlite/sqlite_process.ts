/**
 * For sqlite_test.ts: a process of its own that uses a store, `sqlite_process.ts PATH JOB`. It prints
 * "ready" when the file is open and waits for a line on its standard input. Then, by its job:
 *
 * - `acquire FROM COUNT`: leases subnets to COUNT nodes, and prints for each the key or the error, with the
 *   time in milliseconds since 1970 at which it asked;
 * - `flood COUNT`: writes COUNT leases in one transaction, again and again, each time with the number of
 *   the time as their VNI, which it prints after each commit, until it is killed.
 *
 * @module
 */

import { Cidr, type Family, IpAddress, type Lease, leaseKey, messageOf } from "../../mod.ts";
import { SqliteStore } from "./mod.ts";

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
    const askedAtMs = Date.now();
    const request = {
      publicIps: new Map([[4 as Family, new IpAddress(4, BigInt(0x0a63_0000 + number))]]),
      previousSubnets: [],
      backendType: "vxlan",
      backendData: new Map(),
    };
    say(`${await store.acquire(request, signal).then(({ key }) => key, messageOf)} ${askedAtMs}`);
  }
}

async function flood(count: number): Promise<void> {
  const network = Cidr.parse("10.0.0.0/8");
  for (let time = 1;; time++) {
    await store.putLeases(
      Array.from({ length: count }, (_, index): Lease => {
        const subnet = new Cidr(network.at(BigInt(index) * 256n), 24);
        const publicIp = new IpAddress(4, BigInt(0xac10_0000 + index));
        return {
          key: leaseKey([subnet]),
          backendType: "vxlan",
          halves: [{ subnet, publicIp, backendData: { VNI: time } }],
          expiry: "never",
        };
      }),
      signal,
    );
    say(`${time}`);
  }
}

/** Written whole before it goes on: what was said was done. */
function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}
