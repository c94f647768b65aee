/**
 * flannel's records: for each container a file, `<dataDir>/<container id>`, with the delegate's configuration as JSON,
 * from which flannel's DEL works. denim writes the same, so that either can remove what the other made.
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

/** A container's id never begins with a dot, so this is never a record. */
const LOCK = ".lock";

/** The path of a container's record. */
export function pathOfRecord(
  dataDir: string,
  { containerId }: Pick<Attachment, "containerId">,
): string {
  return `${dataDir}/${containerId}`;
}

/** The path where a record is written before it has its name. A container's id has no colon, so it is never a record. */
function draftOf(dataDir: string, attachment: Attachment): string {
  return `${pathOfRecord(dataDir, attachment)}:${attachment.ifName}`;
}

/**
 * Waits for the folder's lock. ADDs share it and a GC has it alone, so that a GC finds only what ADDs have finished,
 * or will never finish. Makes the folder if it is missing.
 */
export function lockRecords(dataDir: string, sharing: Sharing): Disposable {
  Deno.mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  return lockFile(`${dataDir}/${LOCK}`, sharing);
}

/** Waits until no delegate of an ADD that was killed holds the record's lock. There need not be a record. */
export function awaitRecord(dataDir: string, container: Pick<Attachment, "containerId">): void {
  using _ = lockIfThere(pathOfRecord(dataDir, container), "alone");
}

/** Writes the record. The folder must be there. If the record is lost, denim's DEL works without it. */
export function saveConf(dataDir: string, attachment: Attachment, conf: ConfObject): void {
  replaceFile(pathOfRecord(dataDir, attachment), JSON.stringify(conf.json), {
    mode: 0o600,
    draft: draftOf(dataDir, attachment),
  });
}

/** The record if it is of this network: a container's record is that of its last ADD, to whichever network. */
export function readOwnConf(
  { dataDir, name }: { readonly dataDir: string; readonly name: string },
  attachment: Attachment,
): ConfObject | undefined {
  const saved = readSavedConf(dataDir, attachment);
  return saved?.get("name") === name ? saved : undefined;
}

/** Reads the record; `undefined` if there is none, or if it is cut short. */
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

/** One record of {@link listSavedConfs}. */
export interface SavedConf {
  /** The container's id, which is the file's name. */
  readonly containerId: string;
  /** The delegate's configuration in it. */
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
 * Whether the bridge of a delegate's configuration needs the gateway's addresses: for that configuration, or for pods
 * of another network that share the bridge, which their records tell. Needs the lock.
 */
export function hasGateway(dataDir: string, delegate: ConfObject): boolean {
  const isBridge = (conf: ConfObject) =>
    typeOf(conf) === BUILT_IN && bridgeOf(conf) === bridgeOf(delegate) && isGatewayOf(conf);
  return isBridge(delegate) || listSavedConfs(dataDir).some(({ conf }) => isBridge(conf));
}

/** Whether pods of any network are on a bridge, as their records tell. Needs the lock. */
export function hasBridge(dataDir: string, bridge: string): boolean {
  return listSavedConfs(dataDir).some(({ conf }) =>
    typeOf(conf) === BUILT_IN && bridgeOf(conf) === bridge
  );
}

/** Whether any container of any network has a record. */
export function hasRecords(dataDir: string): boolean {
  const entries = unlessGone(() => [...Deno.readDirSync(dataDir)]) ?? [];
  return entries.some(({ name, isFile }) => isFile && isCniName(name));
}

/** As {@link removeDraft}, for all attachments. Needs the lock alone. */
export function removeDrafts(dataDir: string): void {
  for (const { name } of Deno.readDirSync(dataDir)) {
    if (name.includes(":")) removeIfPossible(`${dataDir}/${name}`);
  }
}

/** Sets the record's time to now, when its ADD has come to an end. GC spares what is younger than itself. */
export function renewSavedConf(dataDir: string, attachment: Attachment): void {
  const now = new Date();
  Deno.utimeSync(pathOfRecord(dataDir, attachment), now, now);
}

/** Removes a container's record, if there is one. */
export function removeSavedConf(
  dataDir: string,
  container: Pick<Attachment, "containerId">,
): void {
  removeIfThere(pathOfRecord(dataDir, container));
}

/** Removes the draft of an ADD of the attachment that was killed, if the file system lets it. */
export function removeDraft(dataDir: string, attachment: Attachment): void {
  removeIfPossible(draftOf(dataDir, attachment));
}
