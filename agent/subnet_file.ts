/**
 * subnet.env on disk, and beside it a record for the agent's next run: the addresses under which the node held its
 * subnets. A node whose addresses are different after a restart is known again by it.
 *
 * @module
 */

import {
  Cidr,
  Complaints,
  EventCounter,
  FAMILIES,
  formatSubnetEnv,
  IpAddress,
  leaseKey,
  type Logger,
  messageOf,
  msToTick,
  type NodeIdentity,
  parseLeaseKey,
  parseSubnetEnv,
  type PodNetwork,
  RuntimeError,
  sleep,
  type SubnetEnv,
  throwDefect,
} from "@denim/core";
import { readProcFile, replaceFile } from "@denim/core/linux";
import { dirname } from "node:path";
import * as z from "zod";

/** What the node was in its last run. */
export interface LastRun extends Omit<NodeIdentity, "publicIps"> {
  /** The cluster's networks of that time; empty if subnet.env does not say. */
  readonly networks: readonly PodNetwork[];
}

/** What a run has left in the kernel. */
export interface Leftovers {
  /** The node's subnets. */
  readonly subnets: LastRun["previousSubnets"];
  /** The cluster's networks. */
  readonly networks: readonly PodNetwork[];
  /** The names of denim's own devices. */
  readonly devices: readonly string[];
}

/** How often a lock is tried that another agent holds, in milliseconds. */
const CLAIM_MS = 50;
/** How often the file is compared with what it should say, whatever the kernel tells of it, in milliseconds. */
const LOOK_MS = 1000;

/** The file of one node. */
export class SubnetFile {
  readonly #path: string;
  readonly #log: Logger;
  /** What it should say; `undefined` while it must not be there. */
  #text: string | undefined;

  /** The file at a path. Nothing is read or written yet. */
  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /**
   * Keeps other agents from this node until it is disposed of or the process ends: two would write one lease in turns,
   * and neither could tell the other from itself. One that is about to end, as when a pod is replaced, is waited for.
   * Throws a RuntimeError if another agent still runs here after `patienceMs`, or when the signal is aborted.
   */
  async claim(patienceMs: number, signal: AbortSignal): Promise<Disposable> {
    const path = this.#lockPath;
    const options = { write: true, create: true, mode: 0o600 };
    const file = write(path, () => Deno.openSync(path, options));
    const endMs = performance.now() + patienceMs;
    for (;;) {
      if (file.tryLockSync(true)) return file;
      if (performance.now() >= endMs || !await sleep(CLAIM_MS, signal)) break;
    }
    file.close();
    throw new RuntimeError(
      `another agent runs on this node: it holds ${path}; stop it first, or give each agent a --subnet-file and a ` +
        "network namespace of its own",
    );
  }

  /** Whether an agent has it, and so runs on this node. */
  get isClaimed(): boolean {
    try {
      using file = Deno.openSync(this.#lockPath);
      return !file.tryLockSync(true);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }

  /**
   * What the last run left. A file that is missing or cannot be read counts as empty; the log says the latter. Throws a
   * RuntimeError if a directory has the file's name: it could not be written.
   */
  lastRun(): LastRun {
    for (const path of [this.#path, this.#recordPath]) refuseDirectory(path);
    const env = this.#read(this.#path, (text) => parseSubnetEnv(text, this.#path).halves);
    const record = this.#read(this.#recordPath, parseRecord);
    if (env === undefined) return { previousSubnets: [], ...record, networks: [] };
    const previousSubnets = env.map(({ subnet }) => subnet);
    const networks = env.flatMap(({ networks, subnet }) =>
      networks.map((network) => ({ network, subnetLength: subnet.prefixLength }))
    );
    // If flanneld ran since, it wrote subnet.env alone.
    const same = record && leaseKey(previousSubnets) === leaseKey(record.previousSubnets);
    return { previousSubnets, networks, ...(same ? record : {}) };
  }

  /** What the last run left in the kernel, if that still runs; nothing of it need be there. */
  leftovers(): Leftovers {
    const { previousSubnets, networks } = this.lastRun();
    const { boot, devices = [], networks: recorded = [] } =
      this.#read(this.#recordPath, readRecord) ?? {};
    return {
      subnets: previousSubnets,
      networks: [
        ...networks,
        ...recorded.flatMap(({ network, subnetLength }) => {
          const cidr = Cidr.tryParse(network);
          return cidr === undefined ? [] : [{ network: cidr, subnetLength }];
        }),
      ],
      devices: boot === bootId() ? devices : [],
    };
  }

  /**
   * Writes it. Throws a RuntimeError that names the file if that fails; {@link SubnetFile.keep} tries again.
   *
   * @param devices the names of denim's own devices
   */
  write(
    env: SubnetEnv,
    publicIps: NodeIdentity["publicIps"],
    devices: readonly string[] = [],
  ): void {
    this.#text = formatSubnetEnv(env);
    const subnets = env.halves.map(({ subnet }) => subnet);
    const record = JSON.stringify({
      lease: leaseKey(subnets),
      publicIps: [...publicIps.values()].map(String),
      boot: bootId(),
      devices,
      networks: env.halves.flatMap(({ networks, subnet }) =>
        networks.map((network) => ({ network: `${network}`, subnetLength: subnet.prefixLength }))
      ),
    });
    writeWhole(this.#recordPath, record, 0o600);
    writeWhole(this.#path, this.#text, 0o644);
  }

  /** Removes it, so that the plugin attaches no pod any more. */
  remove(): void {
    this.#text = undefined;
    try {
      Deno.removeSync(this.#path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throwDefect(error);
      this.#log.error("subnet-file-failed", `${this.#path} cannot be removed: ${messageOf(error)}`);
    }
  }

  /** Writes it again whenever it is gone or says something else, until the signal is aborted. */
  async keep(signal: AbortSignal): Promise<void> {
    const complaints = new Complaints();
    const changes = new EventCounter();
    const watching = this.#watch(changes, signal);
    /** The file that said what it should, when it was read last. */
    let right: { readonly text: string; readonly file: string | undefined } | undefined;
    for (let seen = 0; await changes.after(seen, msToTick(LOOK_MS), signal);) {
      const isReported = changes.count !== seen;
      seen = changes.count;
      if (this.#text === undefined) continue;
      try {
        // To read a file that is watched wakes this process again.
        const file = versionOf(this.#path);
        const isKnown = file !== undefined && file === right?.file && right.text === this.#text;
        if (isKnown && !isReported) continue;
        if (readIfThere(this.#path) === this.#text) {
          right = { text: this.#text, file };
          continue;
        }
        writeWhole(this.#path, this.#text, 0o644);
        this.#log.warn(
          "subnet-file-restored",
          `${this.#path} was missing or different; the agent has written it again`,
        );
        complaints.resolve();
      } catch (error) {
        throwDefect(error);
        const why = messageOf(error);
        if (complaints.isNew(why)) this.#log.error("subnet-file-failed", why);
      }
    }
    await watching;
  }

  /** Counts changes to the file as the kernel tells of them, if it does. */
  async #watch(changes: EventCounter, signal: AbortSignal): Promise<void> {
    const folder = dirname(this.#path);
    do {
      try {
        using watcher = Deno.watchFs(folder, { recursive: false });
        const stop = () => watcher.close();
        signal.addEventListener("abort", stop, { once: true });
        for await (const { kind, paths } of watcher) {
          if (kind !== "access" && paths.includes(this.#path)) changes.add();
          if (kind === "remove" && paths.includes(folder)) break;
        }
        signal.removeEventListener("abort", stop);
      } catch (error) {
        // Without a folder, or an inotify instance that is free. Of what the kernel refuses Deno makes plain Errors.
        if (Object.getPrototypeOf(error) !== Error.prototype) throwDefect(error);
      }
    } while (await sleep(msToTick(LOOK_MS), signal));
  }

  get #recordPath(): string {
    return `${this.#path}.last`;
  }

  get #lockPath(): string {
    return `${this.#path}.lock`;
  }

  #read<T>(path: string, parse: (text: string) => T): T | undefined {
    try {
      const text = readIfThere(path);
      return text === undefined ? undefined : parse(text);
    } catch (error) {
      throwDefect(error);
      this.#log.warn(
        "last-run-unreadable",
        `the agent cannot learn from ${path} which subnet this node had: ${messageOf(error)}`,
      );
      return undefined;
    }
  }
}

function refuseDirectory(path: string): void {
  try {
    if (!Deno.statSync(path).isDirectory) return;
  } catch (error) {
    throwDefect(error);
    return;
  }
  throw new RuntimeError(
    `${path} is a directory, as a container runtime makes one to mount a file that is not there: remove it, or ` +
      "choose another --subnet-file",
  );
}

const recordSchema = z.object({
  lease: z.string(),
  publicIps: z.array(z.string()),
  boot: z.string().optional(),
  devices: z.array(z.string()).optional(),
  networks: z.array(z.object({ network: z.string(), subnetLength: z.number() })).optional(),
});

/** Reads the record of a run. Throws a RuntimeError that says what is wrong with it. */
function parseRecord(text: string): Omit<LastRun, "networks"> {
  const { lease, publicIps, boot } = readRecord(text);
  const previousSubnets = parseLeaseKey(lease) ?? [];
  // On a copy of the disk it would claim the original's lease. After a boot no pods live in the subnets.
  if (boot !== bootId()) return { previousSubnets };
  const addresses = publicIps.flatMap((address) => IpAddress.tryParse(address) ?? []);
  return {
    previousSubnets,
    previousPublicIps: new Map(
      FAMILIES.flatMap((family) => addresses.filter((address) => address.family === family))
        .map((address) => [address.family, address]),
    ),
  };
}

function readRecord(text: string): z.output<typeof recordSchema> {
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof z.ZodError)) throw error;
    throw new RuntimeError("it is not a record of an agent's run", { cause: error });
  }
}

/** Tells this run of the kernel from all others (random(4)). */
function bootId(): string {
  return readProcFile("/proc/sys/kernel/random/boot_id").trim();
}

function readIfThere(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** What tells a file from another in its place, or from itself before; `undefined` if there is none. */
function versionOf(path: string): string | undefined {
  try {
    const { ino, size, mtime } = Deno.statSync(path);
    return `${ino} ${size} ${mtime?.getTime()}`;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function writeWhole(path: string, text: string, mode: number): void {
  write(path, () => replaceFile(path, text, { mode }));
}

/** Writes a file in a folder that is made if it is missing. Throws a RuntimeError that names the file. */
function write<T>(path: string, how: () => T): T {
  try {
    Deno.mkdirSync(dirname(path), { recursive: true });
    return how();
  } catch (error) {
    throwDefect(error);
    throw new RuntimeError(
      `${path} cannot be written: ${messageOf(error)}; mend that, or choose another --subnet-file`,
      { cause: error },
    );
  }
}
