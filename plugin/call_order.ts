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
import { lockIfThere, removeIfPossible } from "./files.ts";

/** The name of the file that stands in the folder of calls for an attachment. */
export function turnOf(environment: Readonly<Record<string, string>>): string {
  const [containerId, ifName] = [environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]];
  const attachment = { containerId: containerId ?? "", ifName: ifName ?? "" };
  return `busy.${hostInterfaceName(attachment)}`;
}

/** Has later calls of an agent's call's attachment wait until it is disposed of, or this process is killed. */
export function takeTurn(
  folder: string,
  environment: Readonly<Record<string, string>>,
): Disposable {
  const path = `${folder}/${turnOf(environment)}`;
  const turn = new DisposableStack();
  const file = turn.use(Deno.openSync(path, { write: true, create: true, mode: 0o600 }));
  file.lockSync(true);
  turn.defer(() => removeIfPossible(path));
  return turn;
}

/** Waits until an agent has done with the attachment of this call. */
export function awaitAgent(folder: string, environment: Readonly<Record<string, string>>): void {
  using _lock = lockIfThere(`${folder}/${turnOf(environment)}`, "shared");
}
