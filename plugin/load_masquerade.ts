/**
 * Loads what masquerades pods, which most calls do without: a pod's start waits for every module.
 *
 * @module
 */

import type { LaterWork } from "./work.ts";
import type { NodeMasquerade } from "./masquerade.ts";

/** Does work with a masquerade of its own, later. */
export function withOwnMasquerade(work: (masquerade: NodeMasquerade) => string): LaterWork {
  return async () => {
    const { NodeMasquerade } = await import("./masquerade.ts");
    using masquerade = new NodeMasquerade();
    return work(masquerade);
  };
}
