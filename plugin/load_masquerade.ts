/**
 * Loads what masquerades pods, which most calls do without: a pod's start waits for every module.
 *
 * @module
 */

type Masquerade = typeof import("./masquerade.ts");

let loaded: Masquerade | undefined;

/** Loads it, once. */
export async function loadMasquerade(): Promise<Masquerade> {
  return loaded ??= await import("./masquerade.ts");
}

/** It, if it is loaded, as in an agent, which loads it before its first call. */
export function loadedMasquerade(): Masquerade | undefined {
  return loaded;
}
