/**
 * Finds `denort`, Deno's runtime for compiled programs, which `deno compile` puts a program into.
 *
 * @module
 */

import { existsSync } from "node:fs";

/** Whether denort is on this machine, and where it is looked for. */
export interface Denort {
  /** Whether it is where Deno will take it from. */
  readonly found: boolean;
  /** What `$DENORT_BIN` names, which then is the only place. */
  readonly named: string | undefined;
  /** Where in its cache Deno looks for the archive that its site has. */
  readonly archive: string;
}

/** Looks for denort where `deno compile` looks before it asks the network. */
export function findDenort(target: string = Deno.build.target): Denort {
  const named = Deno.env.get("DENORT_BIN") || undefined;
  const archive = `${denoDir()}/dl/release/v${Deno.version.deno}/denort-${target}.zip`;
  return { found: existsSync(named ?? archive), named, archive };
}

/** Says what is missing and how to mend it. */
export function denortMissing({ named, archive }: Denort): string {
  return [
    `denort ${Deno.version.deno}, Deno's runtime for compiled programs, is missing: ` +
    (named !== undefined
      ? `DENORT_BIN says ${named}, where there is nothing.`
      : `it is not on this machine, and Deno's site can't be reached.`),
    "Get it on a machine that reaches the site, and do one of these:",
    `- put the archive, as it is, at ${archive}`,
    "- unpack it, and set DENORT_BIN to the path of the program denort in it",
  ].join("\n");
}

function denoDir(): string {
  const { stdout } = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}
