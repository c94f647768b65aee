/**
 * flannel's record of what it made of each container's configuration, which its DEL works from: one file a
 * container, `<dataDir>/<container id>`, with the delegate's configuration as JSON. denim writes the same, so
 * that either can take down what the other set up.
 *
 * @module
 */

import { ConfObject } from "./conf_object.ts";
import { type Attachment, isCniName } from "./environment.ts";

/** No container's id begins with a dot, so this can be no container's record. */
const LOCK = ".lock";

function pathOf(dataDir: string, { containerId }: Pick<Attachment, "containerId">): string {
  return `${dataDir}/${containerId}`;
}

/** Where a record is written before it has its name. A colon is in no container's id either. */
function draftOf(dataDir: string, attachment: Attachment): string {
  return `${pathOf(dataDir, attachment)}:${attachment.ifName}`;
}

/**
 * Waits for the folder's lock (flock(2)), which ADDs share and a GC has alone: what it finds is then what
 * ADDs have finished, or will never finish. The kernel frees it when a plugin is killed.
 */
export function lockRecords(dataDir: string, how: "shared" | "alone"): Disposable {
  Deno.mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const file = Deno.openSync(`${dataDir}/${LOCK}`, { write: true, create: true, mode: 0o600 });
  file.lockSync(how === "alone");
  return file;
}

/**
 * Writes the record, whole or not at all, into a folder that is there. Not synced to the disk: after a power cut there are no containers
 * left, and denim's DEL does without the record.
 */
export function saveConf(dataDir: string, attachment: Attachment, conf: ConfObject): void {
  const draft = draftOf(dataDir, attachment);
  Deno.writeTextFileSync(draft, JSON.stringify(conf.json), { mode: 0o600 });
  Deno.renameSync(draft, pathOf(dataDir, attachment));
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
  const text = unlessGone(() => Deno.readTextFileSync(pathOf(dataDir, container)));
  try {
    return text === undefined ? undefined : ConfObject.parse(text, "the record");
  } catch {
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

/** The records of a network. Needs the lock. */
export function listSavedConfs(dataDir: string, network: string): SavedConf[] {
  const records: SavedConf[] = [];
  for (const { name: containerId, isFile } of Deno.readDirSync(dataDir)) {
    if (!isFile || !isCniName(containerId)) continue;
    const written = unlessGone(() => Deno.statSync(pathOf(dataDir, { containerId })).mtime);
    const conf = readSavedConf(dataDir, { containerId });
    if (!written || conf?.get("name") !== network) continue;
    records.push({ containerId, conf, writtenMs: written.getTime() });
  }
  return records;
}

/** Removes what ADDs that were killed had begun to write. Needs the lock, alone. */
export function removeDrafts(dataDir: string): void {
  for (const { name } of Deno.readDirSync(dataDir)) {
    if (name.includes(":")) removeIfThere(`${dataDir}/${name}`);
  }
}

/** Says that the record's ADD has only now come to its end. */
export function renewSavedConf(dataDir: string, attachment: Attachment): void {
  const now = new Date();
  Deno.utimeSync(pathOf(dataDir, attachment), now, now);
}

/** Takes the record away, and what a killed ADD wrote of it; fine where there is none. */
export function removeSavedConf(dataDir: string, attachment: Attachment): void {
  removeIfThere(pathOf(dataDir, attachment));
  removeIfThere(draftOf(dataDir, attachment));
}

/** Deletes a file; fine where there is none. */
export function removeIfThere(path: string): void {
  unlessGone(() => Deno.removeSync(path));
}

function unlessGone<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
