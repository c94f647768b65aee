/**
 * What a run of tests has to say beside that it passed.
 *
 * @module
 */

/**
 * Prints a text, such as a table of what was measured. `deno task test` prints it at the end of its run, since
 * a quiet `deno test` prints nothing of what tests say: it names a file in `DENIM_TEST_REPORT` to collect it.
 */
export function report(text: string): void {
  const path = Deno.env.get("DENIM_TEST_REPORT");
  if (path === undefined) console.log(text);
  else Deno.writeTextFileSync(path, `${text}\n`, { append: true });
}
