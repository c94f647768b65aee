/**
 * Writing a file whole.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";

/** How a file is written. */
export interface ReplaceFileOptions {
  /** The file's permissions (chmod(2)), as `0o600`. */
  readonly mode: number;
  /** Where it is written first, in the same folder; the path with this process's id behind it unless given. */
  readonly draft?: string;
}

function removeDraft(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    // It was not made, or the file system lets nothing be deleted: the first failure says why.
    throwDefect(error);
  }
}

/**
 * Writes a file beside its place and renames it into it, so that no reader sees half of it. Not synced to the
 * disk: what denim writes speaks of a running kernel, and is worth nothing after a power cut. Throws what Deno
 * throws, and leaves nothing behind then.
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
