/**
 * The thread on which the agent carries out CNI calls, so that nothing that the agent does waits for a pod or makes one
 * wait. It takes the socket's path, tells the calls that it carried out, and whether it serves.
 *
 * @module
 */

import { isDefect, messageOf } from "@denim/core/errors";
import { type ServedCall, servePlugin } from "@denim/plugin";
import { listenLocally } from "./local_socket.ts";
import type { Build } from "./program.ts";

/** What the thread says. */
export type CniWorkerMessage =
  | { readonly kind: "serving" }
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "call"; readonly call: ServedCall };

/** What the thread is told: the socket's path, and what the agent's build knows of itself, which a thread does not. */
export interface CniWorkerOrder {
  /** The socket's path. */
  readonly path: string;
  /** See `BUILD` in program.ts. */
  readonly build: Build | undefined;
}

/** What a worker has of its own. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<CniWorkerOrder>) => void) | null;
  denimBuild?: Build | undefined;
  postMessage(message: CniWorkerMessage): void;
}
const scope = globalThis as unknown as WorkerScope;

scope.onmessage = async ({ data: { path, build } }) => {
  scope.denimBuild = build;
  let listener: Deno.UnixListener;
  try {
    listener = await listenLocally(path, () => Deno.listen({ transport: "unix", path }));
  } catch (error) {
    if (isDefect(error)) throw error;
    scope.postMessage({ kind: "refused", reason: messageOf(error) });
    return;
  }
  scope.postMessage({ kind: "serving" });
  await servePlugin(listener, (call) => scope.postMessage({ kind: "call", call }));
};
