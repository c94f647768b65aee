/**
 * What code under test tells people.
 *
 * @module
 */

/** Takes what `console.error` is given, in its place, until its scope ends. */
export class StandardError implements Disposable {
  /** What was said, in order. */
  readonly lines: string[] = [];
  readonly #real = console.error;

  /** Begins. */
  constructor() {
    console.error = (text: string) => this.lines.push(text);
  }

  /** Gives `console.error` back. */
  [Symbol.dispose](): void {
    console.error = this.#real;
  }
}
