/**
 * Who looks on: a browser to show a page, and a keyboard.
 *
 * @module
 */

import { throwDefect } from "@denim/core";

/** Opens a page in the desktop's browser. False if there is no desktop, or nothing that opens pages. */
export function openBrowser(url: string): boolean {
  if (!Deno.env.get("DISPLAY") && !Deno.env.get("WAYLAND_DISPLAY")) return false;
  try {
    const opener = new Deno.Command("xdg-open", {
      args: [url],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: true,
    }).spawn();
    opener.unref();
    return true;
  } catch (error) {
    throwDefect(error);
    return false;
  }
}

/** The lines that come in, until the signal is aborted: longer than there is input. */
export async function* linesOf(
  input: Pick<typeof Deno.stdin, "readable">,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const stopped = Promise.withResolvers<undefined>();
  const stop = () => stopped.resolve(undefined);
  signal.addEventListener("abort", stop);
  const reader = input.readable.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (!signal.aborted) {
      const part = await Promise.race([reader.read(), stopped.promise]);
      if (part?.done !== false) break;
      const lines = (rest + part.value).split("\n");
      rest = lines.pop()!;
      yield* lines;
    }
    if (!signal.aborted) await stopped.promise;
  } finally {
    signal.removeEventListener("abort", stop);
    // Its end is not waited for: a terminal ends with the process.
    void reader.cancel().catch(() => {});
  }
}
