/**
 * Command line arguments, read as `@std/cli/parse-args` documents it. The parser inside is minimist,
 * which the real one descends from; names with dots (`--a.b`) are not typed here.
 *
 * @module
 */

import minimistUntyped from "npm:minimist@1.2.8";

/** What `minimist` takes and gives, as far as it is used here. */
const minimist: (
  args: string[],
  options: {
    readonly boolean: boolean | string[];
    readonly string: string[];
    readonly alias: Readonly<Record<string, string | string[]>>;
    readonly default: Readonly<Record<string, unknown>>;
    readonly "--": boolean;
    readonly stopEarly: boolean;
    readonly unknown: (arg: string) => boolean;
  },
) => Record<string, unknown> = minimistUntyped;

/** Other names for options: `{ verbose: "v" }`. */
export type Aliases = Readonly<Record<string, string | readonly string[]>>;

/** Options for {@linkcode parseArgs}. */
export interface ParseOptions<
  Booleans extends string = string,
  Strings extends string = string,
  Collectables extends string = string,
  Negatables extends string = string,
  Defaults extends Readonly<Record<string, unknown>> = Readonly<Record<string, unknown>>,
  Alias extends Aliases = Aliases,
  DoubleDash extends boolean = boolean,
> {
  /** Whether what follows `--` goes to `"--"` of the result instead of `_`. */
  readonly "--"?: DoubleDash;
  /** Other names for options. */
  readonly alias?: Alias;
  /** Options without a value, false where absent; `true` makes every `--name` such a one. */
  readonly boolean?: boolean | Booleans | readonly Booleans[];
  /** What options are where absent. */
  readonly default?: Defaults;
  /** Whether everything after the first argument that is no option goes to `_` unread. */
  readonly stopEarly?: boolean;
  /** Options whose value stays text, even one that looks like a number. */
  readonly string?: Strings | readonly Strings[];
  /** Options that may be said several times: arrays. Of the others the last counts. */
  readonly collect?: Collectables | readonly Collectables[];
  /** Options that `--no-name` sets false. */
  readonly negatable?: Negatables | readonly Negatables[];
  /**
   * Called with each argument that the other options do not name, and the option's name if it begins with
   * `--`. What it answers `false` for is left out of the result.
   */
  readonly unknown?: (arg: string, key?: string) => unknown;
}

/** An option's names: its own and its aliases. */
type NamesOf<Name extends string, Alias> = Name extends keyof Alias ?
    | Name
    | (Alias[Name] extends readonly (infer Other extends string)[] ? Other : Alias[Name] & string)
  : Name;

/** Options that are always there: they have a default, are boolean, or collected. */
type Certain<Booleans extends string, Collectables extends string, Defaults> =
  | Booleans
  | Collectables
  | (keyof Defaults & string);

type ValueOf<
  Name extends string,
  Booleans extends string,
  Strings extends string,
  Collectables extends string,
  Negatables extends string,
  Defaults,
> =
  | (Name extends Collectables ? SingleOf<Name, Booleans, Strings>[]
    : SingleOf<Name, Booleans, Strings>)
  | (Name extends Negatables ? false : never)
  | (Name extends keyof Defaults ? Defaults[Name] : never);

type SingleOf<Name, Booleans, Strings> = Name extends Booleans ? boolean
  : Name extends Strings ? string
  : unknown;

/** What {@linkcode parseArgs} returns: a value for each option, and the arguments that are none. */
export type Args<
  Booleans extends string = never,
  Strings extends string = never,
  Collectables extends string = never,
  Negatables extends string = never,
  Defaults = Record<never, never>,
  Alias = Record<never, never>,
  DoubleDash extends boolean = false,
> =
  & Record<string, unknown>
  & {
    [
      Name in Certain<Booleans, Collectables, Defaults> as NamesOf<Name, Alias>
    ]: ValueOf<Name, Booleans, Strings, Collectables, Negatables, Defaults>;
  }
  & {
    [
      Name in Exclude<Strings, Certain<Booleans, Collectables, Defaults>> as NamesOf<Name, Alias>
    ]?: ValueOf<Name, Booleans, Strings, Collectables, Negatables, Defaults>;
  }
  & {
    /** The arguments that belong to no option. */
    _: (string | number)[];
  }
  & (DoubleDash extends true ? {
      /** The arguments after `--`. */
      "--": string[];
    }
    : Record<never, never>);

/**
 * Reads command line arguments. Anything that begins with `-` or `--` is an option; its value follows
 * after `=` or as the next argument. Values that look like numbers become numbers, except those of
 * `string` options.
 *
 * ```ts
 * import { parseArgs } from "@std/cli/parse-args";
 * const { verbose, name } = parseArgs(Deno.args, { boolean: ["verbose"], string: ["name"] });
 * console.log(verbose, name);
 * ```
 */
export function parseArgs<
  Booleans extends string = never,
  Strings extends string = never,
  Collectables extends string = never,
  Negatables extends string = never,
  Defaults extends Readonly<Record<string, unknown>> = Record<never, never>,
  const Alias extends Aliases = Record<never, never>,
  DoubleDash extends boolean = false,
>(
  args: readonly string[],
  options: ParseOptions<
    Booleans,
    Strings,
    Collectables,
    Negatables,
    Defaults,
    Alias,
    DoubleDash
  > = {},
): Args<Booleans, Strings, Collectables, Negatables, Defaults, Alias, DoubleDash> {
  const alias = Object.entries<string | readonly string[]>(options.alias ?? {});
  const withAliases = (names: readonly string[]): ReadonlySet<string> =>
    new Set(names.concat(
      alias.map(([name, others]) => [name, ...list(others)])
        .filter((group) => group.some((name) => names.includes(name))).flat(),
    ));
  const collected = withAliases(list(options.collect));
  const negatable = withAliases(list(options.negatable));
  const booleans = withAliases(typeof options.boolean === "boolean" ? [] : list(options.boolean));
  const strings = withAliases(list(options.string));
  const unknown = options.unknown;

  const parsed = minimist(args.map(mask), {
    "--": true,
    alias: Object.fromEntries(alias.map(([name, others]) => [name, list(others)])),
    boolean: typeof options.boolean === "boolean" ? options.boolean : [...booleans].map(maskName),
    string: [...strings].map(maskName),
    default: options.default ?? {},
    stopEarly: options.stopEarly ?? false,
    unknown: (masked) => {
      const arg = masked.replace(MASK, "");
      const key = /^--([^=]+)/.exec(arg)?.[1];
      return key !== undefined && collected.has(key) || unknown?.(arg, key) !== false;
    },
  });

  /** minimist takes `--no-…` of any option: hide the names that are not negatable. */
  function mask(arg: string): string {
    const name = /^--no-([^=]+)/.exec(arg)?.[1];
    return name === undefined || negatable.has(name) ? arg : `--${MASK}${arg.slice(2)}`;
  }

  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (name === "_" || name === "--") continue;
    result[name.replace(MASK, "")] = collected.has(name)
      // A boolean's false is minimist's word for "not said".
      ? booleans.has(name) && value === false ? [] : list(value)
      : Array.isArray(value)
      ? value.at(-1)
      : value;
  }
  for (const name of collected) {
    if (booleans.has(name) || strings.has(name)) result[name] ??= [];
  }
  const rest = (parsed["--"] as string[]).map((arg) => arg.replace(MASK, ""));
  const own = (parsed._ as (string | number)[])
    .map((arg) => typeof arg === "string" ? arg.replace(MASK, "") : arg);
  result._ = options["--"] ? own : [...own, ...rest];
  if (options["--"]) result["--"] = rest;
  return result as ReturnType<
    typeof parseArgs<Booleans, Strings, Collectables, Negatables, Defaults, Alias, DoubleDash>
  >;
}

/** No argument can have it: the kernel ends arguments with it. */
const MASK = "\0";

function maskName(name: string): string {
  return name.startsWith("no-") ? MASK + name : name;
}

function list<T>(value: T | readonly T[] | undefined): T[] {
  return value === undefined ? [] : Array.isArray(value) ? [...value] : [value as T];
}
