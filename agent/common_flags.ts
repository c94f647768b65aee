/**
 * Flags that several commands have.
 *
 * @module
 */

import { flag } from "./flag_table.ts";
import { request, text, toggle } from "./flag_types.ts";
import { DEFAULT_API_SOCKET } from "./status_report.ts";

/** The flags of each command. */
export const COMMON_FLAGS = [
  flag("debug", toggle, "log more: what helps to find a fault, and the causes of errors"),
  flag("help", request, "print this and exit"),
] as const;

/** One of {@link COMMON_FLAGS}. */
export type CommonFlag = typeof COMMON_FLAGS[number];

/** Where the agent serves its API, and where the commands that read it ask. */
export const API_SOCKET_FLAG = flag(
  "api-socket",
  text("PATH"),
  "UNIX socket of the agent's API, which denim status and denim peers read",
  DEFAULT_API_SOCKET,
);
