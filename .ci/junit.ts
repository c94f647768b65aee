/**
 * Reads what `deno test --junit-path` writes.
 *
 * @module
 */

/** What became of the tests of a run; each step of a test counts as one. */
export interface TestCounts {
  /** How many passed. */
  readonly passed: number;
  /** Those that failed: a line with the name, and after it the first lines of what failed, indented. */
  readonly failed: readonly string[];
  /** The names of those that were ignored; a name says why. */
  readonly skipped: readonly string[];
}

/** Counts the tests in a report. What `--filter` left out is not counted. */
export function countTests(report: string): TestCounts {
  let passed = 0;
  const failed: string[] = [];
  const skipped: string[] = [];
  for (const [, attributes = "", body = ""] of report.matchAll(TEST_CASE)) {
    if (body.includes("<skipped")) {
      // A test that the filter left out took no time at all, not even none.
      if (/\stime="/.test(attributes)) {
        skipped.push(nameIn(attributes));
      }
    } else if (body.includes("<error")) {
      failed.push(`${nameIn(attributes)}\n    It was interrupted.`);
    } else if (!body.includes("<failure")) {
      passed++;
    } else if (!/<failure message="\d+ test steps? failed"/.test(body)) {
      const why = unescape(/<failure[^>]*>([^]*?)<\/failure>/.exec(body)?.[1] ?? "").trim();
      const lines = why.split("\n").slice(0, LINES_OF_FAILURE);
      failed.push([nameIn(attributes), ...lines.map((line) => `    ${line}`)].join("\n"));
    }
  }
  return { passed, failed, skipped };
}

/** The whole of a failure stands where it happened. */
const LINES_OF_FAILURE = 15;

/** A run in the form that CI looks for, alone on its line. */
export function closingLine(passed: number, failed: number, skipped: number): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

// Texts inside are escaped, so that "<" is always a tag's.
const TEST_CASE = /<testcase(\s[^>]*)>([^]*?)<\/testcase>/g;

function nameIn(attributes: string): string {
  return unescape(/\sname="([^"]*)"/.exec(attributes)![1]!);
}

const ENTITIES: Readonly<Record<string, string>> = {
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  amp: "&",
};

function unescape(text: string): string {
  return text.replace(/&(\w+);/g, (entity, name: string) => ENTITIES[name] ?? entity);
}
