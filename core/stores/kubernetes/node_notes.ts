/**
 * What nodes tell each other of the mesh, as Events of theirs: people see them with `kubectl describe node`, and the
 * cluster forgets them after a while. One Event a node, which is written again and again, and none for a node that has
 * nothing to tell. Unlike what is written to nodes, nobody watches it.
 *
 * @module
 */

import * as z from "zod";
import { type Note, NOTE_TTL_MS } from "../../mod.ts";
import type { AnnotationNames } from "./annotations.ts";
import type { KubernetesClient } from "./client.ts";
import { readAs } from "./node_api.ts";
import type { OwnNode } from "./own_node.ts";
import { RefusedError } from "./refusal.ts";

/** Events of what lies in no namespace are in this one. */
const EVENTS = "/api/v1/namespaces/default/events";
/** Creates what is not there (server-side apply); JSON is YAML. */
const APPLY = "application/apply-patch+yaml";
const REASON = { trouble: "PeersInTrouble", none: "PeersAreWell" } as const;
/** How many notes are read with one request. */
const PAGE_NOTES = 200;
/** Without what is for people. */
const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/** How long a name of an Event may be. */
const MAX_NAME = 253;
const SUFFIX = ".denim";

const event = z.object({ reason: z.string().optional() });
const told = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).optional() }),
});
const page = z.object({
  metadata: z.object({ continue: z.string().optional() }).optional(),
  items: z.array(told).nullable(),
});
const stored = z.object({ key: z.string(), until: z.number(), text: z.string() });

/** The notes of a cluster's nodes, of which one is this node's to write. */
export class NodeNotes {
  readonly #own: Pick<OwnNode, "name" | "read">;
  readonly #client: KubernetesClient;
  readonly #names: AnnotationNames;
  /** The node when what is told now was told for the first time, when that was, and how often it was told. */
  #telling: { readonly uid: string; readonly since: string; count: number } | undefined;

  /** Nothing is asked yet. */
  constructor(
    own: Pick<OwnNode, "name" | "read">,
    client: KubernetesClient,
    names: AnnotationNames,
  ) {
    this.#own = own;
    this.#client = client;
    this.#names = names;
  }

  get #path(): string {
    return `${EVENTS}/${encodeURIComponent(this.#name)}`;
  }

  get #name(): string {
    return `${this.#own.name.slice(0, MAX_NAME - SUFFIX.length)}${SUFFIX}`;
  }

  /** Writes this node's note, or says that there is nothing to tell any more. Rejects with a RefusedError. */
  async write(key: string, note: Note | undefined, signal: AbortSignal): Promise<void> {
    if (note === undefined && !await this.#isTelling(signal)) return;
    const now = new Date();
    const at = now.toISOString().replace(/\.\d+Z$/, "Z");
    if (this.#telling === undefined) {
      const node = await this.#own.read(signal);
      if (node === undefined) return;
      this.#telling = { uid: node.uid, since: at, count: 0 };
    }
    const { name } = this.#own, { uid, since } = this.#telling;
    this.#telling.count++;
    const body = {
      apiVersion: "v1",
      kind: "Event",
      metadata: {
        name: this.#name,
        namespace: "default",
        annotations: note === undefined ? {} : {
          [this.#names.note]: JSON.stringify(
            { key, until: now.getTime() + NOTE_TTL_MS, text: note.text } satisfies z.infer<
              typeof stored
            >,
          ),
        },
      },
      involvedObject: { apiVersion: "v1", kind: "Node", name, uid },
      type: note === undefined ? "Normal" : "Warning",
      reason: note === undefined ? REASON.none : REASON.trouble,
      message: note?.summary ?? "the other nodes are well, as far as this one sees",
      source: { component: "denim", host: name },
      firstTimestamp: since,
      lastTimestamp: at,
      count: this.#telling.count,
    };
    await this.#client.request(
      {
        verb: "patch",
        resource: "events",
        optional: true,
        path: `${this.#path}?fieldManager=denim&force=true`,
        accept: "application/json",
        patch: { type: APPLY, body: JSON.stringify(body) },
      },
      async (answer) => void await answer.bytes(),
      signal,
    );
    if (note === undefined) this.#telling = undefined;
  }

  /** Whether this node told something, in this run or the one before. */
  async #isTelling(signal: AbortSignal): Promise<boolean> {
    if (this.#telling !== undefined) return true;
    try {
      const { reason } = await this.#client.request(
        {
          verb: "get",
          resource: "events",
          optional: true,
          path: this.#path,
          accept: "application/json",
        },
        (answer) => readAs(event, answer),
        signal,
      );
      return reason === REASON.trouble;
    } catch (error) {
      if (error instanceof RefusedError && [403, 404].includes(error.status)) return false;
      throw error;
    }
  }

  /**
   * The notes' texts by the keys of the nodes' leases; `undefined` if denim may not read them. All of them: how many
   * nodes find the same decides on what follows.
   */
  async read(signal: AbortSignal): Promise<ReadonlyMap<string, string> | undefined> {
    const notes = new Map<string, string>();
    let next = "";
    do {
      let found: z.infer<typeof page>;
      try {
        found = await this.#page(next, signal);
      } catch (error) {
        if (error instanceof RefusedError && error.status === 403) return undefined;
        throw error;
      }
      for (const { metadata: { annotations = {} } } of found.items ?? []) {
        const note = stored.safeParse(parseJson(annotations[this.#names.note])).data;
        if (note !== undefined && note.until > Date.now()) notes.set(note.key, note.text);
      }
      next = found.metadata?.continue ?? "";
    } while (next !== "");
    return notes;
  }

  async #page(next: string, signal: AbortSignal): Promise<z.infer<typeof page>> {
    const query = new URLSearchParams({
      fieldSelector: `involvedObject.kind=Node,reason=${REASON.trouble}`,
      limit: `${PAGE_NOTES}`,
      continue: next,
    });
    return await this.#client.request(
      {
        verb: "list",
        resource: "events",
        optional: true,
        path: `${EVENTS}?${query}`,
        accept: METADATA_LIST,
      },
      (answer) => readAs(page, answer),
      signal,
    );
  }
}

function parseJson(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}
