/**
 * `denim leases`: who holds what, until when; and reservations.
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
import { runStoreCommand } from "./store_command.ts";

const HELP = `Usage: denim leases [--json]
       denim leases reserve SUBNET... PUBLIC_IP...
       denim leases release SUBNET...

Lists who holds which subnet, and until when. reserve keeps a subnet for good for the node with that
public IP, or makes its lease one that never runs out; in a cluster of both families name a subnet and
an address of each. release gives up a lease or a reservation; a node that is alive leases anew.

  --json                              print leases as JSON

Examples: denim leases reserve 10.5.7.0/24 192.0.2.7
          denim leases release 10.5.7.0/24
`;

/** Runs `denim leases`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage. */
export async function runLeases(args: readonly string[]): Promise<number> {
  return await runStoreCommand({
    name: "denim leases",
    help: HELP,
    flags: { json: "boolean" },
    creates: () => false,
    async run(store, { operands, own }, print, signal) {
      const [action, ...rest] = operands;
      const json = own.has("json");
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
          throw new ConfigError(`${action}: is not reserve or release; see --help`);
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
    if (address === undefined) throw new ConfigError(`${text}: is neither a subnet nor an address`);
    publicIps.set(address.family, address);
  }
  const families = new Set(subnets.map(({ family }) => family));
  if (
    families.size === 0 || families.size < subnets.length || publicIps.size !== subnets.length ||
    [...publicIps.keys()].some((family) => !families.has(family)) ||
    operands.length !== 2 * subnets.length
  ) {
    throw new ConfigError("reserve takes a subnet and a public IP, of each family one at the most");
  }
  return await store.reserve({ subnets, publicIps }, signal);
}

/** Tells the key of what it gave up. */
async function release(
  store: LeaseAdmin,
  operands: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  if (operands.length === 0) throw new ConfigError("release takes a subnet");
  const subnets = operands.flatMap((text) => parseLeaseKey(text) ?? parseSubnet(text));
  // In a cluster of both families one of the two subnets is enough to say which lease is meant.
  const named = (await store.leases(signal)).find(({ halves }) =>
    subnets.every((subnet) => halves.some((half) => half.subnet.equals(subnet)))
  );
  const key = named?.key ?? leaseKey(subnets);
  if (await store.release(key, signal)) return key;
  throw new RuntimeError(`${store.description}: nobody holds ${operands.join(" ")}`);
}

function parseSubnet(text: string): Cidr {
  const subnet = Cidr.tryParse(text);
  if (subnet !== undefined) return subnet;
  throw new ConfigError(`${text}: is no subnet such as 10.5.7.0/24`);
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
  const rows = [
    ["SUBNET", "PUBLIC IP", "BACKEND", "UNTIL"],
    ...leases.map(({ backendType, halves, expiry }) => [
      halves.map(({ subnet }) => subnet).join(" "),
      halves.map(({ publicIp }) => publicIp).join(" "),
      backendType || "-",
      until(expiry),
    ]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trim()
  )
    .join("\n");
}
