/**
 * Which folders of a host denim made: uninstall takes those away again, if nobody else has put anything there.
 *
 * @module
 */

import { missingFolders, textIfThere, type WantedFile } from "./host_files.ts";

/**
 * The record that goes with files, beside them.
 *
 * @param path where the record is
 * @param files what is about to be put in place
 * @returns nothing if denim made no folder
 */
export function recordOfFolders(path: string, files: readonly WantedFile[]): readonly WantedFile[] {
  const made = new Set([...madeFolders(path), ...missingFolders(files)]);
  if (made.size === 0) return [];
  return [{ path, mode: 0o644, content: `${JSON.stringify([...made])}\n` }];
}

/** The folders that denim made, as a record has them, outermost first. */
export function madeFolders(path: string): readonly string[] {
  const text = textIfThere(path);
  return text === undefined ? [] : JSON.parse(text);
}
