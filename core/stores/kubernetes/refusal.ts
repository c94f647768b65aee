/**
 * What the API server says when it does not do what it is asked to.
 *
 * @module
 */

import * as z from "zod";
import { RuntimeError } from "../../mod.ts";

/** What is asked of the API server, as its authorization names it. */
export interface Right {
  /** `get`, `list`, `watch` or `patch`. */
  readonly verb: string;
  /** `nodes`, `nodes/status`, `events` or `pods`. */
  readonly resource: string;
}

/** The API server answers, and refuses. */
export class RefusedError extends RuntimeError {
  /** HTTP's status. */
  readonly status: number;

  /** A refusal with this status. */
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const body = z.object({ message: z.string() });

/** How much of an answer that is not Kubernetes' is shown, in characters. */
const SHOWN = 120;

/** What a refusal means to a person. Its body is a `Status` in JSON, or, under load and from proxies, anything. */
export function explainRefusal(status: number, content: Uint8Array, right: Right): string {
  const text = new TextDecoder().decode(content);
  const said = messageIn(text) ?? (text.trim().slice(0, SHOWN) || `HTTP status ${status}`);
  if (status === 401) {
    return "it does not know who this is: the token or the certificate is no longer valid, or never was";
  }
  if (status !== 403) return said;
  const user = /User "([^"]*)"/.exec(said)?.[1];
  if (user === "system:anonymous") {
    return "it lets nobody in without a token or a certificate, and there is none";
  }
  const { verb, resource } = right;
  return `${
    user === undefined ? "this user" : `user ${user}`
  } may not ${verb} ${resource}: the ClusterRole ` +
    `that is bound to it needs - {apiGroups: [""], resources: [${resource}], verbs: [${verb}]}`;
}

function messageIn(text: string): string | undefined {
  try {
    return body.safeParse(JSON.parse(text)).data?.message;
  } catch {
    return undefined;
  }
}

/** How long a refusal asks to be left alone, in milliseconds; `undefined` if it does not say. */
export function retryAfterMs(headers: Headers): number | undefined {
  const seconds = Number(headers.get("retry-after") ?? NaN);
  return seconds >= 0 ? seconds * 1000 : undefined;
}
