/**
 * The reconciler: makes the kernel look as it should, and keeps it so. It alone changes the links,
 * addresses, neighbours, FDB entries, nexthops and routes by which packets travel between nodes, and has the
 * node forward them.
 *
 * What should be there is said by owners (the node itself, each peer), each of whom replaces its own
 * objects as a whole. An owner's news costs one owner's work. A check compares everything.
 *
 * @module
 */

import { messageOf, RuntimeError } from "../../errors.ts";
import { EventCounter } from "../../event_counter.ts";
import { addressBits, type Cidr, FAMILIES } from "../../ip.ts";
import {
  ALL_DEVICES,
  type DeviceAddress,
  type Gateway,
  type KernelObject,
  type KernelState,
  type Link,
  type Nexthop,
  type PodNetwork,
  type VxlanLink,
} from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import { sleep } from "../../sleep.ts";
import { addressKind, listAddresses } from "../objects/address.ts";
import {
  type Change,
  diff,
  type Entry,
  type EntryKind,
  KINDS,
  ORDER,
  orderAddresses,
} from "./diff.ts";
import {
  EADDRNOTAVAIL,
  EEXIST,
  ENODEV,
  ENOENT,
  EOPNOTSUPP,
  ESRCH,
  LinuxError,
} from "../sys/linux_error.ts";
import {
  findLink,
  linkAdoptable,
  linkEqual,
  type LinkState,
  listLinks,
  parseLink,
  writeChangedLink,
  writeNewLink,
  writeRemovedLink,
} from "../objects/link.ts";
import { Monitor } from "../netlink/monitor.ts";
import { type MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { NetworkNamespace } from "../sys/namespace.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { nexthopKind } from "../objects/nexthop.ts";
import { Pace, type Restless } from "./pace.ts";
import { type Devices, RTPROT_DENIM } from "../objects/object_kind.ts";
import { choosePodBridge, type PodBridge, podBridgeState } from "./pod_bridge.ts";
import { routeKind, routeTo } from "../objects/route.ts";
import { trySysctl } from "../sys/sysctl.ts";
import { openTun } from "../tunnel/tun.ts";
import {
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELNEIGH,
  RTM_DELNETCONF,
  RTM_DELNEXTHOP,
  RTM_DELROUTE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWNETCONF,
  RTM_NEWNEXTHOP,
  RTM_NEWROUTE,
} from "../uapi/rtnetlink.ts";
import { Wants } from "./wants.ts";

/** On whose behalf there is what the pods' bridge needs. */
const POD_BRIDGE = "pods' bridge";

/** A batch's size in bytes: some 60 KB a system call was the fastest when measured. */
const BATCH_BYTES = 60_000;
/** A full check, against news that was missed for whatever reason. */
const CHECK_INTERVAL_MS = 60_000;
/** News that belongs together arrives together: the wait for the rest of it. */
const SETTLE_MS = 10;
/** The wait before what failed is tried again, unless there is news before: from this, doubling … */
const MIN_RETRY_MS = 50;
/** … to this. */
const MAX_RETRY_MS = 10_000;

/** What an attempt came to. */
export interface ReconcileResult {
  /** The number of steps that were taken. */
  readonly changes: number;
  /** The steps that failed, as messages for people. */
  readonly failures: readonly string[];
}

/** What the kernel told of routes and devices that are not denim's; neither where all may be other now. */
export interface UnderlayNews {
  /** A device that came up, or went down or away, or has another name, MTU or address. */
  readonly device?: string;
  /** Where a route leads that came, changed or went. */
  readonly destination?: Cidr;
}

/** Makes one network namespace as it should be: that of the thread that opens it. */
export class Reconciler implements Disposable {
  readonly #open: DisposableStack;
  readonly #namespace: NetworkNamespace;
  readonly #socket: NetlinkSocket;
  readonly #monitor: Monitor;
  readonly #writer = new MessageWriter();
  readonly #log: Logger;
  readonly #onUnderlay: (news: UnderlayNews) => void;

  /** What should be there, by key, and on whose behalf. */
  readonly #wanted = new Wants<Entry>();
  readonly #wantedLinks = new Wants<Link>();
  readonly #gateways = new Wants<Gateway>();
  /** The keys of each owner; a device's key is its name. */
  readonly #owners = new Map<string, readonly string[]>();
  /** The devices that owners named: of the many that come and go, those that matter. */
  readonly #named = new Set<string>();
  /** What the kernel has of it, as far as is known. */
  #applied = new Map<string, Entry>();

  /** Keys at which the two may differ. */
  #touched = new Set<string>();
  #linksTouched = false;
  readonly #unwantedLinks = new Set<string>();
  /** The indexes of denim's devices that were given other names, by the names that they should have. */
  readonly #renamed = new Map<string, number>();
  /** Whether an address of denim's devices had to be put back. */
  #addressMended = false;
  #bridge: PodBridge | undefined;
  /** Whether another bridge may be the pods' now. */
  #bridgeDue = false;
  #checked = false;
  #checkDue = false;
  #failing = false;
  /** Counts the reasons to mend something soon. */
  readonly #reasons = new EventCounter();

  readonly #pace = new Pace();
  /** Keys of what owners say anew: making it so is no mend, and waits for nothing. */
  readonly #ordered = new Set<string>();
  /** Keys of what is wrong and has to wait, and until when. */
  readonly #held = new Map<string, number>();
  /** Devices that came up so often that the check for their sake has to wait, and until when. */
  readonly #lateChecks = new Map<string, number>();
  /** What was mended and is not told yet. */
  #mends = 0;
  #firstMend: string | undefined;
  #restless: Restless[] = [];
  #running = false;

  readonly #linksByIndex = new Map<number, LinkState>();
  readonly #indexes = new Map<string, number>();
  readonly #devices: Devices & { networks: readonly PodNetwork[]; podBridge: string | undefined } =
    {
      indexOf: (name) => {
        const index = this.#indexes.get(name);
        if (index === undefined) throw new LinuxError(ENODEV, `device ${name}`);
        return index;
      },
      has: (name) => this.#indexes.has(name),
      nameOf: (index) => this.#linksByIndex.get(index)?.name,
      owned: (name) => this.#wantedLinks.has(name),
      podBridge: undefined,
      networks: [],
    };

  /**
   * Opens the sockets; `log` hears what is mended, `onUnderlay`, while {@link Reconciler.run} does, what
   * changed below. Throws a LinuxError without CAP_NET_ADMIN.
   */
  constructor(log: Logger, onUnderlay: (news: UnderlayNews) => void = () => {}) {
    this.#log = log;
    this.#onUnderlay = onUnderlay;
    using open = new DisposableStack();
    this.#namespace = open.use(NetworkNamespace.current());
    this.#socket = open.use(new NetlinkSocket());
    this.#monitor = open.use(new Monitor(this.#socket.portId));
    this.#readLinks();
    this.#open = open.move();
  }

  /**
   * The cluster's networks; none until they are told. Routes to them, and those routes' nexthops, are
   * denim's where they bear its protocol number. Any other that does is so only on denim's own devices,
   * or where an owner wants it: there may be an agent of another cluster in the namespace.
   */
  set networks(networks: readonly PodNetwork[]) {
    this.#devices.networks = networks;
  }

  /** Closes the sockets. What is in the kernel stays. */
  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]();
  }

  /** Replaces what an owner wants. Nothing happens before {@link Reconciler.apply}. */
  set(owner: string, state: KernelState): void {
    this.#set(owner, state);
  }

  #set(owner: string, objects: readonly (KernelObject | Entry)[]): void {
    const keys = new Set<string>();
    for (const object of objects) {
      if (object.kind === "gateway") {
        const key = `gateway ${object.address}/${object.prefixLength}`;
        keys.add(key);
        this.#gateways.set(key, owner, object);
        this.#bridgeDue = true;
      } else if (object.kind === "link") {
        keys.add(object.name);
        this.#named.add(object.name);
        if (object.mac !== undefined) this.#named.add(object.info.outerDevice);
        const before = this.#wantedLinks.get(object.name)?.object;
        if (JSON.stringify(before) !== JSON.stringify(object)) this.#order(deviceKey(object.name));
        this.#wantedLinks.set(object.name, owner, object);
        this.#unwantedLinks.delete(object.name);
        this.#touchLink(object.name);
      } else {
        const { key: keyOf, equal } = KINDS[object.kind];
        const key = keyOf(object);
        keys.add(key);
        if ("device" in object) this.#named.add(object.device);
        const before = this.#wanted.get(key)?.object;
        if (before === undefined || !equal(object, before)) this.#order(key);
        this.#wanted.set(key, owner, object);
        this.#touch(key);
      }
    }
    for (const key of this.#owners.get(owner) ?? []) {
      if (!keys.has(key)) this.#disown(owner, key);
    }
    if (keys.size > 0) this.#owners.set(owner, [...keys]);
    else this.#owners.delete(owner);
  }

  /** Takes away what an owner wanted. */
  delete(owner: string): void {
    this.set(owner, []);
  }

  #disown(owner: string, key: string): void {
    const object = this.#wanted.get(key)?.object;
    if (this.#wanted.delete(key, owner)) {
      if (KINDS[object!.kind].remove === undefined && !this.#wanted.has(key)) {
        this.#applied.delete(key);
      } else {
        this.#order(key);
        this.#touch(key);
      }
    }
    if (this.#gateways.delete(key, owner)) this.#bridgeDue = true;
    if (this.#wantedLinks.delete(key, owner)) {
      if (!this.#wantedLinks.has(key)) this.#unwantedLinks.add(key);
      this.#order(deviceKey(key));
      this.#touchLink(key);
    }
  }

  /** An owner wants something else under a key than before. */
  #order(key: string): void {
    this.#ordered.add(key);
    this.#held.delete(key);
  }

  /** What is under a key may be wrong. What is known to be, and has to wait, is no news. */
  #touch(key: string): void {
    if (!this.#held.has(key)) this.#touched.add(key);
  }

  #touchLink(name: string): void {
    if (!this.#held.has(deviceKey(name))) this.#linksTouched = true;
  }

  /** Makes what was set or deleted since the last time true. Costs what those objects cost. */
  apply(): ReconcileResult {
    const before = this.#failing;
    const result = this.#attempt(() => {
      if (this.#bridgeDue) this.#findBridge();
      const links = this.#linksTouched ? this.#makeLinks() : NOTHING;
      // With a new device all that lies on devices is to be looked at anew.
      if (links.changes > 0 && this.#checked) return sum(links, this.#checkAll(true));
      const wanted = new Map<string, Entry>();
      const found = new Map<string, Entry>();
      for (const key of this.#touched) {
        const want = this.#wanted.get(key)?.object;
        const have = this.#applied.get(key);
        if (want !== undefined && this.#hasPlace(want)) wanted.set(key, want);
        if (have !== undefined) found.set(key, have);
      }
      const result = sum(links, this.#carryOut(diff(wanted, found)));
      // Routes that name an address as their source went with it, on kernels before 6.6 without a word.
      return this.#addressMended && this.#checked ? sum(result, this.#checkAll()) : result;
    });
    // What failed before is still to be tried again: only a check sees that it is right by now.
    this.#failing ||= before;
    return result;
  }

  /**
   * Compares all that should be there with all that is, and mends every difference. What earlier runs, or
   * flanneld, left on denim's devices is taken over where it is right, and removed where nobody wants it.
   */
  check(): ReconcileResult {
    return this.#attempt(() => this.#checkAll());
  }

  /** `lost` says that devices were made anew, or set up, a moment ago. */
  #checkAll(lost = false): ReconcileResult {
    this.#readLinks();
    this.#held.clear();
    const links = this.#makeLinks();
    this.#findBridge();
    const held = this.#applied;
    const { found, besides } = this.#dump();
    this.#applied = found;
    for (const key of this.#touched) {
      const had = held.get(key);
      // Addresses of a bridge that is not the pods' any more are nowhere in the dump.
      if (had?.kind === "address" && !this.#wanted.has(key) && !found.has(key)) {
        found.set(key, had);
      }
    }
    this.#checked = true;
    this.#checkDue = false;
    const wanted = new Map<string, Entry>();
    for (const [key, { object }] of this.#wanted) {
      if (this.#hasPlace(object)) wanted.set(key, object);
    }
    const changes = diff(wanted, found, (key) => held.has(key));
    lost ||= links.changes > 0;
    const result = sum(links, this.#carryOut([...changes, ...besides], lost));
    this.#addressMended = false;
    return result;
  }

  /** Has what the pods' bridge needs wanted where there is such a bridge. */
  #findBridge(): void {
    this.#bridgeDue = false;
    const gateways = [...this.#gateways.values()].map(({ object }) => object);
    const addresses = gateways.length === 0
      ? []
      : FAMILIES.flatMap((family) => listAddresses(this.#socket, family));
    const links = [...this.#linksByIndex.values()];
    const { networks } = this.#devices;
    const before = this.#bridge?.link;
    this.#bridge = choosePodBridge(links, addresses, gateways, networks, this.#bridge);
    const device = this.#devices.podBridge = this.#bridge?.link.name;
    this.#set(POD_BRIDGE, device === undefined ? [] : podBridgeState(device, gateways));
    if (device === undefined) return;
    if (before?.index === this.#bridge!.link.index && before.name === device) return;
    // What is so already: nobody tells of it any more.
    for (const kind of ["up", "address", "forwarding"] as const) {
      for (const object of KINDS[kind].dump(this.#socket, this.#devices, [])) {
        const key = KINDS[kind].key(object);
        if (!this.#wanted.has(key) && !KINDS[kind].ours(object, this.#devices, false)) continue;
        this.#applied.set(key, object);
        this.#touched.add(key);
      }
    }
  }

  /** A setting of a device that is not there is nothing to be mended; the device's coming is heard. */
  #hasPlace(object: Entry): boolean {
    return object.kind !== "forwarding" || object.device === ALL_DEVICES ||
      this.#indexes.has(object.device);
  }

  /** Everything that is, or may be, denim's; and what stands beside what is right, and has to go. */
  #dump(): { found: Map<string, Entry>; besides: readonly Change<Entry>[] } {
    const owned = [...this.#wantedLinks.keys()].filter((name) => this.#indexes.has(name));
    const found = new Map<string, Entry>();
    const besides: Change<Entry>[] = [];
    for (const kind of ORDER) {
      const { equal, ours } = KINDS[kind];
      for (const object of KINDS[kind].dump(this.#socket, this.#devices, owned)) {
        const key = KINDS[kind].key(object);
        const want = this.#wanted.get(key)?.object;
        const right = want !== undefined && equal(want, object);
        const before = found.get(key);
        const pair = want !== undefined && before !== undefined && right !== (before === want);
        const other = right ? before : object;
        if (pair && ours(other!, this.#devices, false)) {
          besides.push({
            action: "remove",
            object: other!,
            key: `${key}, the second`,
            known: true,
          });
        }
        // Of two that are the same one is enough to keep: there may be hundreds of thousands.
        if (right) found.set(key, want);
        else if (!pair) {
          const held = this.#applied.has(key);
          if (want !== undefined || ours(object, this.#devices, held)) found.set(key, object);
        }
      }
    }
    return { found, besides };
  }

  /** A device may go in the middle of it, and the kernel may be out of memory: nothing is certain then. */
  #attempt(body: () => ReconcileResult): ReconcileResult {
    let result: ReconcileResult;
    try {
      // A TUN device is made, and a setting written, where this thread is.
      result = this.#namespace.runHere(body);
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error;
      this.#checkDue = true;
      result = { ...NOTHING, failures: [error.message] };
    }
    this.#failing = result.failures.length > 0;
    if (this.#failing) this.#reasons.add();
    this.#tell();
    return result;
  }

  /** Says what was mended; of what others keep changing, only that they do. */
  #tell(): void {
    const [mends, first, restless] = [this.#mends, this.#firstMend, this.#restless];
    this.#mends = 0;
    this.#firstMend = undefined;
    this.#restless = [];
    if (!this.#running) return;
    if (mends > 0) {
      this.#log.warn("mended", `mended what others changed: ${first}`, { changes: mends });
    }
    if (restless.length > 0) {
      const { mends, sinceMs } = restless[0]!;
      const seconds = ((performance.now() - sinceMs) / 1000).toFixed(1);
      this.#log.warn(
        "contested",
        `others keep changing ${
          namesOf(restless)
        }: ${mends} times in ${seconds} s; from now on it is put ` +
          "right ever later, up to 0.8 s; find out who they are, and stop them",
      );
    }
  }

  /**
   * Keeps the kernel as it should be until the signal is aborted: mends what the kernel tells was changed,
   * tries again what failed, and checks everything from time to time. Start it after the first
   * {@link Reconciler.check}.
   */
  async run(signal: AbortSignal): Promise<void> {
    this.#running = true;
    try {
      await Promise.all([this.#listen(signal), this.#mend(signal)]);
    } finally {
      this.#running = false;
    }
  }

  async #listen(signal: AbortSignal): Promise<void> {
    const lost = () => {
      this.#checkDue = true;
      this.#onUnderlay({});
    };
    while (await this.#monitor.next(signal, (reader) => this.#hear(reader), lost)) {
      if (this.#touched.size > 0 || this.#linksTouched || this.#bridgeDue || this.#checkDue) {
        this.#reasons.add();
      }
    }
  }

  async #mend(signal: AbortSignal): Promise<void> {
    let retryMs = MIN_RETRY_MS, checkAtMs = performance.now() + CHECK_INTERVAL_MS, complaint = "";
    for (let seen = 0;;) {
      let waitMs = checkAtMs - performance.now();
      if (this.#failing) waitMs = Math.min(waitMs, retryMs);
      for (const waiting of [this.#held, this.#lateChecks]) {
        for (const atMs of waiting.values()) waitMs = Math.min(waitMs, atMs - performance.now());
      }
      await this.#reasons.after(seen, waitMs, signal);
      if (!await sleep(SETTLE_MS, signal)) return;
      this.#release(performance.now());
      const full = this.#failing || this.#checkDue || this.#linksTouched ||
        performance.now() >= checkAtMs;
      const { failures } = full ? this.check() : this.apply();
      seen = this.#reasons.count;
      if (full) {
        checkAtMs = performance.now() + CHECK_INTERVAL_MS;
        const calm = this.#pace.forget(performance.now());
        if (calm.length > 0) this.#log.info("contest-over", `others let ${namesOf(calm)} be again`);
      }
      retryMs = failures.length > 0 ? Math.min(retryMs * 2, MAX_RETRY_MS) : MIN_RETRY_MS;
      const news = failures[0] ?? "";
      if (news !== complaint && news !== "") {
        this.#log.error("reconcile-failed", `the kernel is not as it should be: ${news}`, {
          failures: failures.length,
        });
      }
      complaint = news;
    }
  }

  /** Lets go of what has waited long enough. */
  #release(nowMs: number): void {
    for (const [key, atMs] of this.#held) {
      if (atMs > nowMs) continue;
      this.#held.delete(key);
      if (key.startsWith(deviceKey(""))) this.#linksTouched = true;
      else this.#touched.add(key);
    }
    for (const [device, atMs] of this.#lateChecks) {
      if (atMs > nowMs) continue;
      this.#lateChecks.delete(device);
      this.#checkFor(device, nowMs);
    }
  }

  /** A device came up: a check is due for its sake, unless it does so again and again. */
  #checkFor(device: string, nowMs: number): void {
    if (this.#lateChecks.has(device)) return;
    const key = `whether ${device} is up`;
    const waitMs = this.#pace.waitMs(key, nowMs);
    if (waitMs > 0) {
      this.#lateChecks.set(device, nowMs + waitMs);
      this.#reasons.add(); // so that the next pass comes in time
      return;
    }
    this.#checkDue = true;
    const restless = this.#pace.mended(key, nowMs);
    if (restless !== undefined) this.#restless.push(restless);
  }

  /** Whether what was found wrong under a key has to wait. */
  #hold(key: string, nowMs: number): boolean {
    if (this.#ordered.has(key)) return false;
    const waitMs = this.#pace.waitMs(key, nowMs);
    if (waitMs > 0) this.#holdUntil(key, nowMs + waitMs);
    return waitMs > 0;
  }

  #holdUntil(key: string, atMs: number): void {
    this.#held.set(key, atMs);
    this.#reasons.add(); // so that the next pass comes in time
  }

  /** Whether a step has to wait: for its own sake, or for that of what it needs. */
  #waits({ action, object, key }: Change<Entry>, nowMs: number): boolean {
    const untilMs = action === "put" ? this.#needs(object) : undefined;
    if (untilMs === undefined) return this.#hold(key, nowMs);
    this.#holdUntil(key, untilMs);
    return true;
  }

  /** Until when what an object needs has to wait, where it does and is not there. */
  #needs(object: Entry): number | undefined {
    if ("nexthopId" in object) {
      const key = nexthopKind.key({ id: object.nexthopId } as Nexthop);
      const nexthop = this.#wanted.get(key)?.object;
      return this.#held.get(key) ?? (nexthop && this.#needs(nexthop));
    }
    if ("source" in object) {
      const { device, source: address } = object;
      const prefixLength = addressBits(address.family);
      const key = addressKind.key({ kind: "address", device, address, prefixLength });
      if (this.#held.has(key)) return this.#held.get(key);
    }
    const link = this.#linksByIndex.get(this.#indexes.get(object.device) ?? 0);
    return link?.up ? undefined : this.#held.get(deviceKey(object.device));
  }

  /** Notes that something was put right that others had changed. */
  #mended(key: string, step: string, nowMs: number): void {
    if (this.#ordered.has(key)) return;
    const restless = this.#pace.mended(key, nowMs);
    if (restless !== undefined) this.#restless.push(restless);
    if (this.#pace.isRestless(key)) return;
    this.#firstMend ??= step;
    this.#mends++;
  }

  /** Takes one message of the monitor. */
  #hear(reader: MessageReader): void {
    const { type } = reader;
    if (type === RTM_NEWLINK || type === RTM_DELLINK) this.#hearLink(reader);
    const news = NEWS.get(type);
    if (news === undefined) return;
    for (const kind of news.kinds) {
      const object = KINDS[kind].parse(reader, this.#devices);
      if (object === undefined) continue;
      const key = KINDS[kind].key(object);
      const want = this.#wanted.get(key);
      if (news.gone) {
        const had = this.#applied.delete(key);
        // A setting goes with its device.
        if (KINDS[kind].remove === undefined) continue;
        if (want === undefined) {
          if (!had && !KINDS[kind].ours(object, this.#devices, false)) this.#tellUnderlay(object);
          continue;
        }
        this.#touch(key);
        if (kind === "nexthop") this.#forgetRoutes(want.owner);
      } else if (this.#applied.has(key) || KINDS[kind].ours(object, this.#devices, false)) {
        this.#applied.set(key, object);
        if (want === undefined || !KINDS[kind].equal(want.object, object)) this.#touch(key);
      } else {
        // Where denim has nothing yet, another's is in the way, and stays.
        if (want !== undefined) this.#touch(key);
        this.#tellUnderlay(object);
      }
      if (object.kind === "address" && this.#mayTell(object)) this.#bridgeDue = true;
    }
  }

  /**
   * Of what is not denim's, addresses, routes and the nexthops that they go by say how packets leave; those of
   * another cluster's agent lead to its pods, not to nodes.
   */
  #tellUnderlay(object: Entry): void {
    if ((object as { readonly protocol?: number }).protocol === RTPROT_DENIM) return;
    if (object.kind === "address") this.#onUnderlay({ device: object.device });
    if (object.kind === "route") this.#onUnderlay({ destination: object.destination });
    if (object.kind === "nexthop") this.#onUnderlay({});
  }

  /** The kernel takes a nexthop's routes away with it, and says nothing of IPv4 ones. */
  #forgetRoutes(owner: string): void {
    for (const key of this.#owners.get(owner) ?? []) {
      if (this.#wanted.get(key)?.object.kind !== "route") continue;
      this.#applied.delete(key);
      this.#touch(key);
    }
  }

  #hearLink(reader: MessageReader): void {
    const gone = reader.type === RTM_DELLINK;
    const link = parseLink(reader);
    if (link === undefined) return;
    const before = this.#linksByIndex.get(link.index);
    this.#forgetLink(link.index);
    if (!gone) this.#rememberLink(link);
    this.#hearBridge(before, gone ? undefined : link);
    const want = this.#wantedLinks.get(link.name)?.object;
    const right = want !== undefined && !gone && linkEqual(want, link, this.#devices);
    if (want !== undefined && !right) this.#touchLink(link.name);
    if (before !== undefined && before.name !== link.name) this.#hearRenamed(before.name, link);
    // The routes of a device that goes down go without a word of their own.
    const same = before?.up === link.up && before.name === link.name &&
      before.mtuBytes === link.mtuBytes;
    if ((gone || !same) && want === undefined) {
      this.#onUnderlay({ device: before?.name ?? link.name });
    }
    // What lay on a device that was away, down or without a carrier is gone, in part without a word.
    if (link.running && !before?.running && this.#named.has(link.name)) {
      this.#checkFor(link.name, performance.now());
    }
  }

  #hearRenamed(before: string, link: LinkState): void {
    for (const name of [before, link.name]) if (this.#named.has(name)) this.#touchLink(name);
    // Of two devices for one tunnel the kernel lets only one be.
    if (this.#wantedLinks.has(before) && !this.#wantedLinks.has(link.name)) {
      this.#renamed.set(before, link.index);
    }
  }

  /** Whether an address that a device was given may tell which bridge is the pods'. */
  #mayTell({ device }: DeviceAddress): boolean {
    const { type } = this.#linksByIndex.get(this.#indexes.get(device)!) ?? {};
    return type === "bridge" && this.#gateways.size > 0 && this.#bridge?.assumed !== false;
  }

  /** A bridge that comes, goes or has another name or alias; while none is known to be the pods', its ports too. */
  #hearBridge(before: LinkState | undefined, now: LinkState | undefined): void {
    if (this.#gateways.size === 0) return;
    if (before?.type === "bridge" || now?.type === "bridge") {
      if (before?.name !== now?.name || before?.alias !== now?.alias) this.#bridgeDue = true;
    } else if (this.#bridge === undefined && now?.masterIndex !== before?.masterIndex) {
      this.#bridgeDue = true;
    }
  }

  #readLinks(): void {
    const before = [...this.#linksByIndex.values()];
    this.#linksByIndex.clear();
    this.#indexes.clear();
    for (const link of listLinks(this.#socket)) this.#rememberLink(link);
    // What is seen here first is no news any more when it is heard.
    for (const { index, name, up, mtuBytes } of before) {
      const now = this.#linksByIndex.get(index);
      const same = now?.name === name && now.up === up && now.mtuBytes === mtuBytes;
      if (!same && !this.#wantedLinks.has(name)) this.#onUnderlay({ device: name });
    }
  }

  #rememberLink(link: LinkState): void {
    this.#linksByIndex.set(link.index, link);
    this.#indexes.set(link.name, link.index);
  }

  #forgetLink(index: number): void {
    const name = this.#linksByIndex.get(index)?.name;
    this.#linksByIndex.delete(index);
    if (name !== undefined && this.#indexes.get(name) === index) this.#indexes.delete(name);
  }

  /** Makes devices as they should be; those that others need are right when it returns. */
  #makeLinks(): ReconcileResult {
    this.#linksTouched = false;
    const steps: string[] = [];
    const failures: string[] = [];
    const attempt = (what: string, step: () => void) => {
      try {
        step();
        steps.push(what);
        return true;
      } catch (error) {
        failures.push(explainLinkError(error));
        return false;
      }
    };
    const request = (what: string, write: (writer: MessageWriter) => void) =>
      attempt(what, () => this.#socket.request(what, write));
    for (const name of this.#unwantedLinks) {
      const index = this.#indexes.get(name);
      if (index === undefined) continue;
      request(`remove device ${name}`, (writer) => writeRemovedLink(writer, index));
      this.#forgetLink(index);
    }
    this.#unwantedLinks.clear();
    const nowMs = performance.now();
    for (const { object: link } of this.#wantedLinks.values()) {
      let found = this.#linksByIndex.get(this.#indexes.get(link.name) ?? 0);
      if (found !== undefined && linkEqual(link, found, this.#devices)) continue;
      if (this.#hold(deviceKey(link.name), nowMs)) continue;
      const renamed = this.#renamed.get(link.name) ?? 0;
      this.#renamed.delete(link.name);
      if (found === undefined && this.#linksByIndex.has(renamed)) {
        request(`remove device ${link.name}`, (writer) => writeRemovedLink(writer, renamed));
        this.#forgetLink(renamed);
      }
      if (found !== undefined && !linkAdoptable(link, found)) {
        const { index } = found;
        this.#log.info(
          "device-recreated",
          `device ${link.name} is another than net-conf asks for; making it anew`,
        );
        if (!request(`remove device ${link.name}`, (writer) => writeRemovedLink(writer, index))) {
          continue;
        }
        this.#forgetLink(index);
        found = undefined;
      }
      if (found === undefined && link.mac === undefined) {
        // A TUN device is made by opening it, and then wants what other devices are made with.
        if (!attempt(`make device ${link.name}`, () => openTun(link.name)[Symbol.dispose]())) {
          continue;
        }
        found = findLink(this.#socket, link.name);
      }
      const made = found === undefined
        ? request(
          `make device ${link.name}`,
          (writer) => writeNewLink(writer, link as VxlanLink, this.#devices),
        )
        : request(
          `change device ${link.name}`,
          (writer) => writeChangedLink(writer, link, found!, this.#devices),
        );
      const state = made ? findLink(this.#socket, link.name) : undefined;
      if (state === undefined) continue;
      this.#rememberLink(state);
      this.#mended(deviceKey(link.name), steps.at(-1)!, nowMs);
    }
    for (const { object: { name, mac } } of this.#wantedLinks.values()) {
      // A VXLAN device's routes are denim's to make, not a peer's that plays router (RFC 4861).
      if (mac !== undefined) trySysctl(`net/ipv6/conf/${name}/accept_ra`, "0");
    }
    return { changes: steps.length, failures };
  }

  /** Takes the steps that need not wait. `lost` says that what is missing was lost with a device. */
  #carryOut(steps: readonly Change<Entry>[], lost = false): ReconcileResult {
    const nowMs = performance.now();
    this.#touched = new Set();
    const due = steps.filter((change) => !this.#waits(change, nowMs));
    const changes = orderAddresses(due, this.#wanted).filter(({ key }) => !this.#held.has(key));
    const failures: string[] = [];
    let batch: Change<Entry>[] = [];
    let done = 0;
    const succeed = (change: Change<Entry>) => {
      done++;
      this.#done(change);
      if (change.again) return;
      if (lost) this.#mends += Number(this.#firstMend !== undefined);
      else this.#mended(change.key, stepText(change), nowMs);
    };
    const fail = (change: Change<Entry>, error: unknown) => {
      if (!this.#bridgeIsGone(change.key)) failures.push(describe(change, error));
    };
    const flush = () => {
      const failed = new Map(
        this.#socket.send(this.#writer).map(({ index, error }) => [index, error]),
      );
      batch.forEach((change, index) => {
        const error = failed.get(index);
        if (error === undefined || this.#settled(change, error)) succeed(change);
        else fail(change, error);
      });
      this.#writer.clear();
      batch = [];
    };
    this.#writer.clear();
    for (const change of changes) {
      const kind = KINDS[change.object.kind];
      try {
        const { count } = this.#writer;
        if (change.action === "remove") kind.remove?.(this.#writer, change.object, this.#devices);
        else kind.put(this.#writer, change.object, this.#devices, change.known);
        if (this.#writer.count > count) batch.push(change);
        else succeed(change);
      } catch (error) {
        this.#writer.abandon();
        // Nothing is left on a device that is gone.
        if (change.action === "remove") this.#done(change);
        else fail(change, error);
      }
      if (this.#writer.length > BATCH_BYTES) flush();
    }
    flush();
    this.#ordered.clear();
    return { changes: done, failures };
  }

  /** The plugin's bridge may go at any time, which is no fault; the kernel's word of it is under way. */
  #bridgeIsGone(key: string): boolean {
    return this.#wanted.get(key)?.owner === POD_BRIDGE &&
      findLink(this.#socket, this.#bridge!.link.index) === undefined;
  }

  #done({ action, object, key }: Change<Entry>): void {
    if (action === "remove") {
      this.#applied.delete(key);
      return;
    }
    this.#applied.set(key, object);
    this.#addressMended ||= object.kind === "address" && this.#devices.owned(object.device) &&
      !this.#ordered.has(key);
  }

  /** Whether a step that failed came, or can be brought, to what it was for. */
  #settled({ action, object }: Change<Entry>, error: LinuxError): boolean {
    if (action === "remove") return GONE.has(error.errno);
    if (error.errno !== EEXIST || object.kind !== "route") return false;
    // A route that stands there and leads the same way is an earlier run's, or flanneld's: taken over in
    // one step. Any other is somebody's, and stays.
    const { destination } = object;
    const way = "device" in object
      ? { device: object.device, via: undefined }
      : this.#applied.get(nexthopKind.key({ id: object.nexthopId } as Nexthop)) as
        | Nexthop
        | undefined;
    const there = routeTo(this.#socket, destination.address, { match: true });
    if (
      way === undefined || there === undefined || `${there.gateway}` !== `${way.via}` ||
      !there.destination.equals(destination) || this.#devices.nameOf(there.index) !== way.device
    ) return false;
    try {
      this.#socket.request(
        `take over route ${destination}`,
        (writer) => routeKind.put(writer, object, this.#devices, true),
      );
      return true;
    } catch {
      return false;
    }
  }
}

const NOTHING: ReconcileResult = { changes: 0, failures: [] };

/** A device's key, among those of all else. */
function deviceKey(name: string): string {
  return `device ${name}`;
}

function namesOf(restless: readonly Restless[]): string {
  const more = restless.length > 1 ? ` and ${restless.length - 1} more` : "";
  return `${restless[0]!.key}${more}`;
}

/** What the kernel says where that which is to be removed is not there. */
const GONE: ReadonlySet<number> = new Set([ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL]);

/** Which kinds of object a message may be about, and whether it says that they are gone. */
const NEWS: ReadonlyMap<number, { readonly kinds: readonly EntryKind[]; readonly gone: boolean }> =
  new Map([
    [RTM_NEWLINK, { kinds: ["up"], gone: false }],
    [RTM_DELLINK, { kinds: ["up"], gone: true }],
    [RTM_NEWADDR, { kinds: ["address"], gone: false }],
    [RTM_DELADDR, { kinds: ["address"], gone: true }],
    [RTM_NEWNEIGH, { kinds: ["fdb", "neighbour"], gone: false }],
    [RTM_DELNEIGH, { kinds: ["fdb", "neighbour"], gone: true }],
    [RTM_NEWNEXTHOP, { kinds: ["nexthop"], gone: false }],
    [RTM_DELNEXTHOP, { kinds: ["nexthop"], gone: true }],
    [RTM_NEWROUTE, { kinds: ["route"], gone: false }],
    [RTM_DELROUTE, { kinds: ["route"], gone: true }],
    [RTM_NEWNETCONF, { kinds: ["forwarding"], gone: false }],
    [RTM_DELNETCONF, { kinds: ["forwarding"], gone: true }],
  ]);

function sum(first: ReconcileResult, second: ReconcileResult): ReconcileResult {
  return {
    changes: first.changes + second.changes,
    failures: [...first.failures, ...second.failures],
  };
}

function stepText({ action, key }: Change<Entry>): string {
  return `${action} ${key}`;
}

function describe(change: Change<Entry>, error: unknown): string {
  if (error instanceof RuntimeError) return error.message;
  const what = stepText(change);
  if (!(error instanceof LinuxError)) return `${what}: ${messageOf(error)}`;
  const hint = error.errno === EEXIST && change.action === "put"
    ? "another program's stands in the way; remove it, or change net-conf's Network"
    : error.detail;
  return new LinuxError(error.errno, what, hint).message;
}

function explainLinkError(error: unknown): string {
  const missing = error instanceof LinuxError && error.errno === EOPNOTSUPP &&
    error.detail === "Unknown device type";
  const hint =
    "; load the kernel's module for it (modprobe vxlan), or choose another Backend in net-conf";
  return messageOf(error) + (missing ? hint : "");
}
