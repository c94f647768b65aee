/**
 * Reads what `deno test --junit-path` writes.
 *
 * @module
 */

/** What became of the tests of a run; each step of a test counts as one. */
export interface TestCounts {
  /** How many passed. */
  readonly passed: number;
  /** How many failed. */
  readonly failed: number;
  /** The names of those that were ignored; a name says why. */
  readonly skipped: readonly string[];
}

/** Counts the tests in a report. What `--filter` left out is not counted. */
export function countTests(report: string): TestCounts {
  let passed = 0;
  let failed = 0;
  const skipped: string[] = [];
  for (const [, attributes = "", body = ""] of report.matchAll(TEST_CASE)) {
    if (body.includes("<skipped")) {
      // A test that the filter left out took no time at all, not even none.
      if (/\stime="/.test(attributes)) {
        skipped.push(unescape(/\sname="([^"]*)"/.exec(attributes)![1]!));
      }
    } else if (body.includes("<error")) {
      // It was interrupted.
      failed++;
    } else if (!body.includes("<failure")) {
      passed++;
    } else if (!/<failure message="\d+ test steps? failed"/.test(body)) {
      failed++;
    }
  }
  return { passed, failed, skipped };
}

/** A run in the form that CI looks for, alone on its line. */
export function closingLine(passed: number, failed: number, skipped: number): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

// Texts inside are escaped, so that "<" is always a tag's.
const TEST_CASE = /<testcase(\s[^>]*)>([^]*?)<\/testcase>/g;

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
