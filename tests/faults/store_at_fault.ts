/**
 * Where a laboratory's leases live, as somebody other than an agent sees it, changes it and breaks it.
 *
 * @module
 */

import { IpAddress, type Lease, parseLease } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { SqliteStore } from "@denim/core/stores/sqlite";
import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { Lab } from "@denim/agent/lab";
import { EtcdServer } from "../support/etcd_server.ts";
import { RecordingLog } from "../support/recording_log.ts";
import { sh } from "../support/sh.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import { eventually, NEVER } from "../support/wait.ts";

/**
 * The stores that a laboratory's agents may use, and what may happen to each so that it is of no use: for how
 * long at least, in milliseconds. Agents recreate a file that has been gone for 400 ms.
 */
export const OUTAGES = {
  sqlite: { "locked": 700, "gone for a moment": 200, "deleted": 0 },
  etcd: { "killed": 700 },
} as const;
/** One of the stores. */
export type StoreName = keyof typeof OUTAGES;

/** The router of the laboratory's first link, where etcd runs. */
const ETCD_HOST = "10.99.0.254";
const ETCD_PREFIX = "/coreos.com/network";

/** A time in which a store is of no use. */
export interface Outage {
  /** Begins it; throws if the store can be used all the same. */
  begin(): void | Promise<void>;
  /** Ends it. */
  end(): void | Promise<void>;
}

/** A store with its leases. */
export interface StoreAtFault extends AsyncDisposable {
  /** The public IP of each lease's holder, by the lease's key. */
  holders(): Map<string, string>;
  /** Deletes a lease's key. Throws if there is none. */
  remove(key: string): Promise<void>;
  /** Gives a lease to another node, in one step. */
  give(key: string, publicIp: string): Promise<void>;
  /** What may happen to it, by the names in {@link OUTAGES}. */
  readonly outages: Readonly<Record<string, Outage>>;
}

/** The agents' flags for a store. */
export function storeFlags(store: StoreName): { storeFlags?: readonly string[] } {
  return store === "sqlite" ? {} : { storeFlags: ["--etcd-endpoints", `http://${ETCD_HOST}:2379`] };
}

/** Makes the store of a laboratory whose agents were given {@link storeFlags}. It holds the net-conf. */
export async function openStore(
  store: StoreName,
  lab: Lab,
  netConf: unknown,
): Promise<StoreAtFault> {
  return store === "sqlite" ? new SqliteAtFault(lab) : await EtcdAtFault.start(lab, netConf);
}

class SqliteAtFault implements StoreAtFault {
  readonly outages: Readonly<Record<keyof typeof OUTAGES["sqlite"], Outage>>;
  readonly #store: SqliteStore;
  readonly #path: string;

  constructor(lab: Lab) {
    this.#path = `${lab.directory}/denim.db`;
    this.#store = SqliteStore.open(this.#path, { log: new RecordingLog() });
    const away = `${lab.directory}/away`;
    let holder: DatabaseSync;
    let before: string;
    this.outages = {
      "locked": {
        begin: () => {
          holder = this.#open();
          holder.exec("BEGIN IMMEDIATE");
          using other = this.#open();
          try {
            other.exec("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE");
          } catch {
            return;
          }
          throw new Error("the store is not locked");
        },
        end: () => holder.close(),
      },
      "gone for a moment": {
        begin: () => Deno.renameSync(this.#path, away),
        end: () => Deno.renameSync(away, this.#path),
      },
      "deleted": {
        begin: () => {
          before = this.#text();
          Deno.removeSync(this.#path);
        },
        end: async () => {
          await eventually("agents have recreated the store", () => {
            try {
              return this.#text() === before;
            } catch {
              return false;
            }
          });
        },
      },
    };
  }

  /** The file is opened each time, since another may have taken its place. */
  #open(): DatabaseSync {
    if (!existsSync(this.#path)) throw new Error(`there is no ${this.#path}`);
    const db = new DatabaseSync(this.#path);
    db.exec("PRAGMA busy_timeout = 1000");
    return db;
  }

  #text(): string {
    return [...this.holders()].map(String).sort().join("\n");
  }

  holders(): Map<string, string> {
    using db = this.#open();
    const rows = db.prepare("SELECT key, public_ip FROM leases WHERE value IS NOT NULL").all();
    return new Map(rows.map(({ key, public_ip }) => [`${key}`, `${public_ip}`]));
  }

  async remove(key: string): Promise<void> {
    if (!await this.#store.release(key, NEVER)) throw new Error(`there is no lease ${key}`);
  }

  async give(key: string, publicIp: string): Promise<void> {
    const lease = (await this.#store.leases(NEVER)).find((candidate) => candidate.key === key);
    if (lease === undefined) throw new Error(`there is no lease ${key}`);
    new SqliteLeases(this.#path).put([withPublicIp(lease, publicIp)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }
}

function withPublicIp(lease: Lease, publicIp: string): Lease {
  const halves = lease.halves.map((half) => ({ ...half, publicIp: IpAddress.parse(publicIp) }));
  return { ...lease, halves };
}

class EtcdAtFault implements StoreAtFault {
  readonly outages: Readonly<Record<keyof typeof OUTAGES["etcd"], Outage>>;
  readonly #namespace: NetworkNamespace;
  readonly #etcd: EtcdServer;

  private constructor(namespace: NetworkNamespace, etcd: EtcdServer) {
    this.#namespace = namespace;
    this.#etcd = etcd;
    this.outages = { killed: { begin: () => etcd.stop("SIGKILL"), end: () => etcd.start() } };
  }

  static async start(lab: Lab, netConf: unknown): Promise<EtcdAtFault> {
    const name = `${lab.prefix}-net`;
    sh(`ip -n ${name} link set lo up`);
    const namespace = NetworkNamespace.open(`/run/netns/${name}`);
    try {
      const etcd = await EtcdServer.start({ namespace, host: ETCD_HOST });
      etcd.ctl("put", `${ETCD_PREFIX}/config`, JSON.stringify(netConf));
      return new EtcdAtFault(namespace, etcd);
    } catch (error) {
      namespace[Symbol.dispose]();
      throw error;
    }
  }

  #values(): Map<string, string> {
    const prefix = `${ETCD_PREFIX}/subnets/`;
    const { kvs = [] } = JSON.parse(this.#etcd.ctl("get", "--prefix", prefix, "-w", "json"));
    return new Map(
      kvs.map((kv: { key: string; value: string }) =>
        [atob(kv.key).slice(prefix.length), atob(kv.value)] as const
      ),
    );
  }

  holders(): Map<string, string> {
    return new Map(
      [...this.#values()].map(([key, value]) => [
        key,
        `${parseLease(key, value).halves[0]!.publicIp}`,
      ]),
    );
  }

  remove(key: string): Promise<void> {
    const answer = this.#etcd.ctl("del", `${ETCD_PREFIX}/subnets/${key}`);
    if (answer.trim() !== "1") throw new Error(`there is no lease ${key}`);
    return Promise.resolve();
  }

  give(key: string, publicIp: string): Promise<void> {
    const value = this.#values().get(key);
    if (value === undefined) throw new Error(`there is no lease ${key}`);
    const given = JSON.stringify({ ...JSON.parse(value), PublicIP: publicIp });
    this.#etcd.ctl("put", `${ETCD_PREFIX}/subnets/${key}`, given);
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#etcd[Symbol.asyncDispose]();
    this.#namespace[Symbol.dispose]();
  }
}
