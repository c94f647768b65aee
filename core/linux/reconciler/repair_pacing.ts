/**
 * How soon the reconciler repairs what others change. "Repair" means: the kernel differs from the desired state, which
 * is the same as before, so somebody else changed the kernel; the reconciler undoes that.
 *
 * It repairs at once, but more and more slowly what is changed again and again, so that two programs which disagree do
 * not keep each other, and the kernel, busy.
 *
 * @module
 */

/** The reconciler repairs an object so many times in a row at once. */
const FREE_REPAIRS = 10;
/** For each such time without a change, one repair no longer counts. */
const FORGIVE_MS = 2_000;
/** The first wait; each further one is twice as long. */
const MIN_WAIT_MS = 20;
/** The longest wait: when the other program stops, the object is right within a second. */
export const MAX_WAIT_MS = 800;
/** More repairs in a row than this make no wait longer, and need not be forgiven. */
const MAX_REPAIRS = FREE_REPAIRS + Math.ceil(Math.log2(MAX_WAIT_MS / MIN_WAIT_MS));

/** An object that something keeps changing. */
export interface Contest {
  /** The object's key. */
  readonly key: string;
  /** How often it was repaired in a row. */
  readonly repairs: number;
  /** When the first repair was, in milliseconds of the clock that is passed in. */
  readonly sinceMs: number;
}

/** What is remembered of an object that was repaired. */
interface History {
  /** Repairs in a row, less those that no longer count. */
  level: number;
  repairs: number;
  readonly sinceMs: number;
  /** When it was last repaired or, if it is wrong again, found wrong. */
  atMs: number;
  wrong: boolean;
  contested: boolean;
}

/** Decides for each object by itself, by key, when it is repaired. All times are of one clock. */
export class RepairPacing {
  readonly #histories = new Map<string, History>();

  /** How much longer the repair of an object that was found wrong has to wait; 0 if it is due. */
  waitMs(key: string, nowMs: number): number {
    const history = this.#histories.get(key);
    if (history === undefined) return 0;
    if (!history.wrong) {
      history.level = levelAt(history, nowMs);
      history.atMs = nowMs;
      history.wrong = true;
    }
    return Math.max(0, history.atMs + waitMs(history.level) - nowMs);
  }

  /** Notes a repair. Returns the contest if this is the repair after which the object has to wait. */
  repaired(key: string, nowMs: number): Contest | undefined {
    let history = this.#histories.get(key);
    if (history === undefined || !history.wrong && levelAt(history, nowMs) === 0) {
      history = {
        level: 0,
        repairs: 0,
        sinceMs: nowMs,
        atMs: nowMs,
        wrong: true,
        contested: false,
      };
      this.#histories.set(key, history);
    }
    if (!history.wrong) history.level = levelAt(history, nowMs);
    history.level = Math.min(history.level + 1, MAX_REPAIRS);
    history.repairs++;
    history.atMs = nowMs;
    history.wrong = false;
    if (history.contested || waitMs(history.level) === 0) return undefined;
    history.contested = true;
    return { key, repairs: history.repairs, sinceMs: history.sinceMs };
  }

  /** Whether something keeps changing an object; see {@link RepairPacing.removeCalm}. */
  isContested(key: string): boolean {
    return this.#histories.get(key)?.contested ?? false;
  }

  /** Forgets the objects that were left alone for long enough. Returns those of them that were contested. */
  removeCalm(nowMs: number): Contest[] {
    const calm: Contest[] = [];
    for (const [key, history] of this.#histories) {
      if (levelAt(history, nowMs) > 0) continue;
      this.#histories.delete(key);
      if (history.contested) calm.push({ key, repairs: history.repairs, sinceMs: history.sinceMs });
    }
    return calm;
  }
}

/** A level after a time without changes. */
function levelAt({ level, atMs }: History, nowMs: number): number {
  return Math.max(0, level - (nowMs - atMs) / FORGIVE_MS);
}

function waitMs(level: number): number {
  if (level <= FREE_REPAIRS - 1) return 0;
  return Math.min(MIN_WAIT_MS * 2 ** (level - FREE_REPAIRS), MAX_WAIT_MS);
}
