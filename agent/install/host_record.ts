/**
 * How a host was before denim: uninstall makes it so again.
 *
 * @module
 */

import { FORWARDING, readSysctl } from "@denim/core/linux";
import { missingFolders, textIfThere, type WantedFile } from "./host_files.ts";

/** What is recorded of a host. */
export interface HostRecord {
  /** The folders that were made for denim, outermost first. */
  readonly folders: readonly string[];
  /** The kernel's settings that denim changes, by name: `net/ipv4/ip_forward`. */
  readonly settings: Readonly<Record<string, string>>;
}

/** Reads a record; an empty one if there is none. */
export function readHostRecord(path: string): HostRecord {
  const text = textIfThere(path);
  return text === undefined ? { folders: [], settings: {} } : JSON.parse(text);
}

/**
 * The record that goes with files. What an earlier record says stays: the host is not now as it was then.
 *
 * @param path where the record is
 * @param files what is about to be put in place, by install or by what it installs
 */
export function hostRecordFile(
  path: string,
  files: readonly Pick<WantedFile, "path">[],
): WantedFile {
  const before = readHostRecord(path);
  const folders = [...new Set([...before.folders, ...missingFolders(files)])];
  const settings = Object.fromEntries(
    Object.values(FORWARDING).map((name) => [name, readSysctl(name)])
      .filter(([, value]) => value !== undefined),
  );
  const record: HostRecord = { folders, settings: { ...settings, ...before.settings } };
  return { path, mode: 0o644, content: `${JSON.stringify(record)}\n` };
}
