/**
 * subnet.env on disk, kept there for as long as the node is ready; and beside it, for the agent itself, under
 * which addresses the node held its subnets, so that it is known again when they are others after a restart.
 *
 * @module
 */

import {
  type Cidr,
  FAMILIES,
  formatSubnetEnv,
  IpAddress,
  leaseKey,
  type Logger,
  messageOf,
  type NodeIdentity,
  parseLeaseKey,
  parseSubnetEnv,
  type PodNetwork,
  RuntimeError,
  sleep,
  type SubnetEnv,
} from "@denim/core";

/** What the node was in its last run. */
export interface LastRun extends Omit<NodeIdentity, "publicIps"> {
  /** The cluster's networks as they were then, as far as subnet.env says. */
  readonly networks: readonly PodNetwork[];
}

/** How often it is looked whether the file is there still. */
const LOOK_MS = 250;

/** The file of one node. */
export class SubnetFile {
  readonly #path: string;
  readonly #log: Logger;
  /** What it says; `undefined` while it must not be there. */
  #text: string | undefined;

  /** The file at a path. Nothing is read or written yet. */
  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** What the last run left; nothing where it left nothing, or what can't be read. */
  lastRun(): LastRun {
    const env = this.#read(this.#path, (text) => parseSubnetEnv(text, this.#path).halves);
    const record = this.#read(this.#recordPath, parseRecord);
    if (env === undefined) return { previousSubnets: [], ...record, networks: [] };
    const previousSubnets = env.map(({ subnet }) => subnet);
    const networks = env.flatMap(({ networks, subnet }) =>
      networks.map((network) => ({ network, subnetLength: subnet.prefixLength }))
    );
    // Where flanneld ran since, its subnet.env is the newer one.
    const same = record && leaseKey(previousSubnets) === leaseKey(record.previousSubnets);
    return { previousSubnets, networks, ...(same ? record : {}) };
  }

  /**
   * Writes it. Throws a RuntimeError that names it where that can't be done; {@link SubnetFile.keep} tries again.
   */
  write(env: SubnetEnv, publicIps: NodeIdentity["publicIps"]): void {
    this.#text = formatSubnetEnv(env);
    const subnets = env.halves.map(({ subnet }) => subnet);
    const record = JSON.stringify({
      lease: leaseKey(subnets),
      publicIps: [...publicIps.values()].map(String),
      boot: bootId(),
    });
    replaceFile(this.#recordPath, record, 0o600);
    replaceFile(this.#path, this.#text, 0o644);
  }

  /** Takes it away: no pod may be attached any more. */
  remove(): void {
    this.#text = undefined;
    try {
      Deno.removeSync(this.#path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      this.#log.error("subnet-file-failed", `${this.#path} can't be removed: ${messageOf(error)}`);
    }
  }

  /** Writes it again wherever it is gone or says something else, until the signal is aborted. */
  async keep(signal: AbortSignal): Promise<void> {
    let complaint = "";
    while (await sleep(LOOK_MS, signal)) {
      if (this.#text === undefined) continue;
      try {
        if (readIfThere(this.#path) === this.#text) continue;
        replaceFile(this.#path, this.#text, 0o644);
        this.#log.warn(
          "subnet-file-mended",
          `${this.#path} was removed or changed; it is written again`,
        );
        complaint = "";
      } catch (error) {
        if (messageOf(error) !== complaint) {
          this.#log.error("subnet-file-failed", complaint = messageOf(error));
        }
      }
    }
  }

  get #recordPath(): string {
    return `${this.#path}.last`;
  }

  #read<T>(path: string, parse: (text: string) => T): T | undefined {
    try {
      const text = readIfThere(path);
      return text === undefined ? undefined : parse(text);
    } catch (error) {
      this.#log.warn(
        "last-run-unreadable",
        `the last run's subnet is not known from ${path}: ${messageOf(error)}`,
      );
      return undefined;
    }
  }
}

function parseRecord(text: string): Omit<LastRun, "networks"> {
  const { lease, publicIps, boot } = JSON.parse(text) as {
    readonly lease: string;
    readonly publicIps: readonly string[];
    readonly boot?: string;
  };
  const previousSubnets: readonly Cidr[] = parseLeaseKey(lease) ?? [];
  // On a copy of the disk it would claim the original's lease; and after a boot no pods live in the subnets.
  if (boot !== bootId()) return { previousSubnets };
  const addresses = publicIps.map((address) => IpAddress.parse(address));
  return {
    previousSubnets,
    previousPublicIps: new Map(
      FAMILIES.flatMap((family) => addresses.filter((address) => address.family === family))
        .map((address) => [address.family, address]),
    ),
  };
}

/** Tells this run of the kernel from all others (random(4)). */
function bootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

function readIfThere(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Written beside its place and renamed into it, so that no reader sees half of it. */
function replaceFile(path: string, text: string, mode: number): void {
  const temporary = `${path}.${Deno.pid}`;
  try {
    Deno.mkdirSync(path.replace(/\/[^/]*$/, "") || ".", { recursive: true });
    Deno.writeTextFileSync(temporary, text, { mode });
    Deno.renameSync(temporary, path);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // It was not made.
    }
    throw new RuntimeError(
      `${path} can't be written: ${messageOf(error)}; make room, or choose another --subnet-file`,
    );
  }
}
