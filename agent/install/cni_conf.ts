/**
 * The network configuration that container runtimes read, and those that others have put beside it.
 *
 * @module
 */

import { ConfigError, messageOf, throwDefect } from "@denim/core";
import { textIfThere } from "./host_files.ts";

/** The file's name in the folder for configurations. */
export const CONF_NAME = "10-denim.conflist";

/**
 * What a node gets unless it is given something else. The name is that of flannel's configuration: addresses are kept
 * by it, so that a pod of flannel's keeps its own when denim takes over.
 *
 * @param hasPortmap whether the plugin that maps ports of the host to pods' is there
 */
export function defaultConf(hasPortmap: boolean): string {
  const denim = { type: "denim", delegate: { hairpinMode: true, isDefaultGateway: true } };
  const portmap = { type: "portmap", capabilities: { portMappings: true } };
  const plugins = [denim, ...hasPortmap ? [portmap] : []];
  return `${JSON.stringify({ cniVersion: "1.0.0", name: "cbr0", plugins }, null, 2)}\n`;
}

/** Whether a text is a configuration that runs denim's plugin. */
export function runsDenim(text: string): boolean {
  try {
    return (JSON.parse(text).plugins as readonly { readonly type?: unknown }[])
      .some(({ type }) => type === "denim");
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return false;
    throw error;
  }
}

/** Reads the configuration that an operator wants. Throws a ConfigError if it does not run denim's plugin. */
export function readConf(path: string): string {
  const text = textIfThere(path);
  if (text === undefined) throw new ConfigError(`--cni-conf: ${path}: there is no such file`);
  if (runsDenim(text)) return text;
  throw new ConfigError(
    `--cni-conf: ${path}: not a conflist with {"type": "denim"} among its "plugins"`,
  );
}

/**
 * The configurations in a folder that a runtime takes in place of denim's: those whose names sort before it, as libcni
 * lists them.
 */
export function confsBefore(folder: string): readonly string[] {
  return confs(folder).filter((name) => name < CONF_NAME);
}

/** The configurations in a folder that a runtime takes once denim's is gone, first the one that it takes. */
export function otherConfs(folder: string): readonly string[] {
  return confs(folder).filter((name) => name !== CONF_NAME);
}

function confs(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name)
      .filter((name) => /\.(conf|conflist|json)$/.test(name)).sort();
  } catch (error) {
    throwDefect(error);
    if (error instanceof Deno.errors.NotFound) return [];
    throw new ConfigError(`${folder}: cannot list it: ${messageOf(error)}`, { cause: error });
  }
}
