/**
 * What commands are given beside the call, and what they leave to do.
 *
 * @module
 */

import type { NodeMasquerade } from "./masquerade.ts";

/** What a command is given beside the call. */
export interface Helpers {
  /** Takes what goes to standard error, which ends in a runtime's log. */
  readonly warn: (line: string) => void;
  /** The masquerade that an agent keeps open, on its thread; not given to the plugin, which opens it if it has to. */
  readonly masquerade: NodeMasquerade | undefined;
}

/**
 * The part of a command's work that takes its time, as another plugin has a share in it, or modules have to be loaded.
 * Resolves to what goes to standard output. Nothing of it is done before it is called.
 */
export type LaterWork = () => Promise<string>;

/** A DEL by denim itself, of which nothing is done yet. */
export interface Removal {
  /** The device that it removes, which may be removed before: the kernel takes as long for many devices as for one. */
  readonly device: string;
  /** Does it; returns what goes to standard output. */
  readonly finish: () => string;
}
