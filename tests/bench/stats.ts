/**
 * What a bench says: samples, their table, and the file that keeps them.
 *
 * @module
 */

import { formatColumns } from "@denim/agent/columns";

/** One thing that was measured, each time that it was. */
export interface Measure {
  /** What it is, as the table says it. */
  readonly name: string;
  /** What the samples count: a time, 10³ or 10⁶ bytes, 10⁶ bits a second, a share, or things. */
  readonly unit: "s" | "ms" | "µs" | "kB" | "MB" | "Mbit/s" | "%" | "";
  /** The samples, in the order in which they were taken. */
  readonly samples: readonly number[];
}

/** The ends and the middle of some samples. */
export interface Summary {
  /** The smallest sample. */
  readonly min: number;
  /** The middle one; of an even number, the mean of the two in the middle. */
  readonly median: number;
  /** The largest. */
  readonly max: number;
}

/** Sums samples up. Throws a RangeError where there are none. */
export function summarize(samples: readonly number[]): Summary {
  if (samples.length === 0) throw new RangeError("no samples: nothing was measured");
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  return {
    min: sorted[0]!,
    median: (sorted[Math.ceil(half) - 1]! + sorted[Math.floor(half)]!) / 2,
    max: sorted.at(-1)!,
  };
}

/** The sample that a share of all do not exceed: of 100 samples and 0.99 the second largest. Throws as {@link summarize}. */
export function quantile(samples: readonly number[], share: number): number {
  if (samples.length === 0) throw new RangeError("no samples: nothing was measured");
  return samples.toSorted((a, b) => a - b)[Math.ceil(samples.length * share) - 1]!;
}

/** Collects samples by what they measure, in the order in which the measures first came. */
export class Samples {
  readonly #measures = new Map<string, Measure & { readonly samples: number[] }>();

  /** Adds a sample. */
  add(name: string, unit: Measure["unit"], sample: number): void {
    const measure = this.#measures.get(name) ?? { name, unit, samples: [] };
    this.#measures.set(name, measure);
    measure.samples.push(sample);
  }

  /** All that was measured. */
  get measures(): readonly Measure[] {
    return [...this.#measures.values()];
  }
}

/** Measures as a table, one line each. */
export function formatTable(measures: readonly Measure[]): string {
  const rows = measures.map(({ name, unit, samples }) => {
    const { min, median, max } = summarize(samples);
    return [name, unit, `${samples.length}`, ...[min, median, max].map((n) => n.toFixed(1))];
  });
  return formatColumns([["", "unit", "samples", "minimum", "median", "maximum"], ...rows], {
    firstNumber: 2,
  });
}

/** The machine that a bench ran on. */
export interface Machine {
  /** The number of cores. */
  readonly cores: number;
  /** The processor's name. */
  readonly processor: string;
  /** The kernel's version. */
  readonly kernel: string;
  /** Deno's version. */
  readonly deno: string;
  /** How busy the machine was as the bench began: the mean number of runnable threads of a minute. */
  readonly load: number;
}

/** Looks at the machine. */
export function machine(): Machine {
  const cpuinfo = Deno.readTextFileSync("/proc/cpuinfo");
  return {
    cores: navigator.hardwareConcurrency,
    processor: /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? Deno.build.arch,
    kernel: Deno.osRelease(),
    deno: Deno.version.deno,
    load: Deno.loadavg()[0]!,
  };
}

/** What a bench came to, for people to compare. */
export interface Report {
  /** The bench's name. */
  readonly bench: string;
  /** What it was told, and which programs it ran. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** When it began. */
  readonly at: Date;
  /** The machine that it ran on. */
  readonly machine: Machine;
  /** What it measured. */
  readonly measures: readonly Measure[];
}

/** Writes a report with every sample as JSON; the path of the file. */
export async function writeReport(report: Report): Promise<string> {
  const directory = new URL("./results/", import.meta.url);
  const path = new URL(`${report.bench}.json`, directory);
  const measures = report.measures.map((measure) => ({
    ...measure,
    ...summarize(measure.samples),
  }));
  await Deno.mkdir(directory, { recursive: true });
  await Deno.writeTextFile(path, JSON.stringify({ ...report, measures }, null, 2) + "\n");
  return path.pathname;
}
