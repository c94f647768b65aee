/**
 * Asking the agent of this machine over its socket.
 *
 * @module
 */

import { messageOf, RuntimeError, throwDefect } from "@denim/core/errors";
import { sleep } from "@denim/core/sleep";
import type { ParsedFlags } from "./flag_table.ts";
import { flag } from "./flag_table.ts";
import { toggle } from "./flag_types.ts";
import { API_SOCKET_FLAG } from "./common_flags.ts";
import { runCommand } from "./run_command.ts";
import { Screen } from "./screen.ts";

/** How often a command that follows looks again, in milliseconds. */
const LOOK_MS = 1000;

/**
 * What URLs of requests over the agent's socket begin with. An address, since Deno looks a name up even where a socket
 * is asked: without an answer from a name server each question would wait for seconds.
 */
export const AGENT_ORIGIN = "http://127.0.0.1";

/** The flags of the commands that ask the agent. */
const AGENT_CLIENT_FLAGS = [
  API_SOCKET_FLAG,
  flag("json", toggle, "print JSON on one line; with --watch, a line for each change"),
  flag("watch", toggle, "go on, and print again what is different, until you stop it"),
] as const;

/** A command that shows what the agent answers. */
export interface AgentQuestion<Answer> {
  /** Its name, for messages: `denim peers`. */
  readonly name: string;
  /** What help says above the flags. */
  readonly help: string;
  /** The route that is asked: `/peers`. */
  readonly path: string;
  /** The answer as lines for people; `isTerminal` allows colours. */
  format(answer: Answer, screen: Screen): string;
}

/**
 * Runs a command that shows what the agent answers, once or, with `--watch`, until it is stopped. Resolves to the exit
 * code: 0 fine, 1 if no agent answers, 2 wrong usage.
 */
export function askAgent<Answer>(
  question: AgentQuestion<Answer>,
  args: readonly string[],
): Promise<number> {
  const { name, help } = question;
  return runCommand<typeof AGENT_CLIENT_FLAGS[number]>({
    name,
    help,
    flags: AGENT_CLIENT_FLAGS,
    environment: Deno.env.toObject(),
    stopped: "stopped",
    async run({ values }, signal) {
      using agent = new AgentConnection(values["api-socket"]);
      await show(question, agent, values, signal);
      return 0;
    },
  }, args);
}

async function show<Answer>(
  question: AgentQuestion<Answer>,
  agent: AgentConnection,
  { json, watch }: ParsedFlags<typeof AGENT_CLIENT_FLAGS[number]>["values"],
  signal: AbortSignal,
): Promise<void> {
  const screen = new Screen(Deno.stdout, Deno.env.get("NO_COLOR") ?? "");
  const once = async () => {
    const text = await agent.ask(question.path, signal);
    return json ? text : question.format(JSON.parse(text), screen);
  };
  if (!watch) return screen.print(await once());
  let shown = await once();
  screen.show(shown);
  while (await sleep(LOOK_MS, signal)) {
    let text: string;
    try {
      text = await once();
    } catch (error) {
      throwDefect(error);
      if (signal.aborted) return;
      // It may be starting again. A program that reads JSON gets nothing that is not JSON.
      if (json) continue;
      text = messageOf(error);
    }
    if (text !== shown) screen.show(shown = text);
  }
}

/** Asks one agent, over one connection that lasts. */
export class AgentConnection implements Disposable {
  readonly #path: string;
  readonly #client: Deno.HttpClient;

  /** The agent that serves on this socket; it is asked with the first question. */
  constructor(path: string) {
    this.#path = path;
    this.#client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  }

  /** The answer's text. Rejects with a RuntimeError that says what to do if there is no agent. */
  async ask(route: string, signal: AbortSignal): Promise<string> {
    let response: Response;
    try {
      response = await fetch(`${AGENT_ORIGIN}${route}`, { client: this.#client, signal });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw new RuntimeError(await this.#complaint(messageOf(error)), { cause: error });
    }
    const text = await response.text();
    if (response.ok) return text;
    throw new RuntimeError(`the agent at ${this.#path} answers ${response.status}: ${text}`);
  }

  async #complaint(why: string): Promise<string> {
    try {
      (await Deno.connect({ transport: "unix", path: this.#path })).close();
    } catch (error) {
      throwDefect(error);
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.ConnectionRefused) {
        return `no agent runs here: none answers at ${this.#path}; start it (denim agent), or name its ` +
          "socket with --api-socket";
      }
      if (error instanceof Deno.errors.PermissionDenied) {
        return `${this.#path}: only the agent's own user may ask it; run this as root`;
      }
      return `${this.#path}: ${messageOf(error)}`;
    }
    return `${this.#path}: ${why}`;
  }

  /** Ends the connection. */
  [Symbol.dispose](): void {
    this.#client.close();
  }
}
