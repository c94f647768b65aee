/**
 * Loads what masquerades pods, which most calls do without: a pod's start waits for every module.
 *
 * @module
 */

import type { LaterWork } from "./later_work.ts";

type Masquerade = typeof import("./masquerade.ts");

let loaded: Masquerade | undefined;

/** Loads it, once: an agent does so before its first call. */
export async function loadMasquerade(): Promise<Masquerade> {
  return loaded ??= await import("./masquerade.ts");
}

/** Does work that takes it: at once if it is loaded, else later. */
export function withMasquerade(work: (masquerade: Masquerade) => string): string | LaterWork {
  return loaded === undefined ? async () => work(await loadMasquerade()) : work(loaded);
}
