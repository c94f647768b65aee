/**
 * The plugins that denim is compared and combined with.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { RuntimeError } from "@denim/core/errors";

/** Where Debian's containernetworking-plugins has its plugins. */
export const DEBIAN_PLUGINS = "/usr/lib/cni";

/** The path of one of them. Throws a RuntimeError where it is not there. */
export function debianPlugin(name: string): string {
  const path = `${DEBIAN_PLUGINS}/${name}`;
  if (existsSync(path)) return path;
  throw new RuntimeError(`there is no ${path}: install Debian's containernetworking-plugins`);
}
