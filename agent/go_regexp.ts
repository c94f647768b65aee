/**
 * Regular expressions in Go's dialect, RE2, as flannel's flags take them. Go's and JavaScript's agree on most
 * patterns, refuse different ones, and give some another meaning: `\z` is JavaScript's letter z, `\s` lacks
 * Unicode's spaces in Go, `[[:alpha:]]` is a class of Go's alone. So each pattern is read by Go's grammar
 * (https://pkg.go.dev/regexp/syntax, of Go 1.22) and written again in JavaScript's.
 *
 * @module
 */

import { ConfigError } from "@denim/core";

/** A pattern that text can be tested against. */
export interface Pattern {
  /** The pattern as the operator wrote it. */
  readonly source: string;
  /** Whether the pattern matches somewhere in the text. */
  test(text: string): boolean;
}

/**
 * Reads a pattern in Go's dialect. Throws a ConfigError if Go would refuse it, or if denim can't say it in
 * JavaScript's: the message names the part.
 */
export function goRegExp(source: string): Pattern {
  let regexp: RegExp;
  try {
    regexp = new RegExp(new Translator(source).translate(), "v");
  } catch (error) {
    if (!(error instanceof ConfigError || error instanceof SyntaxError)) throw error;
    const reason = error instanceof ConfigError ? error.message : "JavaScript cannot say it";
    throw new ConfigError(`"${source}" is not a regular expression that denim can use: ${reason}`, {
      cause: error,
    });
  }
  return { source, test: (text) => regexp.test(text) };
}

/** Flags that change the meaning of what follows them in their group. `U` changes no match, only its length. */
interface Modes {
  /** Letters match in either case. */
  i: boolean;
  /** `^` and `$` match at lines, too. */
  m: boolean;
  /** `.` matches `\n`, too. */
  s: boolean;
}

/** Of Go's ASCII classes (`[[:name:]]`) what JavaScript puts between brackets. */
const POSIX: Readonly<Record<string, string>> = {
  alnum: "0-9A-Za-z",
  alpha: "A-Za-z",
  ascii: "\\x00-\\x7f",
  blank: "\\t ",
  cntrl: "\\x00-\\x1f\\x7f",
  digit: "0-9",
  graph: "\\x21-\\x7e",
  lower: "a-z",
  print: "\\x20-\\x7e",
  punct: "\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e",
  space: "\\t\\n\\v\\f\\r ",
  upper: "A-Z",
  word: "0-9A-Za-z_",
  xdigit: "0-9A-Fa-f",
};

/** Of Perl's classes the same; Go's are ASCII's. */
const PERL: Readonly<Record<string, string>> = { d: "0-9", s: "\\t\\n\\f\\r ", w: "0-9A-Za-z_" };

/** Unicode's general categories that mean the same to Go and to JavaScript. */
const CATEGORY = /^(Cc|Cf|Co|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?)$/;

const ESCAPES: Readonly<Record<string, number>> = { a: 7, f: 12, t: 9, n: 10, r: 13, v: 11 };

/** Go's bound of a repetition. */
const MAX_REPEAT = 1000;

/** Reads one pattern from its start to its end. */
class Translator {
  readonly #source: string;
  #at = 0;
  #modes: Modes = { i: false, m: false, s: false };
  /** The modes to go back to at the end of each group that is open. */
  readonly #open: Modes[] = [];
  /** Whether a repetition may follow: not at a start, and not behind another one. */
  #repeatable = false;
  #result = "";

  constructor(source: string) {
    this.#source = source;
  }

  translate(): string {
    while (this.#at < this.#source.length) this.#item();
    if (this.#open.length > 0) throw new ConfigError("a closing ) is missing");
    return this.#result;
  }

  #item(): void {
    const char = this.#next();
    switch (char) {
      case "(":
        return this.#group();
      case ")": {
        const modes = this.#open.pop();
        if (modes === undefined) throw new ConfigError("there is a ) too many");
        this.#modes = modes;
        this.#result += ")";
        this.#repeatable = true;
        return;
      }
      case "|":
        this.#result += "|";
        this.#repeatable = false;
        return;
      case "*":
      case "+":
      case "?":
        return this.#repeat(char);
      case "{": {
        const bounds = this.#take(/(0|[1-9]\d*)(,(0|[1-9]\d*)?)?\}/y);
        if (bounds === undefined) return this.#atom(literal("{"));
        const [min, max = min] = bounds.replace("}", "").split(",");
        if (Math.max(Number(min), Number(max)) > MAX_REPEAT || max !== "" && +max! < +min!) {
          throw new ConfigError(`{${bounds} is not a repetition of up to ${MAX_REPEAT}`);
        }
        return this.#repeat(`{${bounds}`);
      }
      case "[":
        return this.#atom(this.#class());
      case ".":
        return this.#atom(this.#modes.s ? "[^]" : "[^\\n]");
      case "^":
        return this.#atom(this.#modes.m ? "(?<![^\\n])" : "^");
      case "$":
        return this.#atom(this.#modes.m ? "(?![^\\n])" : "$");
      case "\\":
        return this.#escape();
      default:
        return this.#atom(literal(char));
    }
  }

  /** The next character, as a whole code point. */
  #next(): string {
    const char = String.fromCodePoint(this.#source.codePointAt(this.#at)!);
    this.#at += char.length;
    return char;
  }

  /** What a sticky pattern matches here; the place moves behind it. */
  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#source)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #atom(text: string): void {
    // Said of every atom: V8 lets an i of one part reach into others that say nothing.
    this.#result += `(?${this.#modes.i ? "" : "-"}i:${text})`;
    this.#repeatable = true;
  }

  #repeat(operator: string): void {
    const whole = operator + (this.#take(/\?/y) ?? "");
    if (!this.#repeatable) throw new ConfigError(`${whole} has nothing that it may repeat`);
    this.#result += whole;
    this.#repeatable = false;
  }

  #group(): void {
    const outer = { ...this.#modes };
    this.#repeatable = false;
    if (this.#take(/\?/y) !== undefined) {
      // What a group captures, and under which name, nobody asks for.
      if (this.#take(/P?<[0-9A-Za-z_]+>/y) === undefined) {
        const flags = this.#take(/([imsU]*|[imsU]*-[imsU]+)[:)]/y);
        if (flags === undefined) {
          const start = this.#source.slice(this.#at - 2, this.#at + 2);
          throw new ConfigError(`${start} does not begin a group of Go's`);
        }
        const [on, off = ""] = flags.slice(0, -1).split("-");
        for (const mode of ["i", "m", "s"] as const) {
          if (on!.includes(mode)) this.#modes[mode] = true;
          if (off.includes(mode)) this.#modes[mode] = false;
        }
        // Without a colon the flags hold to the end of the group around.
        if (flags.endsWith(")")) return;
      }
    }
    this.#open.push(outer);
    this.#result += "(?:";
  }

  /** What follows a backslash outside of a class. */
  #escape(): void {
    const simple = this.#take(/[AzbB]/y);
    if (simple === "A") return this.#atom("^");
    if (simple === "z") return this.#atom("$");
    // Go's \b looks at ASCII in either case; JavaScript's at more if case does not matter.
    if (simple !== undefined) return this.#atom(`(?-i:\\${simple})`);
    if (this.#take(/Q/y) !== undefined) {
      const quoted = this.#take(/[^]*?(?=\\E)/y) ?? this.#take(/[^]*/y)!;
      this.#take(/\\E/y);
      for (const char of quoted) this.#atom(literal(char));
      return;
    }
    const group = this.#perlOrUnicode();
    this.#atom(group ?? literal(this.#escaped()));
  }

  /** A class named by an escape, `\d` or `\p{Greek}`, as a class of its own; else the place stays. */
  #perlOrUnicode(): string | undefined {
    const perl = this.#take(/[dswDSW]/y);
    if (perl !== undefined) {
      const inside = PERL[perl.toLowerCase()]!;
      return perl === perl.toLowerCase() ? `[${inside}]` : `[^${inside}]`;
    }
    const sign = this.#take(/[pP]/y);
    if (sign === undefined) return undefined;
    const given = this.#take(/\{[^}]*\}|[A-Za-z]/y) ?? "";
    const [, caret = "", name = ""] = /^\{?(\^?)(\w*)\}?$/.exec(given) ?? [];
    const property = CATEGORY.test(name) || name === "Any"
      ? name
      : name.length > 2
      ? `Script=${name}`
      : undefined;
    if (property === undefined || !isProperty(property)) {
      throw new ConfigError(`\\${sign}${given} is not a class that denim knows`);
    }
    return (sign === "P") !== (caret === "^") ? `[^\\p{${property}}]` : `[\\p{${property}}]`;
  }

  /** The character that an escape says. */
  #escaped(): string {
    const octal = this.#take(/0[0-7]{0,2}|[1-7][0-7]{1,2}/y);
    if (octal !== undefined) return String.fromCodePoint(parseInt(octal, 8));
    const hex = this.#take(/x([0-9A-Fa-f]{2}|\{[0-9A-Fa-f]+\})/y);
    if (hex !== undefined) {
      const point = parseInt(hex.replace(/[x{}]/g, ""), 16);
      if (point <= 0x10ffff) return String.fromCodePoint(point);
      throw new ConfigError(`\\${hex} is not a character`);
    }
    const control = this.#take(/[aftnrv]/y);
    if (control !== undefined) return String.fromCodePoint(ESCAPES[control]!);
    const mark = this.#take(/\p{ASCII}(?<![0-9A-Za-z])/uy);
    if (mark !== undefined) return mark;
    if (this.#at >= this.#source.length) throw new ConfigError("a backslash stands at its end");
    throw new ConfigError(`\\${this.#next()} is not an escape of Go's`);
  }

  /** What follows `[`, to the closing bracket. */
  #class(): string {
    const begin = this.#at - 1;
    const negative = this.#take(/\^/y) !== undefined;
    const members: string[] = [];
    for (let first = true; first || this.#take(/\]/y) === undefined; first = false) {
      if (this.#at >= this.#source.length) {
        throw new ConfigError(`the closing ] of ${this.#source.slice(begin)} is missing`);
      }
      members.push(this.#member());
    }
    return `[${negative ? "^" : ""}${members.join("")}]`;
  }

  #member(): string {
    const posix = this.#take(/\[:[^]*?:\]/y);
    if (posix !== undefined) {
      const [, caret = "", name = ""] = /^\[:(\^?)(\w*):\]$/.exec(posix) ?? [];
      if (Object.hasOwn(POSIX, name)) return `[${caret}${POSIX[name]}]`;
      throw new ConfigError(`${posix} is not a class of Go's`);
    }
    if (this.#take(/\\(?=[dswDSWpP])/y) !== undefined) return this.#perlOrUnicode()!;
    const low = this.#classCharacter();
    if (this.#take(/-(?=[^\]])/y) === undefined) return literal(low);
    const high = this.#classCharacter();
    if (high.codePointAt(0)! < low.codePointAt(0)!) {
      throw new ConfigError(`the range ${low}-${high} is empty`);
    }
    return `${literal(low)}-${literal(high)}`;
  }

  #classCharacter(): string {
    const char = this.#next();
    return char === "\\" ? this.#escaped() : char;
  }
}

/** A character that stands for itself, inside of a class and outside. */
function literal(char: string): string {
  return /^[0-9A-Za-z_]$/.test(char) ? char : `\\u{${char.codePointAt(0)!.toString(16)}}`;
}

/** Whether JavaScript knows a Unicode property. */
function isProperty(property: string): boolean {
  try {
    return new RegExp(`\\p{${property}}`, "v") !== undefined;
  } catch {
    return false;
  }
}
