/**
 * The plugin's half of the talk with the agent.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { type CniCall, type CniReply, whereabouts } from "./agent_socket.ts";

/** How long an agent may take to say where it is. One that is stopped, or has many calls to do, takes longer. */
const PATIENCE_MS = 20;

/**
 * Has the agent carry out a call. `undefined` if the plugin has to do it itself: no agent answers on the socket, it is
 * elsewhere, it leaves the call to the plugin, or it was killed over it.
 */
export async function askAgent(
  socket: string,
  call: CniCall,
): Promise<Exclude<CniReply, "yours"> | undefined> {
  let connection: Deno.UnixConn;
  try {
    connection = await Deno.connect({ transport: "unix", path: socket });
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
  let open = true;
  const close = () => {
    if (open) connection.close();
    open = false;
  };
  const impatience = setTimeout(close, PATIENCE_MS);
  try {
    const greeting = await readLine(connection);
    clearTimeout(impatience);
    if (!open || greeting !== whereabouts()) return undefined;
    await writeLine(connection, JSON.stringify(call));
    const line = await readLine(connection);
    const reply: CniReply = line === undefined ? "yours" : JSON.parse(line);
    return reply === "yours" ? undefined : reply;
  } catch (error) {
    // The agent was killed, or patience ran out.
    throwDefect(error);
    return undefined;
  } finally {
    clearTimeout(impatience);
    close();
  }
}

/** Reads the one line that the other side says, without its end; `undefined` if it is gone before the line's end. */
export async function readLine(connection: Deno.Conn): Promise<string | undefined> {
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(64 * 1024);
  let text = "";
  while (!text.endsWith("\n")) {
    const length = await connection.read(chunk);
    if (length === null) return undefined;
    text += decoder.decode(chunk.subarray(0, length), { stream: true });
  }
  return text.slice(0, -1);
}

/** Writes a line. */
export async function writeLine(connection: Deno.Conn, line: string): Promise<void> {
  const bytes = new TextEncoder().encode(`${line}\n`);
  for (let done = 0; done < bytes.length;) done += await connection.write(bytes.subarray(done));
}
