/**
 * flannel's record of what it made of each container's configuration, which its DEL works from: one file a
 * container, `<dataDir>/<container id>`, with the delegate's configuration as JSON. denim writes the same, so
 * that either can take down what the other set up.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { replaceFile } from "@denim/core/linux/attach";
import { ConfObject } from "./conf_object.ts";
import { bridgeOf, BUILT_IN, isGatewayOf, typeOf } from "./delegate_conf.ts";
import { type Attachment, isCniName } from "./environment.ts";
import {
  lockFile,
  lockIfThere,
  removeIfPossible,
  removeIfThere,
  type Sharing,
  unlessGone,
} from "./files.ts";

/** No container's id begins with a dot, so this can be no container's record. */
const LOCK = ".lock";

/** Where a container's record is. */
export function pathOfRecord(
  dataDir: string,
  { containerId }: Pick<Attachment, "containerId">,
): string {
  return `${dataDir}/${containerId}`;
}

/** Where a record is written before it has its name. A colon is in no container's id either. */
function draftOf(dataDir: string, attachment: Attachment): string {
  return `${pathOfRecord(dataDir, attachment)}:${attachment.ifName}`;
}

/**
 * Waits for the folder's lock, which ADDs share and a GC has alone: what it finds is then what ADDs have
 * finished, or will never finish.
 */
export function lockRecords(dataDir: string, sharing: Sharing): Disposable {
  Deno.mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  return lockFile(`${dataDir}/${LOCK}`, sharing);
}

/** Waits until nobody holds the record any more; there need not be one. */
export function awaitRecord(dataDir: string, container: Pick<Attachment, "containerId">): void {
  using _ = lockIfThere(pathOfRecord(dataDir, container), "alone");
}

/** Writes the record into a folder that is there. denim's DEL does without, where it is lost. */
export function saveConf(dataDir: string, attachment: Attachment, conf: ConfObject): void {
  replaceFile(pathOfRecord(dataDir, attachment), JSON.stringify(conf.json), {
    mode: 0o600,
    draft: draftOf(dataDir, attachment),
  });
}

/** The record, where it is one of this network: a container's record is that of its last ADD. */
export function readOwnConf(
  { dataDir, name }: { readonly dataDir: string; readonly name: string },
  attachment: Attachment,
): ConfObject | undefined {
  const saved = readSavedConf(dataDir, attachment);
  return saved?.get("name") === name ? saved : undefined;
}

/** Reads the record; `undefined` where there is none, or it is cut short. */
export function readSavedConf(
  dataDir: string,
  container: Pick<Attachment, "containerId">,
): ConfObject | undefined {
  const text = unlessGone(() => Deno.readTextFileSync(pathOfRecord(dataDir, container)));
  try {
    return text === undefined ? undefined : ConfObject.parse(text, "the record");
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}

/** A record, as a look through all of them finds it. */
export interface SavedConf {
  /** The container. */
  readonly containerId: string;
  /** What it says. */
  readonly conf: ConfObject;
  /** When it was written, in ms since 1970. */
  readonly writtenMs: number;
}

/** The records of all networks. Needs the lock. */
export function listSavedConfs(dataDir: string): SavedConf[] {
  const records: SavedConf[] = [];
  for (const { name: containerId, isFile } of Deno.readDirSync(dataDir)) {
    if (!isFile || !isCniName(containerId)) continue;
    const written = unlessGone(() => Deno.statSync(pathOfRecord(dataDir, { containerId })).mtime);
    const conf = readSavedConf(dataDir, { containerId });
    if (!written || conf === undefined) continue;
    records.push({ containerId, conf, writtenMs: written.getTime() });
  }
  return records;
}

/**
 * Whether the bridge of a delegate's configuration has the gateway's addresses: for the configuration itself, or for
 * pods of another network that share the bridge, as their records have it. Needs the lock.
 */
export function hasGateway(dataDir: string, delegate: ConfObject): boolean {
  const isBridge = (conf: ConfObject) =>
    typeOf(conf) === BUILT_IN && bridgeOf(conf) === bridgeOf(delegate) && isGatewayOf(conf);
  return isBridge(delegate) || listSavedConfs(dataDir).some(({ conf }) => isBridge(conf));
}

/** Whether any container of any network has a record. */
export function hasRecords(dataDir: string): boolean {
  const entries = unlessGone(() => [...Deno.readDirSync(dataDir)]) ?? [];
  return entries.some(({ name, isFile }) => isFile && isCniName(name));
}

/** As {@link removeDraft}, of all attachments. Needs the lock, alone. */
export function removeDrafts(dataDir: string): void {
  for (const { name } of Deno.readDirSync(dataDir)) {
    if (name.includes(":")) removeIfPossible(`${dataDir}/${name}`);
  }
}

/** Says that the record's ADD has only now come to its end. */
export function renewSavedConf(dataDir: string, attachment: Attachment): void {
  const now = new Date();
  Deno.utimeSync(pathOfRecord(dataDir, attachment), now, now);
}

/** Takes a container's record away; fine where there is none. */
export function removeSavedConf(
  dataDir: string,
  container: Pick<Attachment, "containerId">,
): void {
  removeIfThere(pathOfRecord(dataDir, container));
}

/** Takes away what an ADD of the attachment that was killed had begun to write, if it can be. */
export function removeDraft(dataDir: string, attachment: Attachment): void {
  removeIfPossible(draftOf(dataDir, attachment));
}
