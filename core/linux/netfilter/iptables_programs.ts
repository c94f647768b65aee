/**
 * iptables' programs: which ones there are on PATH, and running them.
 *
 * @module
 */

import process from "node:process";
import { RuntimeError } from "../../errors.ts";
import type { Family } from "../../ip.ts";
import type { IptablesVariant } from "./iptables_chain.ts";

/** How long a program may take, in milliseconds. */
const TIMEOUT_MS = 10_000;

/** A program of iptables-legacy's to run. */
export interface LegacyCall {
  /** Whose rules. */
  readonly family: Family;
  /** Which program of them. */
  readonly program: "save" | "restore";
  /** What is behind its name. */
  readonly args: readonly string[];
  /** What it reads. */
  readonly input?: string;
}

/** Runs a program to its end, and returns what it printed. Throws a RuntimeError if it fails or is not there. */
export type RunLegacy = (call: LegacyCall) => string;

/** Which iptables the program `iptables` is; `undefined` if there is none. */
export function iptablesVariant(): IptablesVariant | undefined {
  const { stdout, status } = run("iptables", ["--version"]);
  if (status !== 0) return undefined;
  // Before 1.8 there was no other, and it said nothing of this: "iptables v1.6.2".
  return stdout.includes("nf_tables") ? "nft" : "legacy";
}

/** Runs iptables-legacy's programs, which have that name or, where there is no other, plainly iptables'. */
export function runLegacy({ family, program, args, input = "" }: LegacyCall): string {
  const name = family === 4 ? "iptables" : "ip6tables";
  let command = `${name}-legacy-${program}`;
  let result = run(command, args, input);
  if (isMissing(result) && iptablesVariant() === "legacy") {
    command = `${name}-${program}`;
    result = run(command, args, input);
  }
  if (isMissing(result)) {
    throw new RuntimeError(
      `there is no program ${command} on PATH, without which nobody changes the rules of iptables-legacy: ` +
        "install the package iptables",
    );
  }
  if (result.status === 0) return result.stdout;
  const { status, stderr, signal } = result;
  const end = status === null ? `was ended by ${signal}` : `failed with exit code ${status}`;
  throw new RuntimeError(`${command} ${end}: ${stderr.trim().split("\n")[0]}`);
}

function run(command: string, args: readonly string[], input = "") {
  // Loaded by those alone who have iptables-legacy's rules, as it takes a start 6 ms.
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  return spawnSync(command, [...args], { input, encoding: "utf8", timeout: TIMEOUT_MS });
}

function isMissing({ error }: ReturnType<typeof run>): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === "ENOENT";
}
