/**
 * `denim leases`: which node holds which subnet until when; and reservations.
 *
 * @module
 */

import {
  Cidr,
  ConfigError,
  type Expiry,
  type Family,
  IpAddress,
  type Lease,
  type LeaseAdmin,
  leaseKey,
  parseLeaseKey,
  RuntimeError,
} from "@denim/core";
import { formatColumns } from "./columns.ts";
import { flag } from "./flag_table.ts";
import { toggle } from "./flag_types.ts";
import { runStoreCommand } from "./store_command.ts";

const HELP = `Usage: denim leases [--json]
       denim leases reserve SUBNET... PUBLIC_IP...
       denim leases release SUBNET...

Lists which node holds which subnet, and until when. reserve keeps a subnet for the node with that
public IP, for good; a lease that the node holds becomes such a reservation. In a dual-stack cluster,
give a subnet and a public IP of each family. release gives up a lease or a reservation; a running
node leases a subnet again.

Examples: denim leases reserve 10.5.7.0/24 192.0.2.7
          denim leases release 10.5.7.0/24
`;

const FLAGS = [flag("json", toggle, "print leases as JSON")] as const;

/** Runs `denim leases`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage. */
export async function runLeases(args: readonly string[]): Promise<number> {
  return await runStoreCommand({
    name: "denim leases",
    help: HELP,
    flags: FLAGS,
    creates: () => false,
    async run(open, { operands, values: { json } }, print, signal) {
      const [action, ...rest] = operands;
      const store = await open();
      switch (action) {
        case undefined: {
          const leases = (await store.leases(signal)).toSorted(inOrder);
          return print(json ? JSON.stringify(leases.map(toJson), null, 2) : table(leases));
        }
        case "reserve": {
          const lease = await reserve(store, rest, signal);
          return print(json ? JSON.stringify(toJson(lease), null, 2) : table([lease]));
        }
        case "release":
          return print(`released ${await release(store, rest, signal)}`);
        default:
          throw new ConfigError(`${action}: neither reserve nor release; see --help`);
      }
    },
  }, args);
}

async function reserve(
  store: LeaseAdmin,
  operands: readonly string[],
  signal: AbortSignal,
): Promise<Lease> {
  const subnets = operands.filter((text) => text.includes("/")).map(parseSubnet);
  const publicIps = new Map<Family, IpAddress>();
  for (const text of operands.filter((text) => !text.includes("/"))) {
    const address = IpAddress.tryParse(text);
    if (address === undefined) {
      throw new ConfigError(`${text}: neither a subnet such as 10.5.7.0/24 nor an IP address`);
    }
    publicIps.set(address.family, address);
  }
  const families = new Set(subnets.map(({ family }) => family));
  if (
    families.size === 0 || families.size < subnets.length || publicIps.size !== subnets.length ||
    [...publicIps.keys()].some((family) => !families.has(family)) ||
    operands.length !== 2 * subnets.length
  ) {
    throw new ConfigError("reserve takes one subnet and one public IP for each of the families");
  }
  return await store.reserve({ subnets, publicIps }, signal);
}

/** Gives up the lease that the operands name, and returns its key. */
async function release(
  store: LeaseAdmin,
  operands: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  if (operands.length === 0) throw new ConfigError("release takes a subnet");
  const subnets = operands.flatMap((text) => parseLeaseKey(text) ?? parseSubnet(text));
  const key = leaseKey(subnets);
  if (await store.release(key, signal)) return key;
  // In a dual-stack cluster, one of the two subnets is enough to say which lease is meant.
  const named = (await store.leases(signal)).find(({ halves }) =>
    subnets.every((subnet) => halves.some((half) => half.subnet.equals(subnet)))
  );
  if (named !== undefined && await store.release(named.key, signal)) return named.key;
  throw new RuntimeError(`${store.description}: no node holds ${operands.join(" ")}`);
}

function parseSubnet(text: string): Cidr {
  const subnet = Cidr.tryParse(text);
  if (subnet !== undefined) return subnet;
  throw new ConfigError(`${text}: not a subnet such as 10.5.7.0/24`);
}

function inOrder(one: Lease, other: Lease): number {
  const [a, b] = [one.halves[0]!.subnet, other.halves[0]!.subnet];
  if (a.family !== b.family) return a.family - b.family;
  return a.address.value < b.address.value ? -1 : a.address.value > b.address.value ? 1 : 0;
}

function toJson({ key, backendType, halves, expiry }: Lease): unknown {
  return {
    key,
    backendType,
    halves: halves.map(({ subnet, publicIp, backendData }) => ({
      subnet: `${subnet}`,
      publicIp: `${publicIp}`,
      backendData: backendData ?? null,
    })),
    expiresAt: typeof expiry === "object" ? new Date(expiry.atMs).toISOString() : null,
  };
}

function until(expiry: Expiry): string {
  if (expiry === "never") return "reserved";
  return expiry === "unknown"
    ? expiry
    : new Date(expiry.atMs).toISOString().replace(/\.\d+Z$/, "Z");
}

function table(leases: readonly Lease[]): string {
  return formatColumns([
    ["SUBNET", "PUBLIC IP", "BACKEND", "UNTIL"],
    ...leases.map(({ backendType, halves, expiry }) => [
      halves.map(({ subnet }) => subnet).join(" "),
      halves.map(({ publicIp }) => publicIp).join(" "),
      backendType || "-",
      until(expiry),
    ]),
  ]);
}
