/**
 * Leases in etcd, with flannel's keys and values.
 *
 * A node's lease is one key, `<prefix>/subnets/<subnets>`, written under an etcd lease that ends after 24
 * hours; a key without an etcd lease is a reservation. Each write is a transaction over the revisions that
 * were read. Comparing revisions cannot rule out overlapping subnets or two leases of one node, so the transaction
 * also lists new keys; if there is a conflict, the later lease is deleted.
 *
 * @module
 */

import type {
  IEvent,
  IKeyValue,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  ITxnRequest,
} from "etcd3";
import { Buffer } from "node:buffer";
import {
  awaitNetConf,
  Backoff,
  chooseLease,
  chooseReservation,
  type Expiry,
  findHeld,
  followNetConf,
  formatLeaseValue,
  heldBefore,
  holdsAlike,
  indexOf,
  type Lease,
  LEASE_TTL_MS,
  type LeaseAdmin,
  type LeaseEvent,
  leaseKey,
  LeaseReader,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  logLeaseReplaced,
  messageOf,
  type Metrics,
  type NetworkConfig,
  NO_METRICS,
  type NodeIdentity,
  noNetConf,
  type Note,
  NOTE_TTL_MS,
  Outage,
  overlaps,
  parseNetworkConfig,
  readNetConf,
  type ReadRow,
  requestedLease,
  requireHeld,
  type ReservationRequest,
  RuntimeError,
  sleep,
  type StoreMetrics,
  storeMetrics,
  throwDefect,
} from "../../mod.ts";
import { EtcdClient, HistoryGoneError, type KeyRange, RefusedError } from "./client.ts";
import { type CreateEtcd3, GRPC } from "./etcd3.ts";
import type { RangeAnswer, RangeRow } from "./range_answer.ts";
import { DEFAULT_NAMES, readCredentials, type SettingNames, type TlsFiles } from "./tls.ts";

/** How many keys are read with one request. */
const PAGE_KEYS = 2_000;
/** How many requests for leases' ends are under way at once. */
const MAX_TTL_REQUESTS = 16;
/** Waits before a broken watch begins again; by chance, so that a cluster's nodes do not all come at once. */
const REWATCH = { minMs: 20, maxMs: 1_000, jitter: 0.5 };
/** How long a transaction that lost a race waits at most before the next attempt. */
const MAX_RACE_WAIT_MS = 50;
/** etcd's lease id of a key without a lease. */
const NO_LEASE = "0";

/** How a store is opened. */
export interface EtcdStoreOptions extends TlsFiles {
  /** The servers' URLs, `http:` or `https:`; one that answers is enough. */
  readonly endpoints: readonly string[];
  /** What all keys begin with: `/coreos.com/network`. */
  readonly prefix: string;
  /** The user to act as; none unless given. */
  readonly username?: string | undefined;
  /** The user's password. */
  readonly password?: string | undefined;
  /** Whether to wait for an etcd that does not answer, rather than to reject; true unless given. */
  readonly patient?: boolean;
  /** Where the store says what it waits for, and which leases can't be read. */
  readonly log: Logger;
  /** Counts what the store does. */
  readonly metrics?: Metrics;
  /** How messages name these options; a program gives its flags' names. */
  readonly names?: SettingNames;
  /** Makes etcd3's clients; with etcd3's constructor unless given. */
  readonly createEtcd3?: CreateEtcd3;
}

/** A lease's key as it is in etcd: its last part, and under which etcd lease it is, or {@link NO_LEASE}. */
interface Row extends RangeRow {
  /** The lease in it, `undefined` if it can't be read; not there if that was not tried yet. */
  lease?: Lease | undefined;
}

/** A lease that could be read, with its key in etcd. */
type Found = ReadRow<Row>;

/** All leases at one revision. */
interface Listing {
  readonly rows: readonly Row[];
  readonly revision: number;
  readonly clusterId: string;
}

/** An etcd lease of this node. */
interface Grant {
  readonly id: string;
  readonly expiry: Expiry;
}

/** What a reservation has in place of an etcd lease. */
const NO_GRANT: Grant = { id: NO_LEASE, expiry: "never" };

/** Leases in an etcd cluster. */
export class EtcdStore implements LeaseStore, LeaseAdmin {
  /** `etcd:` with the endpoints and the prefix. */
  readonly description: string;
  readonly #servers: readonly string[];
  readonly #client: EtcdClient;
  readonly #log: Logger;
  readonly #reader: LeaseReader;
  readonly #configKey: Buffer;
  readonly #subnets: string;
  readonly #notes: string;
  readonly #range: Required<KeyRange>;
  readonly #metrics: StoreMetrics;
  readonly #refused: Outage;
  /** All leases as last listed, until a watch follows them. */
  #listing: Listing | undefined;
  #watchBegan = false;

  private constructor(options: EtcdStoreOptions) {
    // As Go's path.Join has it, which flannel uses.
    const prefix = options.prefix.replace(/\/{2,}/g, "/").replace(/\/$/, "");
    this.description = `etcd:${options.endpoints.join(",")}${prefix}`;
    this.#servers = options.endpoints.map((url) => new URL(url).hostname);
    this.#log = options.log;
    this.#reader = new LeaseReader(this.description, options.log);
    this.#metrics = storeMetrics(options.metrics ?? NO_METRICS, "etcd");
    this.#refused = new Outage(
      this.description,
      "can be watched again",
      options.log,
      this.#metrics.outages,
    );
    this.#configKey = Buffer.from(`${prefix}/config`);
    this.#subnets = `${prefix}/subnets/`;
    this.#notes = `${prefix}/denim/notes/`;
    // The byte behind "/" is "0".
    this.#range = {
      key: Buffer.from(this.#subnets),
      range_end: Buffer.from(`${prefix}/subnets0`),
    };
    this.#client = new EtcdClient({
      ...options,
      metrics: this.#metrics,
      names: options.names ?? DEFAULT_NAMES,
      patient: options.patient ?? true,
      description: this.description,
    });
  }

  /**
   * Opens a store; etcd itself is asked with the first call. Throws a ConfigError if the TLS files can't be
   * used.
   */
  static open(options: EtcdStoreOptions): EtcdStore {
    if (options.endpoints.some((url) => url.startsWith("https:"))) {
      readCredentials(options, options.names ?? DEFAULT_NAMES);
    }
    return new EtcdStore(options);
  }

  /** See {@link LeaseStore.networkConfig}. */
  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    return readNetConf((await this.#awaitNetConf(signal)).value, this.description);
  }

  /** See {@link LeaseStore.watchNetworkConfig}. */
  watchNetworkConfig(signal: AbortSignal): AsyncGenerator<NetworkConfig, void, void> {
    const texts = async function* (rows: AsyncIterable<Row>) {
      for await (const { value } of rows) yield value;
    };
    return followNetConf(texts(this.#netConfs(signal)), this.description, this.#log);
  }

  /** See {@link LeaseAdmin.networkConfigText}. */
  async networkConfigText(signal: AbortSignal): Promise<string | undefined> {
    return (await this.#read(this.#configKey, signal))?.value;
  }

  /** See {@link LeaseAdmin.setNetworkConfig}. */
  async setNetworkConfig(
    text: string,
    options: { readonly ifAbsent: boolean },
    signal: AbortSignal,
  ): Promise<boolean> {
    parseNetworkConfig(text);
    const put = { request_put: { key: this.#configKey, value: Buffer.from(text) } };
    return await this.#transact({
      compare: options.ifAbsent ? [createdAt(this.#configKey, 0)] : [],
      success: [put],
    }, signal) !== undefined;
  }

  /** See {@link LeaseStore.held}. */
  async held(node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined> {
    const found = await this.#heldBefore(node, signal) ??
      findHeld(node, indexOf((await this.#listAll(signal)).rows, this.#leaseOf));
    if (found === undefined) return undefined;
    const [lease] = await this.#withExpiry([found], signal);
    return lease;
  }

  /** The lease of the node's last run, found without listing all. */
  async #heldBefore(node: NodeIdentity, signal: AbortSignal): Promise<Found | undefined> {
    if (node.previousSubnets.length === 0) return undefined;
    const row = await this.#read(this.#keyOf(leaseKey(node.previousSubnets)), signal);
    const lease = row && this.#leaseOf(row);
    return lease && heldBefore(node, lease) ? { key: lease.key, row, lease } : undefined;
  }

  /** See {@link LeaseStore.acquire}. */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    let wasHeld = false;
    const lease = await this.#write(async (grant) => {
      const netConf = await this.#awaitNetConf(signal);
      const config = readNetConf(netConf.value, this.description);
      const listing = await this.#listAll(signal);
      const { rows } = listing;
      const found = findHeld(request, indexOf(rows, this.#leaseOf));
      wasHeld = found !== undefined;
      const choice = chooseLease(
        config,
        request,
        found !== undefined && isOldest(found, rows) ? found.lease : undefined,
        () =>
          rows.filter((row) => row !== found?.row)
            .map((row) => ({ key: row.key, lease: this.#leaseOf(row) })),
      );
      const { subnets, keeps } = choice;
      if (found !== undefined && !keeps) {
        logLeaseReplaced(this.#log, config, request, found, choice);
      }
      const reserved = keeps && found?.row.etcdLease === NO_LEASE;
      const { id, expiry } = reserved ? NO_GRANT : await grant();
      const lease = requestedLease(request, subnets, expiry);
      return { lease, id, replaces: found?.row, netConf, listing };
    }, signal);
    return wasHeld ? { ...lease, wasHeld } : lease;
  }

  /** See {@link LeaseStore.renew}. */
  async renew(lease: Lease, signal: AbortSignal): Promise<Lease> {
    return await this.#write(async (grant) => {
      const stored = await this.#read(this.#keyOf(lease.key), signal);
      const row = requireHeld(lease, stored, this.#leaseOf);
      const { id, expiry } = row.etcdLease === NO_LEASE ? NO_GRANT : await grant();
      return { lease: { ...lease, expiry }, id, replaces: row };
    }, signal);
  }

  /** See {@link LeaseAdmin.leases}; costs a request a lease. */
  async leases(signal: AbortSignal): Promise<readonly Lease[]> {
    const { rows } = await this.#list(signal);
    const found = rows.flatMap((row) => {
      const lease = this.#leaseOf(row);
      return lease === undefined ? [] : { key: row.key, row, lease };
    });
    return await this.#withExpiry(found, signal);
  }

  /** See {@link LeaseAdmin.reserve}. */
  async reserve(request: ReservationRequest, signal: AbortSignal): Promise<Lease> {
    return await this.#write(async () => {
      const netConf = await this.#read(this.#configKey, signal);
      if (netConf === undefined) throw noNetConf(this.description);
      const listing = await this.#list(signal);
      const lease = chooseReservation(
        readNetConf(netConf.value, this.description),
        request,
        listing.rows.map((row) => ({ key: row.key, lease: this.#leaseOf(row) })),
      );
      const replaces = listing.rows.find(({ key }) => key === lease.key);
      const done = replaces?.etcdLease === NO_LEASE;
      return { lease, id: NO_LEASE, replaces, done, netConf, listing };
    }, signal);
  }

  /** See {@link LeaseStore.release}. */
  async release(key: string, signal: AbortSignal): Promise<boolean> {
    const { deleted } = await this.#client.run(
      ({ kv }, options) => kv.deleteRange({ key: this.#keyOf(key) }, options),
      signal,
    );
    return deleted !== "0";
  }

  /** See {@link LeaseStore.watch}; when a lease ends that is no reservation is "unknown". */
  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    /** The keys of the leases that the caller knows. */
    const told = new Set<string>();
    let first = true;
    const list = async (signal: AbortSignal) => {
      const listing = await this.#listAll(signal);
      this.#watchBegan = true;
      this.#listing = undefined;
      return listing;
    };
    for await (const news of this.#follow(this.#range, signal, list)) {
      let event: LeaseEvent | undefined = this.#eventOf(news, told, first);
      first = false;
      if (event !== undefined) yield event;
      // A generator keeps its variables while it waits, and with them, at first, all leases.
      event = undefined;
    }
  }

  /** What news mean for leases; `undefined` if nothing. Empties them. */
  #eventOf({ rows, present }: News, told: Set<string>, first: boolean): LeaseEvent | undefined {
    const put: Lease[] = [];
    const removed = present === undefined ? [] : [...told].filter((key) => !present.has(key));
    for (const key of removed) told.delete(key);
    for (const [key, row] of rows) {
      const lease = row && this.#leaseOf(row);
      if (row === undefined) this.#reader.remove(key);
      if (lease !== undefined) {
        told.add(key);
        put.push(lease);
      } else if (told.delete(key)) removed.push(key);
    }
    rows.clear();
    present?.clear();
    this.#client.nodes = told.size;
    if (first) return { kind: "snapshot", leases: put };
    return put.length > 0 || removed.length > 0 ? { kind: "changes", put, removed } : undefined;
  }

  /** See {@link LeaseStore.servers}: all that may have to be reached. */
  get servers(): readonly string[] {
    return this.#servers;
  }

  /** See {@link LeaseStore.writeNote}; its key is `<prefix>/denim/notes/<the lease's key>`. */
  async writeNote(key: string, note: Note | undefined, signal: AbortSignal): Promise<void> {
    const place = Buffer.from(`${this.#notes}${key}`);
    if (note === undefined) {
      await this.#client.run(({ kv }, options) => kv.deleteRange({ key: place }, options), signal);
      return;
    }
    // The etcd lease of the note before ends by itself.
    const { id } = await this.#grant(signal, NOTE_TTL_MS);
    const put = { key: place, value: Buffer.from(note.text), lease: id };
    await this.#client.run(({ kv }, options) => kv.put(put, options), signal);
  }

  /** See {@link LeaseStore.notes}. */
  async notes(signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const range = {
      key: Buffer.from(this.#notes),
      range_end: Buffer.from(`${this.#notes.slice(0, -1)}0`),
    };
    const { kvs } = await this.#client.run(
      ({ kv }, options) => kv.range(range, options),
      signal,
    );
    return new Map(kvs.map(({ key, value }) => [`${key}`.slice(this.#notes.length), `${value}`]));
  }

  /** See {@link LeaseStore.clockAheadMs}. */
  async clockAheadMs(signal: AbortSignal): Promise<number | undefined> {
    return await this.#client.clockAheadMs(signal);
  }

  /** See {@link LeaseStore.reconnect}. */
  reconnect(): void {
    this.#client.reconnect();
  }

  /** Ends every watch, rejects what still waits, and disconnects. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  /**
   * What a range of keys holds, then what changes in it. Ends when the signal is aborted or the store is
   * closed. Throws if etcd refuses from the start; later on it tries again, whatever etcd says.
   *
   * @param list lists the range
   */
  async *#follow(
    range: KeyRange,
    signal: AbortSignal,
    list = (signal: AbortSignal): Promise<Listing> => this.#list(signal, range),
  ): AsyncGenerator<News, void, void> {
    const ending = AbortSignal.any([signal, this.#client.closed]);
    /** The next revision of interest. */
    let next = { revision: 0, clusterId: "" };
    const kind = range.key.toString();
    let listed = false;
    let began = false;
    const backoff = new Backoff(REWATCH);
    while (!ending.aborted) {
      try {
        if (!listed) {
          const found = newsOf(await list(ending), next);
          yield found.news;
          next = found.next;
          listed = began = true;
        }
        for await (const responses of this.#client.watch(range, next, ending)) {
          backoff.reset();
          this.#refused.worked(kind);
          const events = responses.flatMap(({ events }) => events);
          if (events.length === 0) continue;
          yield { rows: this.#changes(events), present: undefined };
          // Not the header's revision, which may be ahead of what the watch has reported.
          next.revision = Number(events.at(-1)!.kv.mod_revision) + 1;
        }
      } catch (error) {
        if (!ending.aborted && !began) throw error;
        if (error !== ending.reason) throwDefect(error);
        if (ending.aborted) return;
        if (error instanceof HistoryGoneError) listed = false;
        // A watch that etcd refuses leaves peers' changes unseen, of which nothing else would tell.
        if (error instanceof RefusedError) this.#refused.failed(kind, error.reason);
        this.#metrics.watchRestarts.add();
        this.#log.debug(
          "watch-restarted",
          `the watch on ${this.description} begins again: ${messageOf(error)}`,
        );
        await sleep(backoff.next(), ending);
      }
    }
  }

  #changes(events: readonly IEvent[]): News["rows"] {
    const rows = new Map<string, Row | undefined>();
    for (const { type, kv } of events) {
      const row = this.#rowOf(kv);
      rows.set(row.key, type === "Put" ? row : undefined);
    }
    return rows;
  }

  /** The net-confs that etcd holds, from the first on, one a write. */
  #netConfs(signal: AbortSignal): AsyncGenerator<Row, void, void> {
    const rows = async function* (news: AsyncIterable<News>) {
      for await (const { rows } of news) yield [...rows.values()][0];
    };
    const news = this.#follow({ key: this.#configKey }, signal);
    return awaitNetConf(rows(news), this.description, this.#log);
  }

  async #awaitNetConf(signal: AbortSignal): Promise<Row> {
    for await (const row of this.#netConfs(signal)) return row;
    throw signal.reason ?? this.#client.closed.reason;
  }

  /**
   * Writes a lease that `plan` decides on; decides again if another write was faster. `plan` may ask for an etcd
   * lease, and gets the same one each time.
   */
  async #write(
    plan: (grant: () => Promise<Grant>) => Promise<Plan>,
    signal: AbortSignal,
  ): Promise<Lease> {
    let granted: Grant | undefined;
    let used = false;
    const grant = async () => granted ??= await this.#grant(signal);
    try {
      for (;; await sleep(Math.random() * MAX_RACE_WAIT_MS, signal)) {
        const planned = await plan(grant);
        if (planned.done) return planned.lease;
        let revision;
        try {
          revision = await this.#carryOut(planned, signal);
          if (revision === undefined) continue;
        } catch (error) {
          // The etcd lease has ended meanwhile.
          if (!(error instanceof RefusedError && error.code === GRPC.NOT_FOUND)) throw error;
          granted = undefined;
          continue;
        }
        used = planned.id === granted?.id;
        await this.#discard(planned.replaces?.etcdLease, signal);
        // Read back, so that this node sees its lease as the others do.
        const { key, expiry } = planned.lease;
        return this.#reader.read(key, formatLeaseValue(planned.lease), expiry, revision)!;
      }
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.message.startsWith(this.description)) {
        throw error;
      }
      throw new RuntimeError(`${this.description}: ${error.message}`, { cause: error });
    } finally {
      if (!used) await this.#discard(granted?.id, signal);
    }
  }

  /** The revision of the write; `undefined` if another write was faster. */
  async #carryOut(
    { lease, id, replaces, netConf, listing }: Plan,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const key = this.#keyOf(lease.key);
    const keeps = replaces?.key === lease.key;
    const compare = [keeps ? changedAt(key, replaces.modRevision) : createdAt(key, 0)];
    const success: IRequestOp[] = [
      { request_put: { key, value: Buffer.from(formatLeaseValue(lease)), lease: id } },
    ];
    if (netConf !== undefined) compare.push(changedAt(this.#configKey, netConf.modRevision));
    if (replaces !== undefined && !keeps) {
      const old = this.#keyOf(replaces.key);
      compare.push(changedAt(old, replaces.modRevision));
      success.push({ request_delete_range: { key: old } });
    }
    if (listing !== undefined && !keeps) {
      const min_create_revision = listing.revision + 1;
      success.push({ request_range: { ...this.#range, min_create_revision } });
    }
    const done = await this.#transact({ compare, success }, signal);
    if (done === undefined) return undefined;
    const newcomers = done.ranges.flatMap(({ kvs }) => kvs.map((kv) => this.#rowOf(kv)));
    const rival = newcomers.find((row) => row.key !== lease.key && this.#collide(row, lease));
    // Another cluster's revisions don't tell which lease is new.
    const same = listing === undefined || listing.clusterId === done.clusterId;
    if (rival === undefined && same) return done.revision;
    this.#log.debug(
      "lease-conflict-undone",
      `deleting the new lease ${lease.key}: ` +
        (rival === undefined ? "etcd is another cluster by now" : `${rival.key} was first`),
    );
    await this.#transact({
      compare: [changedAt(key, done.revision)],
      success: [{ request_delete_range: { key } }],
    }, signal);
    return undefined;
  }

  #collide(row: Row, lease: Lease): boolean {
    const other = this.#leaseOf(row);
    return other !== undefined && holdsAlike(other, lease) ||
      overlaps(row.key, lease.halves.map(({ subnet }) => subnet));
  }

  async #transact(
    request: ITxnRequest,
    signal: AbortSignal,
  ): Promise<
    { revision: number; clusterId: string; ranges: readonly IRangeResponse[] } | undefined
  > {
    const { succeeded, header, responses } = await this.#client.run(
      ({ kv }, options) => kv.txn(request, options),
      signal,
    );
    if (!succeeded) return undefined;
    const ranges = responses.flatMap(({ response_range }) => response_range ?? []);
    return { revision: Number(header.revision), clusterId: header.cluster_id, ranges };
  }

  async #grant(signal: AbortSignal, ttlMs = LEASE_TTL_MS): Promise<Grant> {
    const askedAtMs = Date.now();
    const { ID, TTL } = await this.#client.run(
      ({ leaseClient }, options) => leaseClient.leaseGrant({ TTL: ttlMs / 1000 }, options),
      signal,
    );
    return { id: ID, expiry: { atMs: askedAtMs + Number(TTL) * 1000 } };
  }

  /** Revokes an etcd lease that no key is under any more, which would otherwise stay for a day. */
  async #discard(id: string | undefined, signal: AbortSignal): Promise<void> {
    if (id === undefined || id === NO_LEASE) return;
    await this.#client.tryOnce(async ({ leaseClient }, options) => {
      const { keys } = await leaseClient.leaseTimeToLive({ ID: id, keys: true }, options);
      if (keys.length === 0) await leaseClient.leaseRevoke({ ID: id }, options);
    }, signal);
  }

  /** The leases with their ends, but for those that have just ended. */
  async #withExpiry(found: readonly Found[], signal: AbortSignal): Promise<Lease[]> {
    const ids = [...new Set(found.map(({ row }) => row.etcdLease))].filter((id) => id !== NO_LEASE);
    const ends = new Map<string, Expiry>([[NO_LEASE, "never"]]);
    const ask = async () => {
      for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
        const ID = id;
        const { TTL } = await this.#client.run(
          ({ leaseClient }, options) => leaseClient.leaseTimeToLive({ ID }, options),
          signal,
        );
        if (Number(TTL) > 0) ends.set(id, { atMs: Date.now() + Number(TTL) * 1000 });
      }
    };
    await Promise.all(Array.from({ length: MAX_TTL_REQUESTS }, ask));
    return found.flatMap(({ row, lease }) => {
      const expiry = ends.get(row.etcdLease);
      return expiry === undefined ? [] : [{ ...lease, expiry }];
    });
  }

  /**
   * All leases. A node that starts asks three times (what it holds, what is free, who its peers are): the first
   * time it lists all, then only what has changed.
   */
  async #listAll(signal: AbortSignal): Promise<Listing> {
    const known = this.#listing && await this.#update(this.#listing, signal);
    const listing = known ?? await this.#list(signal);
    if (!this.#watchBegan) this.#listing = listing;
    return listing;
  }

  /** A listing as of now; `undefined` if something was deleted since, which only a new listing finds. */
  async #update(before: Listing, signal: AbortSignal): Promise<Listing | undefined> {
    const { rows: news, more, count, revision, clusterId } = await this.#readRange({
      ...this.#range,
      min_mod_revision: before.revision + 1,
      limit: PAGE_KEYS,
    }, signal);
    if (more || clusterId !== before.clusterId || revision < before.revision) return undefined;
    const written = new Map(news.map((row) => [row.key, row]));
    const rows = before.rows.map((row) => {
      const now = written.get(row.key) ?? row;
      written.delete(row.key);
      return now;
    });
    rows.push(...written.values());
    // etcd counts all keys, not only those that were written since.
    return rows.length === count ? { rows, revision, clusterId } : undefined;
  }

  /** The keys of a range, in pages of one revision. A page is read while etcd makes the next one. */
  async #list(signal: AbortSignal, range: KeyRange = this.#range): Promise<Listing> {
    const rows: Row[] = [];
    let pinned: { revision: number; clusterId: string } | undefined;
    const ask = (key: Buffer) => {
      const revision = pinned?.revision ?? 0;
      const page = this.#readRange({ ...range, key, limit: PAGE_KEYS, revision }, signal);
      // Awaited a little later.
      page.catch(() => {});
      return page;
    };
    for (let asked = ask(range.key);;) {
      let page: RangeAnswer;
      try {
        page = await asked;
      } catch (error) {
        // Compacted between two pages: a new listing has a new revision.
        if (
          pinned === undefined || !(error instanceof RefusedError) ||
          error.code !== GRPC.OUT_OF_RANGE
        ) throw error;
        return await this.#list(signal, range);
      }
      const { revision, clusterId, more } = page;
      pinned ??= { revision, clusterId };
      if (more) asked = ask(Buffer.concat([page.lastKey, Buffer.from([0])]));
      for (const row of page.rows) rows.push(row);
      if (!more) return { rows, ...pinned };
    }
  }

  async #read(key: Buffer, signal: AbortSignal): Promise<Row | undefined> {
    const { rows } = await this.#readRange({ key }, signal);
    return rows[0];
  }

  async #readRange(request: IRangeRequest, signal: AbortSignal): Promise<RangeAnswer> {
    return await this.#client.range(request, this.#range.key.length, signal);
  }

  /** The lease in a row; `undefined` if it can't be read. */
  readonly #leaseOf = (row: Row): Lease | undefined => {
    if (!("lease" in row)) {
      const expiry = row.etcdLease === NO_LEASE ? "never" : "unknown";
      row.lease = this.#reader.read(row.key, row.value, expiry, row.modRevision);
    }
    return row.lease;
  };

  #keyOf(key: string): Buffer {
    return Buffer.from(`${this.#subnets}${key}`);
  }

  #rowOf({ key, value, create_revision, mod_revision, lease }: IKeyValue): Row {
    return {
      key: key.toString().slice(this.#subnets.length),
      value: value.toString(),
      createRevision: Number(create_revision),
      modRevision: Number(mod_revision),
      etcdLease: lease,
    };
  }
}

/** What has changed in a range of keys. */
interface News {
  /** By the keys' last parts: rows that were written; `undefined` for those that were deleted. */
  readonly rows: Map<string, Row | undefined>;
  /** If the range was listed, all its keys: others are gone. */
  readonly present: Set<string> | undefined;
}

/** What a listing says that is new to those who know of everything before `next`, and what is next to them then. */
function newsOf(
  { rows, revision, clusterId }: Listing,
  next: { readonly revision: number; readonly clusterId: string },
): { readonly news: News; readonly next: typeof next } {
  // Another cluster's revisions don't tell what is new.
  const same = clusterId === next.clusterId && revision + 1 >= next.revision;
  const news = same ? rows.filter((row) => row.modRevision >= next.revision) : rows;
  return {
    news: {
      rows: new Map(news.map((row) => [row.key, row])),
      present: new Set(rows.map(({ key }) => key)),
    },
    next: { revision: revision + 1, clusterId },
  };
}

/** A lease to write. */
interface Plan {
  readonly lease: Lease;
  /** The id of the etcd lease that it is to be under, or {@link NO_LEASE}. */
  readonly id: string;
  /** What it replaces, under its own key or another. */
  readonly replaces: Row | undefined;
  /** Whether it is stored already. */
  readonly done?: boolean;
  /** The net-conf by which it was chosen, if any. */
  readonly netConf?: { readonly modRevision: number };
  /** The leases among which it was chosen, if any. */
  readonly listing?: Listing;
}

/** Whether no older lease overlaps it, as one might that was written at the same moment. */
function isOldest({ row, lease }: Found, rows: readonly Row[]): boolean {
  const subnets = lease.halves.map(({ subnet }) => subnet);
  return !rows.some(({ key, createRevision }) =>
    createRevision < row.createRevision && overlaps(key, subnets)
  );
}

type Compare = NonNullable<ITxnRequest["compare"]>[number];

function createdAt(key: Buffer, create_revision: number): Compare {
  return { key, target: "Create", result: "Equal", create_revision };
}

function changedAt(key: Buffer, mod_revision: number): Compare {
  return { key, target: "Mod", result: "Equal", mod_revision };
}
