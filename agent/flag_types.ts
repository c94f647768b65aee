/**
 * How flags' texts become values. A type without a default gives `undefined` if the flag is absent.
 *
 * @module
 */

import { ConfigError } from "@denim/core/errors";
import { type Family, IpAddress } from "@denim/core/ip";
import type { FlagType } from "./flag_table.ts";

/** A type of one value, which `parse` reads; it throws a ConfigError as {@link FlagType.read} does. */
export function single<Value>(
  placeholder: string,
  parse: (text: string) => Value,
): FlagType<Value | undefined> {
  return {
    placeholder,
    read: (texts) => {
      const text = texts.at(-1);
      if (text === "") throw new ConfigError("the value is empty");
      return text === undefined ? undefined : parse(text);
    },
  };
}

/** Several values, from a flag that may be repeated. */
export function list<Value>(type: FlagType<Value>): FlagType<readonly Exclude<Value, undefined>[]> {
  return {
    placeholder: type.placeholder,
    read: (texts) => texts.map((text) => type.read([text]) as Exclude<Value, undefined>),
  };
}

/** Any text but an empty one. */
export function text(placeholder: string): FlagType<string | undefined> {
  return single(placeholder, (text) => text);
}

/** Any text. An empty one counts as absent, since Go's flags have it as their default. */
export function optionalText(placeholder: string): FlagType<string | undefined> {
  return { placeholder, read: (texts) => texts.at(-1) || undefined };
}

/** A path from the root. */
export function absolutePath(placeholder: string): FlagType<string | undefined> {
  return single(placeholder, (text) => {
    if (text.startsWith("/")) return text;
    throw new ConfigError(`"${text}" is not an absolute path`);
  });
}

/** A path from the root, or `none` for there is none. */
export function absolutePathOrNone(placeholder: string): FlagType<string | undefined> {
  const path = absolutePath(`${placeholder}|none`);
  return { ...path, read: (texts) => texts.at(-1) === "none" ? undefined : path.read(texts) };
}

/** One of some words. */
export function oneOf<const Word extends string>(
  words: readonly Word[],
): FlagType<Word | undefined> {
  return single(words.join("|"), (text) => {
    const word = words.find((candidate) => candidate === text);
    if (word !== undefined) return word;
    throw new ConfigError(`"${text}" is not one of ${words.join(", ")}`);
  });
}

/** A whole number within bounds, both included. */
export function wholeNumber(
  min: number,
  max: number,
  placeholder = "N",
): FlagType<number | undefined> {
  return single(placeholder, (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    throw new ConfigError(`"${text}" is not a whole number from ${min} to ${max}`);
  });
}

/** Minutes within bounds, both included; the value is in milliseconds. */
export function minutes(min: number, max: number): FlagType<number | undefined> {
  const number = wholeNumber(min, max, "MINUTES");
  return {
    ...number,
    read: (texts) => {
      const value = number.read(texts);
      return value === undefined ? undefined : value * 60_000;
    },
  };
}

/** An IP address, of one family if it is given. */
export function ipAddress(family?: Family): FlagType<IpAddress | undefined> {
  return single("IP", (text) => {
    const address = IpAddress.tryParse(text);
    if (address !== undefined && address.family === (family ?? address.family)) return address;
    throw new ConfigError(
      `"${text}" is not a valid ${family === undefined ? "IP" : `IPv${family}`} address`,
    );
  });
}

/** A switch: on if it stands alone, else as Go reads a boolean. */
export const toggle: FlagType<boolean> = {
  placeholder: undefined,
  read: (texts) => {
    const text = texts.at(-1) ?? "false";
    if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
    if (/^(0|f|F|false|FALSE|False)$/.test(text)) return false;
    throw new ConfigError(`"${text}" is neither true nor false`);
  },
};

/** A question that the program answers and then ends: `--help`. */
export const request: FlagType<never> = {
  placeholder: undefined,
  isRequest: true,
  read() {
    throw new Error("a question has no value");
  },
};

/** A flag that denim takes and does not follow; the value says whether it was given. */
export function ignored(placeholder?: string): FlagType<boolean> {
  return { placeholder, read: (texts) => texts.length > 0 };
}
