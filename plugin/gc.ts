/**
 * GC: frees what attachments held that are no more (CNI spec 1.1.0, section 2, "GC"). Loaded only when it is
 * used.
 *
 * @module
 */

import { FAMILIES } from "@denim/core/ip";
import { findLink, NetlinkSocket } from "@denim/core/linux/attach";
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

/** The attachments that there are, as the runtime has them. */
const VALID_ATTACHMENTS = "cni.dev/valid-attachments";

/** How far a file's time may be behind the clock: a tick of the kernel's (CONFIG_HZ=100). */
const FILE_CLOCK_MS = 10;

/**
 * Frees addresses, node's ends of veth pairs, and records, of this network alone, and has the delegate do
 * the same. Goes on where something fails, and then throws a CniError with all of it.
 *
 * A runtime must not run it beside an ADD (section 3). Where one does, the new pod is safe: GC waits for
 * ADDs under way, and leaves alone what is younger than itself, which the runtime's list can't have.
 */
export async function gc(conf: NetworkConf, variables: CniVariables): Promise<string> {
  requireVersion(conf, "GC", "1.1.0");
  const startMs = Date.now() - FILE_CLOCK_MS;
  const valid = readAttachments(conf.json);
  using _lock = lockRecords(conf.dataDir, "alone");
  const records = listSavedConfs(conf.dataDir).filter((it) => it.conf.get("name") === conf.name);
  const census = new Census(valid, records, startMs);
  const staleRecords = records.filter((record) => census.isGone({ ...record, ifName: undefined }));
  for (const record of staleRecords) awaitRecord(conf.dataDir, record);
  const delegates = delegatesOf(conf, staleRecords.map((record) => record.conf));

  const failures = new Failures();
  /** Types whose attachments may still hold something. */
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
    // The bridge plugin's addresses are on disk as denim's own are, and its GC may be too old to be one.
    if (type === BUILT_IN) await attempt(type, () => freeAddresses(delegate, census));
    if (!isDelegated(delegate)) continue;
    if (census.young.size > 0) {
      // A delegate does not know what is younger than the list. There will be another GC.
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
  await attempt(BUILT_IN, () => {
    for (const record of staleRecords) {
      if (!pending.has(typeOf(record.conf))) removeSavedConf(conf.dataDir, record);
    }
    removeDrafts(conf.dataDir);
  });
  failures.rethrow();
  return "";
}

/** Who is no more. */
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

  /** Whether whoever is named in a file is no more. */
  isGone(file: NamedFile): boolean {
    return file.writtenMs < this.#startMs && !this.young.has(file.containerId) &&
      !this.#valid.some((attachment) => names(file, attachment));
  }

  /**
   * Those that are no more. A file that names nobody may be that of a valid attachment which no other file of
   * the family names: only where there is none it is nobody's.
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

/** A file that names an attachment, or a container. */
type NamedFile = Omit<Holder, "address">;

function names(file: NamedFile, { containerId, ifName }: Attachment): boolean {
  return file.containerId === containerId && (file.ifName ?? ifName) === ifName;
}

function readAttachments(json: ConfObject): readonly Attachment[] {
  // Left out is not the same as none: it would cost every pod its address.
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

/** What an ADD would make of the configuration now; without subnet.env as much as GC needs of it. */
function current(conf: NetworkConf): ConfObject | undefined {
  try {
    return renderDelegate(conf, readSubnetEnv(conf.subnetFile));
  } catch (error) {
    if (!(error instanceof CniError) || error.code === CNI_CODE.invalidConfig) throw error;
    // A delegate would refuse a configuration without the node's subnets.
    if (isDelegated(askedOf(conf))) return undefined;
    return renderDelegate(conf, { halves: [], mtuBytes: 0, ipMasq: true });
  }
}

/** Frees addresses of a folder, and the node's ends of their veth pairs where they are ports of the bridge. */
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
  // Last, so that a GC that is killed leaves the next one a trace.
  store.remove(stale.map(({ address }) => address));
}
