/**
 * Output for people: colours and repainting on a terminal, plain lines elsewhere.
 *
 * @module
 */

/** What a word says of how things are. */
export type Mood = "good" | "bad" | "doubtful";

/** Colours as terminals have them (ECMA-48 SGR). */
const SGR: Readonly<Record<Mood, string>> = { good: "32", bad: "31", doubtful: "33" };
/** To the upper left corner; and clear from there. */
const HOME = "\x1b[H", CLEAR = "\x1b[J";

/** An ISO 8601 time in UTC, to the second: `2026-11-26T17:23:12Z`. */
export function shortTime(time: string): string {
  return `${time.slice(0, "2026-11-26T17:23:12".length)}Z`;
}

const encoder = new TextEncoder();

/** Where {@link Screen} writes: standard output. */
export interface Output {
  /** Writes bytes and returns how many were taken. */
  writeSync(bytes: Uint8Array): number;
  /** Whether it is a terminal. */
  isTerminal(): boolean;
}

/** Standard output as people see it. */
export class Screen {
  readonly #output: Output;
  readonly #isTerminal: boolean;
  readonly #hasColours: boolean;

  /**
   * Writes to an output.
   *
   * @param noColour what NO_COLOR says; anything but nothing forbids colours (https://no-color.org)
   */
  constructor(output: Output, noColour: string) {
    this.#output = output;
    this.#isTerminal = output.isTerminal();
    this.#hasColours = this.#isTerminal && noColour === "";
  }

  /** A text in a colour, on a terminal. */
  paint(mood: Mood, text: string): string {
    return this.#hasColours ? `\x1b[${SGR[mood]}m${text}\x1b[0m` : text;
  }

  /** Writes a text and ends its line. */
  print(text: string): void {
    const bytes = encoder.encode(`${text}\n`);
    for (let at = 0; at < bytes.length;) at += this.#output.writeSync(bytes.subarray(at));
  }

  /** Writes a text in place of the one before; on anything but a terminal, after it. */
  show(text: string): void {
    if (!this.#isTerminal) return this.print(text);
    const rows = Deno.consoleSize().rows - 1;
    const lines = text.split("\n");
    const fits = lines.length <= rows
      ? lines
      : [...lines.slice(0, rows - 1), `… and ${lines.length - rows + 1} more lines`];
    this.print(`${HOME}${CLEAR}${fits.join("\n")}`);
  }
}
