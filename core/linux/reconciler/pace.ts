/**
 * How soon what others change is put right: at once, but more and more slowly what they change again and
 * again, so that two programs which disagree do not keep each other, and the kernel, busy.
 *
 * @module
 */

/** So many times in a row an object is put right at once … */
const FREE_MENDS = 10;
/** … of which one is forgiven for each such time that it was left as it should be. */
const FORGIVE_MS = 2_000;
/** After that it waits: at first this long, then each time twice as long … */
const MIN_WAIT_MS = 20;
/** … but no longer than this, so that what stops is mended within a second. */
const MAX_WAIT_MS = 800;
/** More mends in a row than this make no wait longer, and need not be forgiven. */
const MAX_MENDS = FREE_MENDS + Math.ceil(Math.log2(MAX_WAIT_MS / MIN_WAIT_MS));

/** An object that others keep changing. */
export interface Restless {
  /** Its key. */
  readonly key: string;
  /** How often it was put right, one after the other. */
  readonly mends: number;
  /** Since when, in milliseconds of the clock that is passed in. */
  readonly sinceMs: number;
}

/** What is known of an object that was put right. */
interface Record {
  /** Mends in a row, less those that were forgiven. */
  level: number;
  mends: number;
  readonly sinceMs: number;
  /** When it was last put right, or, where it is wrong again, found so. */
  atMs: number;
  wrong: boolean;
  restless: boolean;
}

/** Decides for each object by itself, by key, when it is put right. Times are of any one clock. */
export class Pace {
  readonly #records = new Map<string, Record>();

  /** How much longer an object that was found other than it should be has to wait; 0 when its time has come. */
  waitMs(key: string, nowMs: number): number {
    const record = this.#records.get(key);
    if (record === undefined) return 0;
    if (!record.wrong) {
      record.level = levelAt(record, nowMs);
      record.atMs = nowMs;
      record.wrong = true;
    }
    return Math.max(0, record.atMs + waitMs(record.level) - nowMs);
  }

  /** Notes that an object was put right. Where it is the mend after which it has to wait, tells so. */
  mended(key: string, nowMs: number): Restless | undefined {
    let record = this.#records.get(key);
    if (record === undefined || !record.wrong && levelAt(record, nowMs) === 0) {
      record = { level: 0, mends: 0, sinceMs: nowMs, atMs: nowMs, wrong: true, restless: false };
      this.#records.set(key, record);
    }
    if (!record.wrong) record.level = levelAt(record, nowMs);
    record.level = Math.min(record.level + 1, MAX_MENDS);
    record.mends++;
    record.atMs = nowMs;
    record.wrong = false;
    if (record.restless || waitMs(record.level) === 0) return undefined;
    record.restless = true;
    return { key, mends: record.mends, sinceMs: record.sinceMs };
  }

  /** Whether others keep changing an object; see {@link Pace.forget}. */
  isRestless(key: string): boolean {
    return this.#records.get(key)?.restless ?? false;
  }

  /** Forgets the objects that were left alone for long enough, and tells which of them were restless. */
  forget(nowMs: number): Restless[] {
    const calm: Restless[] = [];
    for (const [key, record] of this.#records) {
      if (levelAt(record, nowMs) > 0) continue;
      this.#records.delete(key);
      if (record.restless) calm.push({ key, mends: record.mends, sinceMs: record.sinceMs });
    }
    return calm;
  }
}

/** A level after a time of being left alone. */
function levelAt({ level, atMs }: Record, nowMs: number): number {
  return Math.max(0, level - (nowMs - atMs) / FORGIVE_MS);
}

function waitMs(level: number): number {
  if (level <= FREE_MENDS - 1) return 0;
  return Math.min(MIN_WAIT_MS * 2 ** (level - FREE_MENDS), MAX_WAIT_MS);
}
