/**
 * Questions whose cost grows with the trouble.
 *
 * @module
 */

import type { Clock } from "@denim/core";

/** After an answer there is a rest of so many times as long as it took … */
const REST = 20;
/** … and at most of this, in milliseconds: whoever looks wants to see trouble within seconds. */
const MAX_REST_MS = 5_000;

/**
 * A question that is asked no more often than it may cost, however often that is called which is returned: during a rest
 * it gives the answer of before, or rejects as before. An answer that comes too late costs as much as any other; one that
 * nobody waits for any more is no answer.
 */
export function sparing<Answer>(
  ask: (signal: AbortSignal) => Promise<Answer>,
  clock: Pick<Clock, "nowMs">,
): (signal: AbortSignal) => Promise<Answer> {
  let last: { readonly answer: Promise<Answer>; readonly untilMs: number } | undefined;
  return async (signal) => {
    const startMs = clock.nowMs();
    if (last !== undefined && startMs < last.untilMs) return await last.answer;
    const answer = ask(signal);
    await answer.catch(() => {});
    const isLeft = signal.aborted && signal.reason?.name !== "TimeoutError";
    const endMs = clock.nowMs();
    const untilMs = endMs + Math.min(REST * (endMs - startMs), MAX_REST_MS);
    if (!isLeft) last = { answer, untilMs };
    return await answer;
  };
}
