/**
 * Flags as a typed table. A program lists its flags, one a line, and reads their values by name: a name that is
 * not in the table is a type error.
 *
 * ```ts ignore
 * const FLAGS = [
 *   flag("nodes", wholeNumber(2, 20), "how many nodes", "3"),
 *   flag("keep", toggle, "leave the cluster up"),
 * ] as const;
 * const flags = parseFlags("denim demo", FLAGS, { args: Deno.args });
 * if (typeof flags !== "string") console.log(flags.values.nodes + 1, flags.values.keep);
 * ```
 *
 * @module
 */

import { ConfigError, messageOf } from "@denim/core/errors";
import { parseArgs } from "@std/cli/parse-args";

/** How a flag's text becomes a value; `flag_types.ts` has those that there are. */
export interface FlagType<Value> {
  /** What help shows in place of the value: `PATH`. `undefined` for a flag that takes no value. */
  readonly placeholder: string | undefined;
  /** Whether the flag is a question, such as `--help`: if it is asked, no value is read. */
  readonly isRequest?: boolean;
  /**
   * Reads what was given, in the given order; nothing if the flag is absent and has no default. A switch that
   * stands alone is "true". Throws a ConfigError that says what is wrong and allowed: `"x" is not a …`.
   */
  read(texts: readonly string[]): Value;
}

/** One flag of a program. */
export interface Flag<Name extends string = string, Value = unknown> {
  /** Its name, without dashes. */
  readonly name: Name;
  /** How it is read. */
  readonly type: FlagType<Value>;
  /** What help says about it; `undefined` for a flag that help does not show. */
  readonly help: string | undefined;
  /** What is read if the flag is absent. */
  readonly fallback: string | undefined;
}

/** Values by the flags' names. */
export type FlagValues<F extends Flag> = {
  readonly [One in F as One["name"]]: One extends Flag<string, infer Value> ? Value : never;
};

/** The names of the flags that are questions, such as `help`: they have no value. */
export type RequestName<F extends Flag> =
  & string
  & (F extends Flag<infer Name, infer Value> ? ([Value] extends [never] ? Name : never) : never);

/** What a program was told. */
export interface ParsedFlags<F extends Flag = Flag> {
  /** The values, by the flags' names. */
  readonly values: FlagValues<F>;
  /** The arguments that are not flags. */
  readonly operands: readonly string[];
  /** What was given, or stands in for it, as text. */
  texts(name: F["name"]): readonly string[];
  /** Where a flag's value comes from. */
  source(name: F["name"]): "argument" | "environment" | "default";
  /** How messages name a flag: as the operator gave it, `--iface` or `FLANNELD_IFACE`. */
  label(name: F["name"]): string;
}

/** Where flags are read from. */
export interface FlagSources {
  /** The arguments behind the command. */
  readonly args: readonly string[];
  /** Variables: `FLANNELD_PUBLIC_IP` stands for `--public-ip`. Not read unless given; empty ones are ignored. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Whether the command takes arguments that are not flags; it does not unless given. */
  readonly takesOperands?: boolean;
}

/** A flag with a default: its value is never `undefined`. */
export function flag<const Name extends string, Value>(
  name: Name,
  type: FlagType<Value>,
  help: string,
  fallback: string,
): Flag<Name, Exclude<Value, undefined>>;
/** A flag without a default; without help, one that help does not show. */
export function flag<const Name extends string, Value>(
  name: Name,
  type: FlagType<Value>,
  help?: string,
): Flag<Name, Value>;
export function flag<const Name extends string, Value>(
  name: Name,
  type: FlagType<Value>,
  help?: string,
  fallback?: string,
): Flag<Name, Value> {
  return { name, type, help, fallback };
}

/**
 * Reads flags by the rules of Go's flags, which flannel's are: one dash or two; a value behind `=` or in the next
 * argument, whatever that begins with; a switch alone or with `=`; the last of several counts. An argument wins
 * over the environment. Throws a ConfigError that names the flag.
 *
 * @param command what messages call the command: `denim agent`
 * @returns the flags; or, if one of them is a question such as `--help`, its name
 */
export function parseFlags<F extends Flag>(
  command: string,
  table: readonly F[],
  { args, environment = {}, takesOperands = false }: FlagSources,
): ParsedFlags<F> | RequestName<F> {
  const names = table.map(({ name }) => name);
  const operands: string[] = [];
  const unknown: string[] = [];
  const parsed: Readonly<Record<string, unknown>> & { readonly _: unknown[] } = parseArgs(
    inLongForm(args, table),
    {
      string: names,
      collect: names,
      unknown: (arg) => {
        (arg.startsWith("-") && arg !== "-" ? unknown : operands).push(arg);
        return false;
      },
    },
  );
  operands.push(...parsed._.map(String));
  const [stranger] = unknown;
  if (stranger !== undefined) {
    const shown = stranger.split("=")[0];
    throw new ConfigError(`${shown}: ${command} has no such flag; see ${command} --help`);
  }
  const [operand] = operands;
  if (operand !== undefined && !takesOperands) {
    throw new ConfigError(`${operand}: not a flag: ${command} takes no operands`);
  }

  const given = (name: string) => parsed[name] as readonly string[];
  const request = table.find(({ name, type }) => type.isRequest && given(name).length > 0);
  if (request !== undefined) return request.name as RequestName<F>;

  const source: ParsedFlags["source"] = (name) =>
    given(name).length > 0
      ? "argument"
      : environment[environmentName(name)]
      ? "environment"
      : "default";
  const label = (name: string) =>
    source(name) === "environment" ? environmentName(name) : `--${name}`;
  const texts: ParsedFlags["texts"] = (name) => {
    const fallback = table.find((one) => one.name === name)?.fallback;
    return ({
      argument: () => given(name),
      environment: () => [environment[environmentName(name)]!],
      default: () => fallback === undefined ? [] : [fallback],
    })[source(name)]();
  };
  const read = (one: Flag): readonly [string, unknown] => {
    try {
      return [one.name, one.type.read(texts(one.name))];
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      throw new ConfigError(`${label(one.name)}: ${messageOf(error)}`, { cause: error });
    }
  };
  // The table gives each name its value's type.
  const values = Object.fromEntries(
    table.filter(({ type }) => !type.isRequest).map(read),
  ) as FlagValues<F>;
  return { values, operands, texts, source, label };
}

/** The variable that stands for a flag. */
export function environmentName(name: string): string {
  return `FLANNELD_${name.toUpperCase().replaceAll("-", "_")}`;
}

/** Rewrites each flag as `--name=value`, which `parseArgs` and Go read in the same way. */
function inLongForm(args: readonly string[], table: readonly Flag[]): readonly string[] {
  const result: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const arg = args[index]!;
    if (arg === "--") return [...result, ...args.slice(index)];
    const name = /^--?([A-Za-z][^=]*)$/.exec(arg)?.[1];
    const type = table.find((candidate) => candidate.name === name)?.type;
    if (type === undefined) {
      result.push(arg.replace(/^--?(?=[A-Za-z])/, "--"));
    } else if (type.placeholder === undefined) {
      result.push(`--${name}=true`);
    } else {
      const value = args[++index];
      if (value === undefined) throw new ConfigError(`--${name}: a value is missing`);
      result.push(`--${name}=${value}`);
    }
  }
  return result;
}

const HELP_COLUMNS = 100;

/** The flags as help shows them, one below the other, in lines of at most 100 columns. */
export function flagsHelp(table: readonly Flag[]): string {
  const shown = table.flatMap(({ name, type: { placeholder }, help, fallback }) =>
    help === undefined ? [] : [{
      left: `  --${name}${placeholder === undefined ? "" : ` ${placeholder}`}`,
      words: `${help}${fallback === undefined ? "" : ` (${fallback})`}`.split(" "),
    }]
  );
  const indent = Math.max(...shown.map(({ left }) => left.length)) + 2;
  return shown.flatMap(({ left, words }) => {
    const lines = [left.padEnd(indent - 1)];
    for (const word of words) {
      if (lines.at(-1)!.length + 1 + word.length > HELP_COLUMNS) {
        lines.push(" ".repeat(indent - 1));
      }
      lines.push(`${lines.pop()} ${word}`);
    }
    return lines;
  }).join("\n");
}
