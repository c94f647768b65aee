/**
 * Replaces a file as a whole.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";

/** How {@link replaceFile} writes. */
export interface ReplaceFileOptions {
  /** The file's permissions (chmod(2)), such as `0o600`. */
  readonly mode: number;
  /** The path that it writes first, in the same folder; by default `<path>.<process id>`. */
  readonly draft?: string;
}

function removeDraft(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    // There is no draft, or the file system is read-only: the first failure says so.
    throwDefect(error);
  }
}

/**
 * Writes a draft beside the file and renames it to the file's name, so that no reader sees half of the text. It does
 * not sync: denim's files describe a running kernel, and are worth nothing after a power cut. Throws what Deno throws,
 * and then leaves no draft behind.
 */
export function replaceFile(path: string, text: string, options: ReplaceFileOptions): void {
  const { mode, draft = `${path}.${Deno.pid}` } = options;
  try {
    Deno.writeTextFileSync(draft, text, { mode });
    Deno.renameSync(draft, path);
  } catch (error) {
    removeDraft(draft);
    throw error;
  }
}
