/**
 * Puts files onto a host and takes them away, and says so.
 *
 * @module
 */

import { messageOf, RuntimeError, throwDefect } from "@denim/core";
import { Buffer } from "node:buffer";
import { dirname } from "node:path";

/** A file that a host should have. */
export interface WantedFile {
  /** Where. */
  readonly path: string;
  /** Its permissions (chmod(2)), such as `0o600`. */
  readonly mode: number;
  /** What is in it: a text, or what another file has. */
  readonly content: string | { readonly copyOf: string };
}

/** How a change of the host is made. */
export interface HostFilesOptions {
  /** Takes a line for each thing that is done. */
  readonly say: (line: string) => void;
  /** Whether nothing is done, and is only said. */
  readonly dryRun: boolean;
}

/** The files and folders of a host, as install and uninstall change them. */
export class HostFiles {
  readonly #say: (line: string) => void;
  readonly #dryRun: boolean;

  /** Nothing happens yet. */
  constructor({ say, dryRun }: HostFilesOptions) {
    this.#say = say;
    this.#dryRun = dryRun;
  }

  /** Says that something is done, and does it unless this is a dry run: `act("start", "started", …)`. */
  act(would: string, done: string, what: string, run: () => void): void {
    if (!this.#dryRun) run();
    this.#say(`${this.#dryRun ? `would ${would}` : done} ${what}`);
  }

  /**
   * Puts files in place, each of them whole: all are written beside their places first, then renamed in the given
   * order. Files that are right already stay. Throws a RuntimeError if that fails, and leaves nothing behind that
   * was not there before, unless it is a rename that fails.
   *
   * @param files what is wanted
   * @param trial is called before the renames with the way to where a file's text is now; what it throws stops them
   * @returns the paths of the files that were not right
   */
  put(
    files: readonly WantedFile[],
    trial: (placeOf: (path: string) => string) => void = () => {},
  ): readonly string[] {
    const wrong = files.filter((file) => !isRight(file));
    const drafts = new Map(wrong.map(({ path }) => [path, draftOf(path)]));
    const folders = missingFolders(wrong);
    if (!this.#dryRun && wrong.length > 0) {
      try {
        for (const folder of folders) {
          attempt(folder, () => Deno.mkdirSync(folder, { mode: 0o755 }));
        }
        for (const file of wrong) {
          attempt(file.path, () => writeDraft(file, drafts.get(file.path)!));
        }
        trial((path) => drafts.get(path) ?? path);
        for (const [path, draft] of drafts) attempt(path, () => Deno.renameSync(draft, path));
      } catch (error) {
        for (const draft of drafts.values()) removeIfThere(draft);
        for (const folder of folders.toReversed()) removeIfEmpty(folder);
        throw error;
      }
    }
    for (const folder of folders) this.act("make", "made", folder, () => {});
    for (const { path } of files) {
      if (drafts.has(path)) this.act("write", "wrote", path, () => {});
      else this.#say(`${path} is right already`);
    }
    return [...drafts.keys()];
  }

  /** Removes a file, or a folder with all that is in it, if it is there. Throws a RuntimeError if it can't. */
  remove(path: string): void {
    if (!isThere(path)) return;
    this.act("remove", "removed", path, () => {
      attempt(path, () => Deno.removeSync(path, { recursive: true }));
    });
  }

  /** Removes what is in a folder, if it is there, beside files. */
  removeOthers(folder: string, files: readonly Pick<WantedFile, "path">[]): void {
    if (!isThere(folder)) return;
    for (const { name } of Deno.readDirSync(folder)) {
      const path = `${folder}/${name}`;
      if (!files.some((file) => file.path === path)) this.remove(path);
    }
  }

  /** Removes a folder if it is empty. */
  removeFolder(path: string): void {
    if (!isThere(path) || [...Deno.readDirSync(path)].length > 0) return;
    // A mount point stays: it is not ours.
    if (this.#dryRun || removeIfEmpty(path)) this.act("remove", "removed", path, () => {});
  }
}

/** Whether there is something at a path. */
export function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    throwDefect(error);
    return false;
  }
}

/** The text of a file; `undefined` if there is none. Throws a RuntimeError if it can't be read. */
export function textIfThere(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      return undefined;
    }
    throw new RuntimeError(`${path}: cannot read it: ${messageOf(error)}`, { cause: error });
  }
}

/** The folders that have to be made for files, outermost first. */
export function missingFolders(
  files: readonly Pick<WantedFile, "path">[],
): readonly string[] {
  const missing = (folder: string): string[] =>
    isThere(folder) ? [] : [...missing(dirname(folder)), folder];
  return [...new Set(files.flatMap(({ path }) => missing(dirname(path))))];
}

/** A name beside the file that no runtime takes for a plugin or a configuration. */
function draftOf(path: string): string {
  return path.replace(/[^/]*$/, (name) => `.${name}.${Deno.pid}`);
}

function isRight({ path, mode, content }: WantedFile): boolean {
  try {
    const { isFile, isSymlink, mode: found, size } = Deno.lstatSync(path);
    if (!isFile || isSymlink || (found! & 0o7777) !== mode) return false;
    if (typeof content === "string") return Deno.readTextFileSync(path) === content;
    if (Deno.statSync(content.copyOf).size !== size) return false;
    return Buffer.compare(Deno.readFileSync(path), Deno.readFileSync(content.copyOf)) === 0;
  } catch (error) {
    throwDefect(error);
    return false;
  }
}

/** Writes a file's text to its draft, safe from a power cut: unlike denim's other files these outlive a boot. */
function writeDraft({ mode, content }: WantedFile, draft: string): void {
  removeIfThere(draft);
  if (typeof content === "string") Deno.writeTextFileSync(draft, content, { mode: 0o600 });
  else Deno.copyFileSync(content.copyOf, draft);
  Deno.chmodSync(draft, mode);
  using file = Deno.openSync(draft, { read: true });
  file.syncSync();
}

function attempt(path: string, run: () => void): void {
  try {
    run();
  } catch (error) {
    throwDefect(error);
    throw new RuntimeError(`${path}: cannot write it: ${messageOf(error)}`, { cause: error });
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    throwDefect(error);
  }
}

function removeIfEmpty(path: string): boolean {
  try {
    Deno.removeSync(path);
    return true;
  } catch (error) {
    throwDefect(error);
    return false;
  }
}
