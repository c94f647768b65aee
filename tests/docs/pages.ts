/**
 * The pages that people read, and what is in them.
 *
 * @module
 */

import { ROOT } from "../../.ci/source_files.ts";

/** Every page, by its path from the checkout's root. */
export const PAGES: readonly string[] = [
  "README.md",
  ...[...Deno.readDirSync(`${ROOT}/docs`)].map(({ name }) => `docs/${name}`)
    .filter((path) => path.endsWith(".md")).sort(),
];

/** A page's text. */
export function pageText(path: string): string {
  return Deno.readTextFileSync(`${ROOT}/${path}`);
}

/** A block of commands on a page. */
export interface CommandBlock {
  /** The line at which it starts. */
  readonly line: number;
  /** The commands. */
  readonly commands: string;
  /** Why no test runs it, as the comment `<!-- not run: … -->` before it says; `undefined` if one does. */
  readonly notRun: string | undefined;
  /**
   * The last command runs until somebody stops it: the log event by which it has started, as the comment
   * `<!-- runs until stopped: EVENT -->` says.
   */
  readonly startsWith: string | undefined;
}

/** The `sh` blocks of a page's text. */
export function commandBlocks(text: string): readonly CommandBlock[] {
  const blocks = text.matchAll(
    /(?:^<!-- (not run|runs until stopped): ([^]*?) -->\n+)?^```sh\n([^]*?)^```$/gm,
  );
  return Array.from(blocks, ({ 1: mark, 2: detail, 3: commands, index }) => ({
    line: text.slice(0, index).split("\n").length,
    commands: commands!,
    notRun: mark === "not run" ? detail : undefined,
    startsWith: mark === "runs until stopped" ? detail : undefined,
  }));
}

/** Where a page's links lead that stay within the checkout: `docs/pods.md#the-bridge`. */
export function innerLinks(path: string, text: string): readonly string[] {
  const prose = text.replaceAll(/^```[^]*?^```$/gm, "");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const { pathname, hash } = new URL(target, `file:///${path}`);
      return `${pathname.slice(1)}${hash}`;
    });
}

/** The anchors of a page's headings, as they are shown on the web. */
export function anchors(text: string): ReadonlySet<string> {
  const headings = text.replaceAll(/^```[^]*?^```$/gm, "").matchAll(/^#+ (.*)$/gm);
  return new Set(
    Array.from(
      headings,
      ([, heading]) => heading!.toLowerCase().replaceAll(/[^\w\- ]/g, "").replaceAll(" ", "-"),
    ),
  );
}
