/**
 * iptables-legacy's chains, by its programs: the kernel takes its tables only whole, and others change them too, so
 * their lock and their form are the programs' to know. The kernel itself says whether they have changed.
 *
 * @module
 */

import { messageOf, throwDefect } from "../../errors.ts";
import { Cidr, type Family } from "../../ip.ts";
import { msToTick, sleep } from "../../sleep.ts";
import {
  belongs,
  type ChainContent,
  type ChainPlace,
  chainTexts,
  type IptablesChain,
  isDenims,
  marksOf,
  NO_CHAIN,
  PLACES,
} from "./iptables_chain.ts";
import type { RunLegacy } from "./iptables_programs.ts";
import type { IptablesPort } from "./iptables_table.ts";
import type { BaseChain } from "./nft_connection.ts";
import type { LegacyTables } from "./legacy_tables.ts";

/** How often the kernel is asked whether the tables have changed, and whether there are any by now, in milliseconds. */
const LOOK_MS = 400, LOOK_FOR_FIRST_MS = 500;
/** How long a program waits for the lock that all programs share, in seconds: the agent does nothing meanwhile. */
const LOCK_PATIENCE_S = "2";

/**
 * Of a larger table only the size is looked at, in bytes: kube-proxy's may have megabytes. What the size does not tell
 * is found when everything is compared.
 */
const MAX_TABLE_BYTES = 256 * 1024;

/** The chains of iptables-legacy. */
export class IptablesLegacy implements IptablesPort {
  readonly #tables: LegacyTables;
  readonly #run: RunLegacy;
  /** What was read last, by place, and of which table. */
  readonly #read = new Map<ChainPlace, { fingerprint: string; content: ChainContent }>();

  /** Asks the kernel by `tables`, and runs programs by `run`. */
  constructor(tables: LegacyTables, run: RunLegacy) {
    this.#tables = tables;
    this.#run = run;
  }

  /**
   * See {@link IptablesPort.read}. Runs a program only if something is there, and the table is another than the last
   * time.
   */
  read(at: ChainPlace): ChainContent {
    const place = PLACES.find(({ family, name }) => family === at.family && name === at.name)!;
    const table = this.#tables.read(place.family, place.table);
    if (table === undefined || !marksOf(place).some(table.mentions)) return NO_CHAIN;
    const { fingerprint } = table;
    const before = this.#read.get(place);
    if (before?.fingerprint === fingerprint) return before.content;
    const content = contentOf(place, this.#save(place));
    this.#read.set(place, { fingerprint, content });
    return content;
  }

  #save({ family, table }: ChainPlace): readonly string[] {
    const call = { family, program: "save", args: ["-t", table] } as const;
    return this.#tables.inside(() => this.#run(call)).split("\n");
  }

  /** See {@link IptablesPort.contentOf}. */
  contentOf(chain: IptablesChain): Pick<ChainContent, "inParent" | "rules"> {
    return chainTexts(chain);
  }

  /** See {@link IptablesPort.put}. */
  put(chain: IptablesChain): void {
    const { inParent } = this.read(chain);
    const { inParent: [jump], rules } = chainTexts(chain);
    const at = inParent.indexOf(jump!);
    this.#restore(chain, [
      // Makes the chain, or empties it.
      `:${chain.name} - [0:0]`,
      ...inParent.toSpliced(at, at < 0 ? 0 : 1).map((text) => `-D ${text}`),
      ...at < 0 ? [`-A ${jump}`] : [],
      ...rules!.map((text) => `-A ${text}`),
    ]);
  }

  /** See {@link IptablesPort.remove}. */
  remove(place: ChainPlace): void {
    const { inParent, rules } = this.read(place);
    this.#restore(place, [
      ...inParent.map((text) => `-D ${text}`),
      ...rules === undefined ? [] : [`-F ${place.name}`, `-X ${place.name}`],
    ]);
  }

  #restore({ family, table }: ChainPlace, lines: readonly string[]): void {
    const input = [`*${table}`, ...lines, "COMMIT", ""].join("\n");
    const args = ["--noflush", "-w", LOCK_PATIENCE_S];
    this.#tables.inside(() => this.#run({ family, program: "restore", args, input }));
  }

  /** See {@link IptablesPort.forwardPolicy}. */
  forwardPolicy(family: Family): number | undefined {
    return this.#tables.read(family, "filter")?.forwardPolicy;
  }

  /** See {@link IptablesPort.foreignDrops}: of what others have here FORWARD's policy alone is read. */
  foreignDrops(): readonly BaseChain[] {
    return [];
  }

  /** Text that differs if a place's table is another than before. */
  #look({ family, table }: ChainPlace): string {
    try {
      const size = this.#tables.size(family, table);
      if (size > MAX_TABLE_BYTES) return `${size}`;
      return this.#tables.read(family, table)?.fingerprint ?? "";
    } catch (error) {
      throwDefect(error);
      // The comparison that follows meets the same error, and is tried again.
      return messageOf(error);
    }
  }

  /** See {@link IptablesPort.mayMiss}: of large tables the size alone is looked at. */
  mayMiss(): boolean {
    return this.#tables.names().size > 0;
  }

  /** See {@link IptablesPort.listen}. */
  async listen(
    onChange: (places: readonly ChainPlace[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const look = () => {
      const names = this.#tables.names();
      return PLACES.map((place) =>
        names.has(`${place.family} ${place.table}`) && this.#look(place)
      );
    };
    let before = look();
    const waitMs = () =>
      before.some((text) => text !== false) ? LOOK_MS : msToTick(LOOK_FOR_FIRST_MS);
    while (await sleep(waitMs(), signal)) {
      const now = look();
      const places = PLACES.filter((_, at) => now[at] !== before[at]);
      before = now;
      if (places.length > 0) onChange(places);
    }
  }
}

/** Reads what a program has printed of a table. */
function contentOf(place: ChainPlace, lines: readonly string[]): ChainContent {
  const { name, parent } = place;
  const of = (chain: string) =>
    lines.filter((line) => line.startsWith(`-A ${chain} `)).map((line) => line.slice(3));
  const inParent = of(parent).filter((text) =>
    belongs(place, { comment: commentOf(text), target: / -[jg] (\S+)/.exec(text)?.[1] })
  );
  const rules = of(name);
  const all = [...inParent, ...rules];
  const isThere = lines.some((line) => line.startsWith(`:${name} `));
  return {
    inParent,
    rules: isThere ? rules : undefined,
    networks: all.flatMap((text) => [...text.matchAll(/ -[sd] (\S+)/g)])
      .map(([, network]) => Cidr.parse(network!)),
    isDenims: all.some((text) => isDenims(place, commentOf(text))),
  };
}

function commentOf(text: string): string {
  const [, quoted, word] = /--comment (?:"((?:[^"\\]|\\.)*)"|(\S+))/.exec(text) ?? [];
  return quoted ?? word ?? "";
}
