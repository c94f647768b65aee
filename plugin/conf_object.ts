/**
 * Reads JSON objects of a CNI configuration by hand: the plugin is a new process for each pod, and a schema library
 * would take longer to load than everything else together.
 *
 * @module
 */

import { CNI_CODE, CniError } from "./cni_error.ts";

/** What `JSON.parse` makes of an object. */
export type JsonObject = { readonly [key: string]: unknown };

/**
 * An object of the configuration, with its path for error messages. Keys match in any case, as Go's JSON reader
 * matches them for flannel and the plugins beside it. A key with `null` counts as left out. A value of the wrong
 * type throws a {@link CniError} with the code for an invalid configuration.
 */
export class ConfObject {
  /** The object's path in the configuration: "delegate.args"; "" is the configuration itself. */
  readonly path: string;
  /** The object as `JSON.parse` returned it. */
  readonly json: JsonObject;

  /** Wraps an object that `JSON.parse` returned. */
  constructor(json: JsonObject, path: string) {
    this.json = json;
    this.path = path;
  }

  /** Parses a text, which errors call `what`. Throws a CniError, "decoding failure", if it is not a JSON object. */
  static parse(text: string, what: string): ConfObject {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (error) {
      const reason = text.trim() === "" ? "it is empty" : (error as Error).message;
      throw new CniError(CNI_CODE.decodingFailure, `${what} is not JSON: ${reason}`, {
        cause: error,
      });
    }
    if (!isObject(json)) {
      throw new CniError(CNI_CODE.decodingFailure, `${what} is ${show(json)}, not a JSON object`);
    }
    return new ConfObject(json, "");
  }

  /** A key's path: "delegate.mtu". */
  at(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }

  /** A key's value of any type; `undefined` if it is left out or `null`. */
  get(key: string): unknown {
    const exact = this.json[key];
    if (exact !== undefined) return exact ?? undefined;
    const lower = key.toLowerCase();
    const other = Object.keys(this.json).find((candidate) => candidate.toLowerCase() === lower);
    return other === undefined ? undefined : this.json[other] ?? undefined;
  }

  /** A key's text; `undefined` if it is left out. */
  string(key: string): string | undefined {
    return this.#typed(key, "a string", (value) => typeof value === "string") as string | undefined;
  }

  /** A key's boolean; false if it is left out. */
  boolean(key: string): boolean {
    return this.#typed(key, "true or false", (value) => typeof value === "boolean") === true;
  }

  /** A key's whole number from `min` to `max`; `undefined` if it is left out. */
  integer(key: string, min: number, max: number): number | undefined {
    return this.#typed(
      key,
      `a whole number from ${min} to ${max}`,
      (value) => Number.isInteger(value) && value as number >= min && value as number <= max,
    ) as number | undefined;
  }

  /** A key's object; `undefined` if it is left out. */
  object(key: string): ConfObject | undefined {
    const json = this.#typed(key, "an object", isObject) as JsonObject | undefined;
    return json && new ConfObject(json, this.at(key));
  }

  /** A key's list of objects; empty if it is left out. */
  objects(key: string): ConfObject[] {
    return this.#list(key, "a list of objects", isObject).map((json, index) =>
      new ConfObject(json as JsonObject, `${this.at(key)}[${index}]`)
    );
  }

  /** A key's list of texts; empty if it is left out. */
  strings(key: string): string[] {
    return this.#list(key, "a list of strings", (item) => typeof item === "string") as string[];
  }

  /** A key's text, parsed by `read`, which returns `undefined` for a wrong one; `undefined` if left out or empty. */
  parsed<T>(key: string, what: string, read: (text: string) => T | undefined): T | undefined {
    const text = this.string(key);
    if (text === undefined || text === "") return undefined;
    return read(text) ?? this.fail(key, what);
  }

  /** Throws the CniError for a value that must be `wanted`. */
  fail(key: string, wanted: string): never {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `${this.at(key)} is ${show(this.get(key))}; it must be ${wanted}`,
    );
  }

  #list(key: string, wanted: string, ofItem: (item: unknown) => boolean): unknown[] {
    const isList = (value: unknown) => Array.isArray(value) && value.every(ofItem);
    return (this.#typed(key, wanted, isList) ?? []) as unknown[];
  }

  #typed(key: string, wanted: string, is: (value: unknown) => boolean): unknown {
    const value = this.get(key);
    return value === undefined || is(value) ? value : this.fail(key, wanted);
  }
}

/** Whether a value of JSON is an object, and not a list. */
function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as an error message shows it: JSON, cut to 80 characters. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}
