/**
 * GC: frees what attachments held that no longer exist (CNI spec 1.1.0, section 2, "GC"). Loaded only when it is
 * used.
 *
 * @module
 */

import { FAMILIES } from "@denim/core/ip";
import { findLink, NetlinkSocket } from "@denim/core/linux/attach";
import { readProcFile, readProcStat } from "@denim/core/linux/proc-files";
import { AddressStore, type Holder } from "./address_store.ts";
import { hostInterfaceName, removeLink } from "./bridge.ts";
import { CNI_CODE, CniError, Failures } from "./cni_error.ts";
import type { ConfObject } from "./conf_object.ts";
import {
  askedOf,
  bridgeOf,
  BUILT_IN,
  isDelegated,
  readSubnetEnv,
  renderDelegate,
  typeOf,
} from "./delegate_conf.ts";
import type { Attachment, CniVariables } from "./environment.ts";
import { addressDirectory } from "./host_local_conf.ts";
import { type NetworkConf, requireVersion } from "./network_conf.ts";
import {
  awaitRecord,
  listSavedConfs,
  lockRecords,
  removeDrafts,
  removeSavedConf,
  type SavedConf,
} from "./saved_conf.ts";

/** The key with the runtime's list of the attachments that exist. */
const VALID_ATTACHMENTS = "cni.dev/valid-attachments";

/** How far a file's time may be behind the clock, in ms: one tick of a kernel with CONFIG_HZ=100. */
const FILE_CLOCK_MS = 10;

/**
 * Frees addresses, node's ends of veth pairs and records of this network alone, and has the delegate do the same. If
 * a step fails it goes on with the others, and then throws a CniError that names every failure.
 *
 * A runtime must not run it beside an ADD (section 3). If one does, the new pod is safe: GC waits for ADDs under way,
 * and does not touch what is younger than its process, which the runtime's list can't have.
 */
export async function gc(conf: NetworkConf, variables: CniVariables): Promise<string> {
  requireVersion(conf, "GC", "1.1.0");
  const startMs = processStartMs() - FILE_CLOCK_MS;
  const valid = readAttachments(conf.json);
  using _lock = lockRecords(conf.dataDir, "alone");
  const records = listSavedConfs(conf.dataDir).filter((it) => it.conf.get("name") === conf.name);
  const census = new Census(valid, records, startMs);
  const staleRecords = records.filter((record) => census.isGone({ ...record, ifName: undefined }));
  for (const record of staleRecords) awaitRecord(conf.dataDir, record);
  const delegates = delegatesOf(conf, staleRecords.map((record) => record.conf));

  const failures = new Failures();
  /** Types of plugins whose attachments may still hold something: their records stay. */
  const pending = new Set<string>();
  const attempt = async (type: string, run: () => void | Promise<void>) => {
    try {
      await run();
    } catch (error) {
      failures.add(error);
      pending.add(type);
    }
  };
  for (const delegate of delegates) {
    const type = typeOf(delegate);
    // The bridge plugin keeps addresses as denim does, and older ones have no GC to free them.
    if (type === BUILT_IN) await attempt(type, () => freeAddresses(delegate, census));
    if (!isDelegated(delegate)) continue;
    if (census.young.size > 0) {
      // The delegate would free what is younger than the runtime's list. The next GC asks it.
      pending.add(type);
      continue;
    }
    await attempt(type, async () => {
      const { delegateGc, hasPlugin } = await import("./delegate.ts");
      if (type === BUILT_IN && !hasPlugin(delegate, variables)) return;
      const attachments = { [VALID_ATTACHMENTS]: conf.json.get(VALID_ATTACHMENTS) ?? [] };
      await delegateGc(conf, variables, delegate, attachments);
    });
  }
  await attempt(BUILT_IN, async () => {
    const { NodeMasquerade } = await import("./masquerade.ts");
    using masquerade = new NodeMasquerade();
    using socket = new NetlinkSocket();
    masquerade.found?.remove((device) => findLink(socket, device) === undefined);
  });
  await attempt(BUILT_IN, () => {
    for (const record of staleRecords) {
      if (!pending.has(typeOf(record.conf))) removeSavedConf(conf.dataDir, record);
    }
    removeDrafts(conf.dataDir);
  });
  failures.rethrow();
  return "";
}

/** Where the time of a process's start is in {@link readProcStat}. */
const STARTTIME = 19;

/** When the runtime started this process, in ms since 1970, to a tick of 10 ms at the latest (proc(5)). */
function processStartMs(): number {
  const startTicks = Number(readProcStat("self")[STARTTIME]);
  const uptimeMs = Number(readProcFile("/proc/uptime").split(" ")[0]) * 1000;
  return Date.now() - uptimeMs + startTicks * 10;
}

/** Tells stale holders and records from those of valid attachments. */
class Census {
  readonly #valid: readonly Attachment[];
  readonly #startMs: number;
  /** Containers that are younger than the runtime's list. */
  readonly young: ReadonlySet<string | undefined>;

  constructor(valid: readonly Attachment[], records: readonly SavedConf[], startMs: number) {
    this.#valid = valid;
    this.#startMs = startMs;
    const young = records.filter(({ writtenMs }) => writtenMs >= startMs);
    this.young = new Set(young.map(({ containerId }) => containerId));
  }

  /** Whether the attachment or container that a file names no longer exists. */
  isGone(file: NamedFile): boolean {
    return file.writtenMs < this.#startMs && !this.young.has(file.containerId) &&
      !this.#valid.some((attachment) => names(file, attachment));
  }

  /**
   * The holders that no longer exist. A file without a name may belong to a valid attachment that has no other file in
   * its family; it is freed only if every valid attachment is accounted for.
   */
  gone(holders: readonly Holder[]): Holder[] {
    const accounted = FAMILIES.filter((family) =>
      this.#valid.every((attachment) =>
        holders.some((holder) => holder.address.family === family && names(holder, attachment))
      )
    );
    return holders.filter((holder) =>
      this.isGone(holder) &&
      (holder.containerId !== undefined || accounted.includes(holder.address.family))
    );
  }
}

/** A file that names an attachment, or a container alone. */
type NamedFile = Omit<Holder, "address">;

function names(file: NamedFile, { containerId, ifName }: Attachment): boolean {
  return file.containerId === containerId && (file.ifName ?? ifName) === ifName;
}

function readAttachments(json: ConfObject): readonly Attachment[] {
  // An empty list is fine, a missing one is not: every pod would lose its address.
  if (!Object.hasOwn(json.json, VALID_ATTACHMENTS)) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `${VALID_ATTACHMENTS} is missing: GC needs the list of attachments that there are`,
    );
  }
  return json.objects(VALID_ATTACHMENTS).map((attachment) => ({
    containerId: attachment.string("containerID") || attachment.fail("containerID", "an id"),
    ifName: attachment.string("ifname") || attachment.fail("ifname", "an interface's name"),
  }));
}

/**
 * A configuration for each folder of addresses and each plugin that the network's attachments may have left
 * something in: the one that an ADD would make now, and those that stale attachments were made with.
 */
function delegatesOf(conf: NetworkConf, records: readonly ConfObject[]): ConfObject[] {
  const delegates = new Map<string, ConfObject>();
  const keyOf = (delegate: ConfObject) => {
    const type = typeOf(delegate);
    if (type !== BUILT_IN) return type;
    return `${bridgeOf(delegate)} ${addressDirectory(delegate)} ${isDelegated(delegate)}`;
  };
  for (const delegate of [...records, current(conf)]) {
    if (delegate !== undefined) delegates.set(keyOf(delegate), delegate);
  }
  return [...delegates.values()];
}

/** What an ADD would make of the configuration now; without subnet.env, as much of it as GC needs. */
function current(conf: NetworkConf): ConfObject | undefined {
  try {
    return renderDelegate(conf, readSubnetEnv(conf.subnetFile));
  } catch (error) {
    if (!(error instanceof CniError) || error.code === CNI_CODE.invalidConfig) throw error;
    // Without the node's subnets a delegate would refuse its configuration.
    if (isDelegated(askedOf(conf))) return undefined;
    return renderDelegate(conf, { halves: [], mtuBytes: 0, ipMasq: true });
  }
}

/** Frees a folder's stale addresses, and removes the node's ends of their veth pairs if they are ports of the bridge. */
function freeAddresses(delegate: ConfObject, census: Census): void {
  using store = AddressStore.openExisting(addressDirectory(delegate));
  if (store === undefined) return;
  using socket = new NetlinkSocket();
  const bridge = findLink(socket, bridgeOf(delegate));
  const stale = census.gone(store.holders());
  for (const { containerId, ifName } of stale) {
    if (containerId === undefined || ifName === undefined || bridge === undefined) continue;
    const name = hostInterfaceName({ containerId, ifName });
    if (findLink(socket, name)?.masterIndex === bridge.index) removeLink(socket, name);
  }
  // Last: if this GC is killed before, the next one still finds the holders.
  store.remove(stale.map(({ address }) => address));
}
