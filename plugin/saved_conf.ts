/**
 * flannel's record of what it made of each container's configuration, which its DEL works from: one file a
 * container, `<dataDir>/<container id>`, with the delegate's configuration as JSON. denim writes the same, so
 * that either can take down what the other set up.
 *
 * @module
 */

import { ConfObject } from "./conf_object.ts";
import type { Attachment } from "./environment.ts";

function pathOf(dataDir: string, { containerId }: Attachment): string {
  return `${dataDir}/${containerId}`;
}

/**
 * Writes the record, whole or not at all. Not synced to the disk: after a power cut there are no containers
 * left, and denim's DEL does without the record.
 */
export function saveConf(dataDir: string, attachment: Attachment, conf: ConfObject): void {
  Deno.mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const path = pathOf(dataDir, attachment);
  // A colon is in no container's id, so this can be no container's record.
  const draft = `${path}:${attachment.ifName}`;
  Deno.writeTextFileSync(draft, JSON.stringify(conf.json), { mode: 0o600 });
  Deno.renameSync(draft, path);
}

/** Reads the record; `undefined` where there is none, or it is cut short. */
export function readSavedConf(dataDir: string, attachment: Attachment): ConfObject | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(pathOf(dataDir, attachment));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    return ConfObject.parse(text, "the record");
  } catch {
    return undefined;
  }
}

/** Takes the record away; fine where there is none. */
export function removeSavedConf(dataDir: string, attachment: Attachment): void {
  removeIfThere(pathOf(dataDir, attachment));
}

/** Deletes a file; fine where there is none. */
export function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
