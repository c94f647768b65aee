/**
 * Tests that need root: they make network namespaces, links and routes.
 *
 * @module
 */

/**
 * Registers a test that needs root. Without it the test is ignored, and its name says why; but in CI
 * (`CI=true`), where nothing may be skipped unseen, it fails.
 */
export function rootTest(name: string, fn: (t: Deno.TestContext) => void | Promise<void>): void {
  if (Deno.uid() === 0) {
    Deno.test(name, fn);
  } else if (Deno.env.get("CI") === "true") {
    Deno.test(`${name} (needs root)`, () => {
      throw new Error("needs root: CI must run the tests as root");
    });
  } else {
    Deno.test.ignore(`${name} (needs root)`, fn);
  }
}
