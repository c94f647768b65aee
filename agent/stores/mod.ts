/**
 * The kinds of stores that denim has, and which of them its flags choose.
 *
 * @module
 */

import { ConfigError } from "@denim/core";
import { flag, type ParsedFlags } from "../flag_table.ts";
import { text } from "../flag_types.ts";
import { etcd } from "./etcd.ts";
import { kubernetes } from "./kubernetes.ts";
import { sqlite } from "./sqlite.ts";
import type { StoreKind } from "./store_kind.ts";

/** Every kind. If flags choose several of them, the first one here counts: --kube-subnet-mgr, as in flannel. */
const STORES = [kubernetes, etcd, sqlite] as const;

const DEFAULT_STORE = "sqlite:/var/lib/denim/denim.db";
const USAGES = STORES.map(({ usage }) => usage).join(", ").replace(/, (?=[^,]*$)/, ", or ");

/** The flags that say where leases live. */
export const STORE_FLAGS = [
  flag(
    "store",
    text("STORE"),
    `where leases live, ${USAGES}; a flag of a store's own chooses that store, too`,
    DEFAULT_STORE,
  ),
  ...STORES.flatMap(({ flags }): readonly (typeof STORES[number]["flags"][number])[] => flags),
] as const;

/** One of {@link STORE_FLAGS}. */
export type StoreFlag = typeof STORE_FLAGS[number];

/** A store that flags have chosen. */
export interface ChosenStore {
  /** Its kind. */
  readonly kind: StoreKind;
  /** What its kind's `open` takes. */
  readonly spec: unknown;
}

/**
 * The store that flags choose: by `--store`, else by a flag of its own, each as an argument before each in the
 * environment; else the default. Throws a ConfigError that names the flag.
 */
export function chooseStore(flags: ParsedFlags<StoreFlag>): ChosenStore {
  for (const source of ["argument", "environment"] as const) {
    const [own] = STORES.flatMap((kind: StoreKind) =>
      kind.chosenBy.filter((name) => isGiven(flags, name, source)).map((name) => ({ kind, name }))
    );
    if (flags.source("store") === source) {
      const named = byName(flags);
      if (source === "argument" && own !== undefined && own.kind !== named.kind) {
        throw new ConfigError(
          `--store ${flags.values.store} and --${own.name}: leases live in one store; leave one out`,
        );
      }
      return named;
    }
    if (own !== undefined) return { kind: own.kind, spec: own.kind.parse(undefined, flags) };
  }
  return byName(flags);
}

/** Whether flags say anything of a store. */
export function isStoreNamed(flags: ParsedFlags<StoreFlag>): boolean {
  return STORE_FLAGS.some(({ name }) => flags.source(name) !== "default");
}

function isGiven(flags: ParsedFlags, name: string, source: "argument" | "environment"): boolean {
  return flags.source(name) === source && flags.values[name] !== false;
}

function byName(flags: ParsedFlags<StoreFlag>): ChosenStore {
  const { store } = flags.values;
  const [, name, place] = /^([^:]*)(?::(.*))?$/s.exec(store)!;
  const kind = STORES.find((candidate) => candidate.name === name) as StoreKind | undefined;
  if (kind !== undefined) return { kind, spec: kind.parse(place || undefined, flags) };
  throw new ConfigError(`${flags.label("store")}: "${store}" is not a store; use ${USAGES}`);
}
