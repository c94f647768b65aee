/**
 * What a command leaves to do.
 *
 * @module
 */

/**
 * The part of a command's work that takes its time, as another plugin has a share in it, or modules have to be loaded.
 * Resolves to what goes to standard output. Nothing of it is done before it is called.
 */
export type LaterWork = () => Promise<string>;
