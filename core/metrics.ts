/**
 * Where denim's parts count what they do. A seam beside the logger: a part is given a {@link Metrics} and
 * neither knows nor cares who reads the numbers.
 *
 * @module
 */

/** What tells apart the series of one metric: few values each, never a peer or a pod. */
export type Labels = Readonly<Record<string, string>>;

/** A number that only grows. */
export interface Counter {
  /** Adds to it; 1 unless given. */
  add(amount?: number): void;
}

/** Counts how values are distributed: how many were at most as large as each of some bounds. */
export interface Histogram {
  /** Takes one value, in the metric's unit. */
  observe(value: number): void;
}

/**
 * Takes metrics. Names follow Prometheus's conventions: `denim_<part>_<what>_<unit>`, counters end in `_total`.
 * Asking twice for the same name and labels gives the same counter.
 */
export interface Metrics {
  /**
   * A counter.
   *
   * @param help one sentence that says what is counted
   */
  counter(name: string, help: string, labels?: Labels): Counter;
  /**
   * A counter whose number somebody else keeps, as threads do in shared memory; read when somebody asks. A later one of
   * the same name and labels takes the place of an earlier one, and may start from 0.
   *
   * @param help one sentence that says what is counted
   */
  observedCounter(name: string, help: string, read: () => number, labels?: Labels): void;
  /**
   * A number that goes up and down, read when somebody asks. A later gauge of the same name and labels takes
   * the place of an earlier one.
   *
   * @param help one sentence that says what is measured, and in which unit
   */
  gauge(name: string, help: string, read: () => number, labels?: Labels): void;
  /**
   * A distribution of values.
   *
   * @param help one sentence that says what is measured, and in which unit
   * @param bounds the buckets' upper bounds, each included, in rising order
   */
  histogram(name: string, help: string, bounds: readonly number[], labels?: Labels): Histogram;
}

/** One series of a metric, as it is now. */
export interface Sample {
  /** The metric's name. */
  readonly name: string;
  /** What the metric says. */
  readonly help: string;
  /** How the value behaves. */
  readonly type: "counter" | "gauge" | "histogram";
  /** What tells this series from others of the same metric. */
  readonly labels: Labels;
  /** The value; of a histogram the sum of all values. */
  readonly value: number;
  /** A histogram's buckets: for each upper bound how many values were at most as large; the last bound is Infinity. */
  readonly buckets?: readonly (readonly [bound: number, count: number])[];
}

/** A series, and what hands out its value. */
interface Series extends Omit<Sample, "value" | "buckets"> {
  read(): number;
  readonly counter?: Counter;
  readonly histogram?: BucketHistogram;
}

class BucketHistogram implements Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = [...bounds, Infinity];
    this.#counts = this.#bounds.map(() => 0);
  }

  get sum(): number {
    return this.#sum;
  }

  observe(value: number): void {
    this.#sum += value;
    let bucket = 0;
    while (value > this.#bounds[bucket]!) bucket++;
    this.#counts[bucket]!++;
  }

  buckets(): (readonly [number, number])[] {
    let total = 0;
    return this.#bounds.map((bound, index) => [bound, total += this.#counts[index]!]);
  }
}

/** Keeps metrics of one process. */
export class MetricsRegistry implements Metrics {
  readonly #series = new Map<string, Series>();

  /** See {@link Metrics.counter}. */
  counter(name: string, help: string, labels: Labels = {}): Counter {
    const key = seriesKey(name, labels);
    const known = this.#series.get(key)?.counter;
    if (known !== undefined) return known;
    let value = 0;
    const counter: Counter = { add: (amount = 1) => void (value += amount) };
    this.#series.set(key, { name, help, type: "counter", labels, read: () => value, counter });
    return counter;
  }

  /** See {@link Metrics.observedCounter}. */
  observedCounter(name: string, help: string, read: () => number, labels: Labels = {}): void {
    this.#series.set(seriesKey(name, labels), { name, help, type: "counter", labels, read });
  }

  /** See {@link Metrics.gauge}. */
  gauge(name: string, help: string, read: () => number, labels: Labels = {}): void {
    this.#series.set(seriesKey(name, labels), { name, help, type: "gauge", labels, read });
  }

  /** See {@link Metrics.histogram}. */
  histogram(
    name: string,
    help: string,
    bounds: readonly number[],
    labels: Labels = {},
  ): Histogram {
    const key = seriesKey(name, labels);
    const known = this.#series.get(key)?.histogram;
    if (known !== undefined) return known;
    const histogram = new BucketHistogram(bounds);
    const read = () => histogram.sum;
    this.#series.set(key, { name, help, type: "histogram", labels, read, histogram });
    return histogram;
  }

  /** Every series, in the order in which they were first asked for. */
  samples(): Sample[] {
    return [...this.#series.values()].map(({ name, help, type, labels, read, histogram }) => ({
      name,
      help,
      type,
      labels,
      value: read(),
      ...histogram && { buckets: histogram.buckets() },
    }));
  }

  /** The value of one series; `undefined` if nobody has asked for it. */
  value(name: string, labels: Labels = {}): number | undefined {
    return this.#series.get(seriesKey(name, labels))?.read();
  }
}

/** For parts that are used without anybody who reads their metrics, as in tests and commands. */
export const NO_METRICS: Metrics = {
  counter: () => ({ add() {} }),
  observedCounter() {},
  gauge() {},
  histogram: () => ({ observe() {} }),
};

function seriesKey(name: string, labels: Labels): string {
  return JSON.stringify([name, ...Object.entries(labels).sort(([a], [b]) => a < b ? -1 : 1)]);
}
