/**
 * The plugin as a process.
 *
 * @module
 */

import { SERVED_COMMANDS } from "./calls.ts";

/**
 * Runs the plugin with this process's environment, standard input and output, and ends the process: with 0 if the
 * command succeeded, else with 1.
 *
 * @param calls the folder in which an agent may have an earlier call of the same attachment; none unless given
 */
export async function runPlugin(calls?: string): Promise<never> {
  const command = Deno.env.get("CNI_COMMAND");
  if (!command) {
    const { CNI_VERSIONS } = await import("./network_conf.ts");
    const versions = CNI_VERSIONS.join(", ");
    write(
      Deno.stderr,
      `denim's CNI plugin, for container runtimes to run. CNI versions: ${versions}\n`,
    );
  }
  if (command !== undefined && SERVED_COMMANDS.includes(command) && calls !== undefined) {
    const { awaitAgent } = await import("./call_order.ts");
    awaitAgent(calls, Deno.env.toObject());
  }
  const { answer } = await import("./plugin.ts");
  const answered = answer({
    read: (name) => Deno.env.get(name),
    readInput: readStandardInput,
    warn: (line) => write(Deno.stderr, `${line}\n`),
  });
  const { output, failed } = typeof answered === "function" ? await answered() : answered;
  write(Deno.stdout, output);
  Deno.exit(failed ? 1 : 0);
}

function readStandardInput(): string {
  // A person who tries VERSION by hand gives no input.
  if (Deno.stdin.isTerminal()) return "";
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(64 * 1024);
  let text = "";
  for (;;) {
    const length = Deno.stdin.readSync(chunk);
    if (length === null) return text + decoder.decode();
    text += decoder.decode(chunk.subarray(0, length), { stream: true });
  }
}

function write(to: typeof Deno.stdout, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let done = 0; done < bytes.length;) done += to.writeSync(bytes.subarray(done));
}
