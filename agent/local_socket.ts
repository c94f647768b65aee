/**
 * UNIX sockets that the agent serves to its own user alone.
 *
 * @module
 */

import { RuntimeError, throwDefect } from "@denim/core/errors";
import { withUmask } from "@denim/core/linux/umask";

/** Keeps others than the socket's owner from opening it, from the moment it is there. */
const OWNER_ALONE = 0o177;

/**
 * Makes the socket's folder, removes a socket on which nobody listens, and has `listen` make one that its owner alone
 * may open. Rejects if another agent serves there, or if the path can't be had.
 */
export async function listenLocally<Listener>(
  path: string,
  listen: () => Listener,
): Promise<Listener> {
  await makeRoom(path);
  return withUmask(OWNER_ALONE, listen);
}

/** Makes the socket's folder, and removes a socket on which nobody listens. */
async function makeRoom(path: string): Promise<void> {
  const folder = path.slice(0, path.lastIndexOf("/"));
  if (folder !== "") await Deno.mkdir(folder, { recursive: true });
  try {
    const { isSocket } = await Deno.lstat(path);
    if (!isSocket) throw new RuntimeError("there is a file that is not a socket");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  let other: Deno.UnixConn;
  try {
    other = await Deno.connect({ transport: "unix", path });
  } catch (error) {
    throwDefect(error);
    return await removeSocket(path);
  }
  other.close();
  throw new RuntimeError("another agent serves there");
}

/** Removes a socket, if it is there. */
export async function removeSocket(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
