/**
 * What the kernel shows as files, under `/proc`. Deno opens those only for a program that may do everything
 * (`--allow-all`), and denim is run with the permissions that it needs and no others.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import { O_CLOEXEC, O_RDONLY, O_WRONLY } from "../uapi/socket.ts";
import { checked, cString, errno, type FileDescriptor, libc, open, read, write } from "./libc.ts";
import { LinuxError } from "./linux_error.ts";

/** A file's text. Throws a LinuxError that names the path, ENOENT if there is no such file. */
export function readProcFile(path: string): string {
  using file = open(path, O_RDONLY | O_CLOEXEC);
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(4096);
  let text = "";
  for (;;) {
    const length = read(file, chunk);
    if (length <= 0) return text + decoder.decode();
    text += decoder.decode(chunk.subarray(0, length), { stream: true });
  }
}

/**
 * The fields of a process's state behind its name, the third of proc(5) first (`/proc/PID/stat`): the name before, in
 * parentheses, may have anything in it. Throws a LinuxError, ENOENT if there is no such process.
 */
export function readProcStat(pid: number | "self"): string[] {
  const stat = readProcFile(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/**
 * A short file that stays open, and whose text the kernel writes anew for each reading: in a quarter of the system calls.
 * Of a file under `/proc/net` that is in the network namespace in which it was opened.
 */
export class OpenProcFile implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #chunk = new Uint8Array(4096);

  /** Opens it. Throws a LinuxError that names the path, ENOENT if there is no such file. */
  constructor(path: string) {
    this.#fd = open(path, O_RDONLY | O_CLOEXEC);
  }

  /** Its text as it is now, of which what is beyond 4 KB is left out. Throws a LinuxError. */
  read(): string {
    const length = checked(
      libc.pread(this.#fd.fd, this.#chunk, BigInt(this.#chunk.length), 0n),
      "pread",
    );
    return length > 0 ? new TextDecoder().decode(this.#chunk.subarray(0, Number(length))) : "";
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}

/** Writes a file that is there. Throws a LinuxError. */
export function writeProcFile(path: string, text: string): void {
  using file = open(path, O_WRONLY | O_CLOEXEC);
  write(file, new TextEncoder().encode(text));
}

/** Opens a file that is there for writing, and writes nothing. Throws a LinuxError if it may not be written. */
export function openProcFileToWrite(path: string): void {
  open(path, O_WRONLY | O_CLOEXEC)[Symbol.dispose]();
}

/** Whether there is a file or a folder that may be opened. */
export function isProcFile(path: string): boolean {
  try {
    open(path, O_RDONLY | O_CLOEXEC)[Symbol.dispose]();
    return true;
  } catch (error) {
    throwDefect(error);
    return false;
  }
}

/** Where a link leads (readlink(2)); a namespace's says which it is: `net:[4026531840]`. Throws a LinuxError. */
export function readProcLink(path: string): string {
  const target = new Uint8Array(4096);
  const length = checked(
    libc.readlink(cString(path), target, BigInt(target.length)),
    `readlink ${path}`,
  );
  return new TextDecoder().decode(target.subarray(0, Number(length)));
}

/** Where a name begins in `struct dirent` of the C library, on 64 bits. */
const D_NAME = 19;

/** The names in a folder (readdir(3)). Throws a LinuxError. */
export function listProcFolder(path: string): string[] {
  const folder = libc.opendir(cString(path));
  if (folder === null) throw new LinuxError(errno(), `list ${path}`);
  const names: string[] = [];
  try {
    for (;;) {
      const entry = libc.readdir(folder);
      if (entry === null) return names.filter((name) => name !== "." && name !== "..");
      names.push(new Deno.UnsafePointerView(entry).getCString(D_NAME));
    }
  } finally {
    libc.closedir(folder);
  }
}
