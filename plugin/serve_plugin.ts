/**
 * The agent's half of the talk with the plugin.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { type CniCall, type CniReply, SERVED_COMMANDS, whereabouts } from "./agent_socket.ts";
import { inOrder } from "./call_order.ts";
import { isThere } from "./caller.ts";
import { readLine, writeLine } from "./ask_agent.ts";
import { loadMasquerade } from "./load_masquerade.ts";
import { answer } from "./plugin.ts";

/** One call that the agent carried out. */
export interface ServedCall {
  /** `ADD` or `DEL` */
  readonly command: string;
  /** Whether it failed. */
  readonly failed: boolean;
  /** How long it took, in seconds. */
  readonly seconds: number;
}

/**
 * Carries out calls that come over a socket, one after another on this thread, until the listener is closed. What takes
 * its time is left to the plugin: denim's own work waits for no other program, so that no pod waits for another's.
 *
 * @param onCall hears of each call that was carried out
 */
export async function servePlugin(
  listener: Deno.UnixListener,
  onCall: (call: ServedCall) => void,
): Promise<void> {
  await loadMasquerade();
  const greeting = whereabouts();
  const socket = listener.addr.path;
  for await (const connection of listener) void serve(connection, socket, greeting, onCall);
}

async function serve(
  connection: Deno.Conn,
  socket: string,
  greeting: string,
  onCall: (call: ServedCall) => void,
): Promise<void> {
  using _connection = connection;
  try {
    await writeLine(connection, greeting);
    const line = await readLine(connection);
    if (line === undefined) return;
    const call: CniCall = JSON.parse(line);
    const startMs = performance.now();
    const reply = inOrder(
      socket,
      call.environment,
      () => isThere(call.caller) ? carryOut(call) : "yours",
    );
    if (reply !== "yours") {
      const seconds = (performance.now() - startMs) / 1000;
      onCall({ command: call.environment["CNI_COMMAND"]!, failed: reply.failed, seconds });
    }
    await writeLine(connection, JSON.stringify(reply));
  } catch (error) {
    // The plugin went away, or was killed.
    throwDefect(error);
  }
}

function carryOut({ environment, input }: CniCall): CniReply {
  if (!SERVED_COMMANDS.includes(environment["CNI_COMMAND"] ?? "")) return "yours";
  let errors = "";
  const answered = answer({
    read: (name) => environment[name],
    readInput: () => input,
    warn: (line) => errors += `${line}\n`,
  });
  return typeof answered === "function" ? "yours" : { ...answered, errors };
}
