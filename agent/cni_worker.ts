/**
 * The thread on which the agent carries out CNI calls, so that nothing that the agent does waits for a pod or makes one
 * wait. It takes the folder of calls, tells the calls that it carried out, and whether it serves.
 *
 * @module
 */

import { isDefect, messageOf } from "@denim/core/errors";
import { enterNodeMounts } from "@denim/core/linux/namespace";
import { PluginServer, type ServedCall } from "@denim/plugin";
import type { Build } from "./program.ts";

/** What the thread says. */
export type CniWorkerMessage =
  | { readonly kind: "serving" }
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "call"; readonly call: ServedCall }
  | { readonly kind: "stopped" };

/** What the thread is told: the folder of calls, and what the agent's build knows of itself, which a thread does not. */
export interface CniWorkerOrder {
  /** The folder. */
  readonly path: string;
  /** See `BUILD` in program.ts. */
  readonly build: Build | undefined;
}

/** What a worker has of its own. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<CniWorkerOrder>) => void) | null;
  postMessage(message: CniWorkerMessage): void;
}
const scope = globalThis as unknown as WorkerScope;

scope.onmessage = ({ data: { path, build } }) => {
  try {
    // Runtimes mean by a path what the node does, and the agent may be a service with another view.
    enterNodeMounts();
    using server = PluginServer.open(path, build?.revision);
    scope.postMessage({ kind: "serving" });
    server.serve((call) => scope.postMessage({ kind: "call", call }));
  } catch (error) {
    if (isDefect(error)) throw error;
    scope.postMessage({ kind: "refused", reason: messageOf(error) });
    return;
  }
  scope.postMessage({ kind: "stopped" });
};
