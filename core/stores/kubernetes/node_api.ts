/**
 * The requests that denim makes of the API server. ClusterRole: `nodes: list, watch` and `nodes/status: patch`;
 * `pods: get` only to find the node by its pod.
 *
 * @module
 */

import * as z from "zod";
import { ConfigError, RuntimeError, sleep, throwUnlessAborted } from "../../mod.ts";
import type { AnnotationNames, Annotations, NodeRecord } from "./annotations.ts";
import type { KubernetesClient } from "./client.ts";
import type { Answer } from "./connection.ts";
import { type NodePage, readNodePage } from "./node_list.ts";
import { RefusedError } from "./refusal.ts";
import { TransportError } from "./transport.ts";

/** How many nodes are read with one request: the fewer, the less memory; from here on down it only takes longer. */
const PAGE_NODES = 100;
/** The same for their metadata alone, which is a quarter of a node. */
const PAGE_METADATA = 500;
/** A watch is ended by the server after this many seconds … */
const MIN_WATCH_S = 300;
/** … to this many, by chance, so that not all are begun again at once. */
const MAX_WATCH_S = 600;
/**
 * Without a line for so long a watch is taken for one that will never have any. A server sends a bookmark each
 * minute, but none to a watch from a future that it lost, as with an etcd put back from a copy.
 */
const MAX_SILENCE_MS = 180_000;

/** News of a watch that follow one another sooner than this wait so long, to be read together. */
const GATHER_MS = 50;

/** How much of an answer that is not Kubernetes' is shown, in characters. */
const SHOWN = 120;

const PROTOBUF = "application/vnd.kubernetes.protobuf";
const METADATA = "as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const STRATEGIC_MERGE = "application/strategic-merge-patch+json";
const NODES = "/api/v1/nodes";

/** Nodes at one moment. */
export interface NodeList {
  /** The nodes; without podCIDRs in a list of metadata. */
  readonly nodes: readonly NodeRecord[];
  /** The state of the store that the list shows; a watch goes on from it. */
  readonly resourceVersion: string;
}

/** What happened to a node; its podCIDRs are not told. */
export interface NodeEvent {
  /** Whether it is there, or is no longer. */
  readonly present: boolean;
  /** The node as it is, or was at last. */
  readonly node: NodeRecord;
}

/** What a watch tells at one time. */
export interface NodeEvents {
  /** What happened, in its order. */
  readonly events: readonly NodeEvent[];
  /** The state of the store after it. */
  readonly resourceVersion: string;
}

/** A watch can't go on from where it was: the server no longer has what happened since, or never had. */
export class HistoryGoneError extends RuntimeError {}

/** A condition of a node, as `status.conditions` has it. */
export interface Condition {
  readonly type: string;
  readonly status: "True" | "False" | "Unknown";
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
  /** When it was last seen, and when it last changed; RFC 3339, to the second. */
  readonly lastHeartbeatTime?: string | null | undefined;
  readonly lastTransitionTime?: string | null | undefined;
}

/** What to change of a node. */
export interface NodePatch {
  /** The node that is meant: another of the same name is left alone. */
  readonly uid: string;
  /** Annotations' new values; `null` takes one away. */
  readonly annotations?: Readonly<Record<string, string | null>>;
  /** Conditions to set; those of other types stay. */
  readonly conditions?: readonly Condition[];
}

const metadata = z.object({
  name: z.string(),
  uid: z.string(),
  resourceVersion: z.string(),
  annotations: z.record(z.string(), z.string()).optional(),
});
const bookmark = z.object({ metadata: metadata.pick({ resourceVersion: true }) });
const partial = z.object({ metadata });
const failure = z.object({ code: z.number().optional(), message: z.string().optional() });
const watchLine = z.discriminatedUnion("type", [
  z.object({ type: z.enum(["ADDED", "MODIFIED", "DELETED"]), object: partial }),
  z.object({ type: z.literal("BOOKMARK"), object: bookmark }),
  z.object({ type: z.literal("ERROR"), object: failure }),
]);
const condition = z.object({
  type: z.string(),
  status: z.enum(["True", "False", "Unknown"]),
  reason: z.string().optional(),
  message: z.string().optional(),
  lastHeartbeatTime: z.string().nullish(),
  lastTransitionTime: z.string().nullish(),
});
const conditionsOfNodes = z.object({
  items: z.array(z.object({ status: z.object({ conditions: z.array(condition).optional() }) })),
});
const pod = z.object({ spec: z.object({ nodeName: z.string().optional() }) });

/** The nodes' API. Each call waits as {@link KubernetesClient.request} does. */
export class NodeApi {
  readonly #client: KubernetesClient;
  readonly #names: AnnotationNames;

  /** Of a cluster, for annotations of these names. */
  constructor(client: KubernetesClient, names: AnnotationNames) {
    this.#client = client;
    this.#names = names;
  }

  /** All nodes. */
  async list(signal: AbortSignal): Promise<NodeList> {
    return await this.#list(PROTOBUF, PAGE_NODES, signal);
  }

  /** All nodes without their podCIDRs: a quarter of the bytes, and of the server's work. */
  async listMetadata(signal: AbortSignal): Promise<NodeList> {
    return await this.#list(`${PROTOBUF};${METADATA_LIST}`, PAGE_METADATA, signal);
  }

  async #list(accept: string, limit: number, signal: AbortSignal): Promise<NodeList> {
    const nodes: NodeRecord[] = [];
    let next = "";
    for (;;) {
      let page: NodePage;
      try {
        page = await this.#page(accept, { limit: `${limit}`, continue: next }, signal);
      } catch (error) {
        // The list's state is compacted between two pages: a new list has a new one.
        if (!(error instanceof RefusedError && error.status === 410) || next === "") throw error;
        nodes.length = 0;
        next = "";
        continue;
      }
      nodes.push(...page.nodes);
      next = page.next;
      if (next === "") return { nodes, resourceVersion: page.resourceVersion };
    }
  }

  /**
   * One node; `undefined` if there is none of that name. Not older than `resourceVersion`, with which the server
   * need not ask etcd; as of now without it.
   */
  async read(
    name: string,
    resourceVersion: string | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly node: NodeRecord | undefined; readonly resourceVersion: string }> {
    const query = {
      fieldSelector: `metadata.name=${name}`,
      ...resourceVersion === undefined
        ? {}
        : { resourceVersion, resourceVersionMatch: "NotOlderThan" },
    };
    try {
      const page = await this.#page(PROTOBUF, query, signal);
      return { node: page.nodes[0], resourceVersion: page.resourceVersion };
    } catch (error) {
      // A server that is behind, or whose store was put back from a copy.
      if (!(error instanceof RefusedError && error.status === 504)) throw error;
      return await this.read(name, undefined, signal);
    }
  }

  async #page(
    accept: string,
    query: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<NodePage> {
    return await this.#client.request(
      { verb: "list", resource: "nodes", path: `${NODES}?${new URLSearchParams(query)}`, accept },
      async (answer) => readNodePage(await answer.bytes(), this.#names),
      signal,
    );
  }

  /**
   * What happens to nodes, or to one of them, from a state of the store on; each time a list of what has come in.
   * Ends when the server ends it. Throws a HistoryGoneError, or a TransportError if it breaks off.
   */
  async *watch(
    from: { readonly resourceVersion: string; readonly name?: string },
    signal: AbortSignal,
  ): AsyncGenerator<NodeEvents, void, void> {
    const seconds = MIN_WATCH_S + Math.floor(Math.random() * (MAX_WATCH_S - MIN_WATCH_S));
    const query = new URLSearchParams({
      watch: "true",
      allowWatchBookmarks: "true",
      resourceVersion: from.resourceVersion,
      timeoutSeconds: `${seconds}`,
      ...from.name === undefined ? {} : { fieldSelector: `metadata.name=${from.name}` },
    });
    const call = {
      verb: "watch",
      resource: "nodes",
      path: `${NODES}?${query}`,
      accept: `application/json;${METADATA}`,
    };
    const late = new AbortController();
    const ending = AbortSignal.any([signal, late.signal]);
    const expect = () => setTimeout(() => late.abort(), MAX_SILENCE_MS);
    using answer = await this.#client.request(call, (own) => Promise.resolve(own.move()), ending);
    let timer = expect();
    try {
      for await (const lines of linesOf(answer.chunks, ending)) {
        clearTimeout(timer);
        timer = expect();
        const news = this.#readLines(lines);
        if (news !== undefined) yield news;
      }
    } catch (error) {
      throwUnlessAborted(error, late.signal);
      throw new HistoryGoneError("the watch tells nothing any more", { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Throws if one of the lines is an error, without those before it: they come again with the next list. */
  #readLines(lines: readonly string[]): NodeEvents | undefined {
    const events: NodeEvent[] = [];
    let resourceVersion: string | undefined;
    for (const line of lines) {
      const { type, object } = parseAs(watchLine, line);
      if (type === "ERROR") {
        const { code, message } = object;
        // In the stream, behind an HTTP status of 200.
        if (code === 410) throw new HistoryGoneError(`${message}`);
        throw new TransportError(`it ends the watch: ${message}`);
      }
      if (type === "BOOKMARK") {
        resourceVersion = object.metadata.resourceVersion;
        continue;
      }
      const { metadata: { name, uid, annotations = {}, ...meta } } = object;
      resourceVersion = meta.resourceVersion;
      const node = { name, uid, podCidrs: [], annotations: this.#pick(annotations) };
      events.push({ present: type !== "DELETED", node });
    }
    return resourceVersion === undefined ? undefined : { events, resourceVersion };
  }

  /** Changes a node, and tells its annotations then; `undefined` if the node is gone, or another has its name. */
  async patch(
    name: string,
    { uid, annotations, conditions }: NodePatch,
    signal: AbortSignal,
  ): Promise<Annotations | undefined> {
    const body = JSON.stringify({ metadata: { uid, annotations }, status: { conditions } });
    try {
      return await this.#client.request(
        {
          verb: "patch",
          resource: "nodes/status",
          path: `${NODES}/${encodeURIComponent(name)}/status?fieldManager=denim`,
          accept: `application/json;${METADATA}`,
          patch: { type: STRATEGIC_MERGE, body },
        },
        async (answer) => this.#pick((await readAs(partial, answer)).metadata.annotations ?? {}),
        signal,
      );
    } catch (error) {
      // The uid is a guard: it can't be changed.
      const { status = 0, message = "" } = error instanceof RefusedError ? error : {};
      if (status === 404 || status === 422 && message.includes("metadata.uid")) return undefined;
      throw error;
    }
  }

  /** A node's conditions; none if there is no such node. */
  async conditions(name: string, signal: AbortSignal): Promise<readonly Condition[]> {
    const query = new URLSearchParams({ fieldSelector: `metadata.name=${name}` });
    const { items } = await this.#client.request(
      { verb: "list", resource: "nodes", path: `${NODES}?${query}`, accept: "application/json" },
      (answer) => readAs(conditionsOfNodes, answer),
      signal,
    );
    return items[0]?.status.conditions ?? [];
  }

  /** The name of the node that a pod runs on. Rejects with a ConfigError if there is no such pod. */
  async nodeOfPod(namespace: string, name: string, signal: AbortSignal): Promise<string> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${
      encodeURIComponent(name)
    }`;
    const missing = (what: string) =>
      new ConfigError(
        `${what} ${namespace}/${name}, as POD_NAMESPACE and POD_NAME have it: set NODE_NAME from the ` +
          "pod's spec.nodeName",
      );
    try {
      const { spec } = await this.#client.request(
        { verb: "get", resource: "pods", path, accept: "application/json" },
        (answer) => readAs(pod, answer),
        signal,
      );
      if (spec.nodeName !== undefined) return spec.nodeName;
    } catch (error) {
      if (!(error instanceof RefusedError && error.status === 404)) throw error;
      throw missing("there is no pod");
    }
    throw missing("no node is said of the pod");
  }

  #pick(annotations: Readonly<Record<string, string>>): Annotations {
    return this.#names.pick(Object.entries(annotations));
  }
}

/** Reads an answer in JSON. Rejects with a RuntimeError if it has not this shape. */
export async function readAs<Output>(schema: z.ZodType<Output>, answer: Answer): Promise<Output> {
  return parseAs(schema, new TextDecoder().decode(await answer.bytes()));
}

function parseAs<Output>(schema: z.ZodType<Output>, text: string): Output {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    // From a server that is something else, or a proxy before it.
    throw new RuntimeError(
      `the API server's answer is not Kubernetes': ${JSON.stringify(text.slice(0, SHOWN))}`,
      { cause: error },
    );
  }
}

/**
 * The lines that have come in, each time as many as are whole. Those that follow soon are read together: to be woken
 * for each costs more than to read it.
 */
async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<readonly string[], void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  let readAtMs = -Infinity;
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    if (lines.length > 0) yield lines.filter((line) => line !== "");
    const nowMs = performance.now();
    // After a quiet time the next one is read at once.
    if (nowMs - readAtMs < GATHER_MS) await sleep(GATHER_MS, signal);
    readAtMs = nowMs;
  }
}
