/**
 * The files of the checkout.
 *
 * @module
 */

import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout's folder, without a slash at its end. */
export const ROOT: string = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");

/** What is made here, or is not ours. As .gitignore has it. */
const SKIPPED: ReadonlySet<string> = new Set([".git", "dist", "node_modules", "results"]);

/** Every file under a folder, in order, as paths from there. */
export function filesUnder(root: string): string[] {
  const files: string[] = [];
  const folders = [root];
  for (const folder of folders) {
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      if (SKIPPED.has(name)) continue;
      const path = `${folder}/${name}`;
      if (isDirectory) folders.push(path);
      else files.push(relative(root, path));
    }
  }
  return files.sort();
}
