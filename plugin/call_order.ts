/**
 * Keeps the calls of one attachment in order when an agent carries some of them out.
 *
 * A runtime takes a plugin that it killed for ended, and calls DEL, or ADD once more. But a call that was handed to an
 * agent may still wait there, or be under way. So the agent locks a file of the attachment's first, and then looks
 * whether the script that asked is still there; and a plugin that does the work itself waits for that lock. Either the
 * agent has the lock before the script ended, and the later call waits; or the agent finds that the script has ended,
 * and leaves its call.
 *
 * @module
 */

import { hostInterfaceName } from "./bridge.ts";
import { lockFile, lockIfThere, removeIfPossible } from "./files.ts";

/** The file stands in the folder of calls, and is named after the attachment. */
function pathOf(folder: string, environment: Readonly<Record<string, string>>): string {
  const [containerId, ifName] = [environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]];
  const attachment = { containerId: containerId ?? "", ifName: ifName ?? "" };
  return `${folder}/busy.${hostInterfaceName(attachment)}`;
}

/** Runs an agent's call while later calls of the same attachment wait, also if this process is killed over it. */
export function inOrder<T>(
  folder: string,
  environment: Readonly<Record<string, string>>,
  run: () => T,
): T {
  const path = pathOf(folder, environment);
  using _lock = lockFile(path, "alone");
  try {
    return run();
  } finally {
    removeIfPossible(path);
  }
}

/** Waits until an agent has done with the attachment of this call. */
export function awaitAgent(folder: string, environment: Readonly<Record<string, string>>): void {
  using _lock = lockIfThere(pathOf(folder, environment), "shared");
}
