/**
 * A stand-in for kube-apiserver where there is none: nodes and pods, lists in JSON and protobuf, watches,
 * patches, tokens and rights, as far as denim and its tests use them. It is not Kubernetes: what matters is shown
 * by tests on the real one. It knows nobody by a certificate.
 *
 * @module
 */

import { type Certificate, Certificates } from "./certificates.ts";
import { CERTIFICATE_NAMES, type KubeServer, type Rule } from "./kube_server.ts";

const ADMIN = "admin-token";
const USER = "system:serviceaccount:kube-denim:denim";

type Json = Readonly<Record<string, unknown>>;

interface Meta {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly annotations: Readonly<Record<string, string>>;
}

interface Thing {
  readonly metadata: Meta;
  readonly spec: Json;
  readonly status: Json;
}

interface Event {
  readonly type: string;
  readonly thing: Thing;
}

/** An answer that is not a success. */
class Failure extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** What is played. */
export class KubeStandIn implements KubeServer {
  readonly kind = "stand-in for kube-apiserver";
  readonly caFile: string;
  readonly client = undefined;
  readonly #certificates: Certificates;
  readonly #tls: Certificate;
  readonly #nodes = new Map<string, Thing>();
  readonly #pods = new Map<string, unknown>();
  /** Events as Kubernetes has them. */
  readonly #told = new Map<string, Json>();
  readonly #tokens = new Set<string>();
  readonly #listeners = new Set<Listener>();
  #rules: readonly Rule[] = [];
  #events: Event[] = [];
  #revision = 100;
  /** Events of revisions up to this one are forgotten. */
  #forgotten = 100;
  #port = 0;
  #server: Deno.HttpServer<Deno.NetAddr> | undefined;

  private constructor(certificates: Certificates) {
    this.#certificates = certificates;
    const ca = certificates.authority("ca");
    this.caFile = ca.cert;
    this.#tls = certificates.issue("server", ca, CERTIFICATE_NAMES);
  }

  /** Starts one. */
  static async launch(): Promise<KubeStandIn> {
    const server = new KubeStandIn(new Certificates());
    await server.start();
    return server;
  }

  get url(): string {
    return `https://127.0.0.1:${this.#port}`;
  }

  start(): Promise<void> {
    // As a watch cache begins with its server, whatever a client has heard of before.
    this.#forgotten = ++this.#revision;
    this.#events = [];
    const { cert, key } = this.#tls;
    this.#server = Deno.serve({
      hostname: "127.0.0.1",
      port: this.#port,
      cert: Deno.readTextFileSync(cert),
      key: Deno.readTextFileSync(key),
      onListen() {},
    }, (request) => this.#serve(request));
    this.#port = this.#server.addr.port;
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    for (const listener of this.#listeners) listener.end();
    this.#listeners.clear();
    await this.#server?.shutdown();
    this.#server = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#certificates[Symbol.dispose]();
  }

  grant(rules: readonly Rule[]): Promise<void> {
    this.#rules = rules;
    return Promise.resolve();
  }

  token(): Promise<string> {
    const token = crypto.randomUUID();
    this.#tokens.add(token);
    return Promise.resolve(token);
  }

  revoke(): Promise<void> {
    this.#tokens.clear();
    return Promise.resolve();
  }

  async admin(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await this.#serve(
      new Request(this.url + path, {
        method,
        headers: { authorization: `Bearer ${ADMIN}` },
        body: body === undefined ? null : JSON.stringify(body),
      }),
    );
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  async #serve(request: Request): Promise<Response> {
    try {
      return await this.#answer(request);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      const { status, message } = error;
      return Response.json({ kind: "Status", message, code: status }, { status });
    }
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const user = this.#userOf(request);
    if (pathname === "/livez") return new Response("ok");
    const parts = pathname.split("/").slice(3);
    const [pods, events] = [parts.indexOf("pods"), parts.indexOf("events")];
    const body: unknown = request.body === null ? undefined : await request.json();
    if (pods >= 0) return this.#servePods(request.method, parts.at(pods + 1), body, user);
    if (events >= 0) {
      return this.#serveEvents(request.method, parts.at(events + 1), body, searchParams, user);
    }
    const [, name, subresource] = parts;
    const resource = subresource === undefined ? "nodes" : `nodes/${subresource}`;
    const watches = searchParams.get("watch") === "true";
    const reads = name === undefined ? "list" : "get";
    const verbs: Readonly<Record<string, string>> = { GET: reads, POST: "create" };
    this.#permit(
      user,
      watches ? "watch" : verbs[request.method] ?? request.method.toLowerCase(),
      resource,
    );
    if (watches) return this.#watch(searchParams);
    if (request.method === "GET" && name === undefined) return this.#list(request, searchParams);
    const now = this.#nodes.get(name ?? "");
    if (request.method === "POST") {
      const { metadata, spec } = body as { metadata: Meta; spec?: Json };
      const uid = crypto.randomUUID();
      const { annotations = {} } = metadata;
      return this.#put("ADDED", {
        metadata: { name: metadata.name, uid, annotations, resourceVersion: "" },
        spec: spec ?? {},
        status: {},
      });
    }
    if (now === undefined) throw new Failure(404, `nodes "${name}" not found`);
    if (request.method === "GET") return Response.json(now);
    if (request.method === "DELETE") {
      this.#nodes.delete(name!);
      return this.#put("DELETED", now);
    }
    return this.#patch(now, body as Partial<Thing>, request.headers.get("content-type") ?? "");
  }

  #userOf(request: Request): string {
    const token = request.headers.get("authorization")?.replace("Bearer ", "");
    if (token === undefined) return "system:anonymous";
    if (token === ADMIN) return "admin";
    if (this.#tokens.has(token)) return USER;
    throw new Failure(401, "Unauthorized");
  }

  #permit(user: string, verb: string, resource: string): void {
    const allowed = user === USER &&
      this.#rules.some((rule) => rule.resource === resource && rule.verbs.includes(verb));
    if (user === "admin" || allowed) return;
    throw new Failure(403, `User "${user}" cannot ${verb} resource "${resource}"`);
  }

  #servePods(method: string, name: string | undefined, body: unknown, user: string): Response {
    this.#permit(user, method === "GET" ? "get" : "create", "pods");
    if (method === "POST") this.#pods.set((body as Thing).metadata.name, body);
    const found = method === "POST" ? body : this.#pods.get(name ?? "");
    if (found === undefined) throw new Failure(404, `pods "${name}" not found`);
    if (method === "DELETE") this.#pods.delete(name!);
    return Response.json(found);
  }

  #serveEvents(
    method: string,
    named: string | undefined,
    body: unknown,
    query: URLSearchParams,
    user: string,
  ): Response {
    const name = method === "POST" ? (body as Thing).metadata.name : named;
    const isNew = name !== undefined && !this.#told.has(name);
    if (method === "GET") this.#permit(user, name === undefined ? "list" : "get", "events");
    else {
      this.#permit(user, "patch", "events");
      if (isNew) this.#permit(user, "create", "events");
      // What is applied is the whole of it, as it has one author.
      this.#told.set(name!, body as Json);
    }
    if (name !== undefined) {
      const found = this.#told.get(decodeURIComponent(name));
      if (found === undefined) throw new Failure(404, `events "${name}" not found`);
      return Response.json(found);
    }
    const reason = /reason=([^,]*)/.exec(query.get("fieldSelector") ?? "")?.[1];
    const items = [...this.#told.values()].filter((one) =>
      reason === undefined || one["reason"] === reason
    );
    const { page, next } = pageOf(items, query);
    return Response.json({ metadata: { continue: next }, items: page });
  }

  #put(type: string, thing: Thing): Response {
    const resourceVersion = `${++this.#revision}`;
    const next = { ...thing, metadata: { ...thing.metadata, resourceVersion } };
    if (type !== "DELETED") this.#nodes.set(next.metadata.name, next);
    const event = { type, thing: next };
    this.#events.push(event);
    for (const listener of this.#listeners) listener.hear(event);
    return Response.json(next);
  }

  #patch(now: Thing, patch: Partial<Thing>, type: string): Response {
    const uid = patch.metadata?.uid;
    if (uid !== undefined && uid !== now.metadata.uid) {
      throw new Failure(
        422,
        `Node "${now.metadata.name}" is invalid: metadata.uid: field is immutable`,
      );
    }
    const annotations = Object.fromEntries(
      Object.entries({ ...now.metadata.annotations, ...patch.metadata?.annotations })
        .filter(([, value]) => value !== null),
    );
    const key = "conditions";
    const kept = (now.status[key] ?? []) as { type: string }[];
    const given = patch.status?.[key] as { type: string }[] | undefined;
    const merged = type.includes("strategic")
      ? [...kept.filter((one) => !given?.some((other) => other.type === one.type)), ...given ?? []]
      : given ?? kept;
    return this.#put("MODIFIED", {
      metadata: { ...now.metadata, annotations },
      spec: { ...now.spec, ...patch.spec },
      status: merged.length === 0 ? now.status : { ...now.status, [key]: merged },
    });
  }

  #list(request: Request, query: URLSearchParams): Response {
    const name = query.get("fieldSelector")?.replace("metadata.name=", "");
    const all = [...this.#nodes.values()].filter(({ metadata }) =>
      name === undefined || metadata.name === name
    );
    const accept = request.headers.get("accept") ?? "";
    if (!accept.includes("protobuf")) return Response.json({ items: all });
    const { page, next } = pageOf(all, query);
    const bytes = encodeList(page, `${this.#revision}`, next, accept.includes("PartialObject"));
    return new Response(bytes as Uint8Array<ArrayBuffer>);
  }

  #watch(query: URLSearchParams): Response {
    const from = Number(query.get("resourceVersion"));
    const name = query.get("fieldSelector")?.replace("metadata.name=", "");
    const wanted = ({ thing }: Event) => name === undefined || thing.metadata.name === name;
    let listener: Listener | undefined;
    const body = new ReadableStream<Uint8Array>({
      start: (stream) => {
        if (from < this.#forgotten) {
          const object = { kind: "Status", code: 410, message: `too old: ${from}` };
          stream.enqueue(encoder.encode(`${JSON.stringify({ type: "ERROR", object })}\n`));
          return stream.close();
        }
        const hear = (event: Event) => wanted(event) && stream.enqueue(lineOf(event));
        for (const event of this.#events) {
          if (Number(event.thing.metadata.resourceVersion) > from) hear(event);
        }
        listener = { hear, end: () => stream.close() };
        this.#listeners.add(listener);
      },
      cancel: () => void (listener && this.#listeners.delete(listener)),
    });
    return new Response(body);
  }
}

/** The part of a list that is asked for, and from where it goes on. */
function pageOf<Item>(
  all: readonly Item[],
  query: URLSearchParams,
): { readonly page: readonly Item[]; readonly next: string } {
  const from = Number(query.get("continue") || 0);
  const to = from + Number(query.get("limit") ?? all.length);
  return { page: all.slice(from, to), next: to < all.length ? `${to}` : "" };
}

/** An open watch. */
interface Listener {
  hear(event: Event): void;
  end(): void;
}

const encoder = new TextEncoder();

function lineOf({ type, thing }: Event): Uint8Array {
  const object = { kind: "PartialObjectMetadata", metadata: thing.metadata };
  return encoder.encode(`${JSON.stringify({ type, object })}\n`);
}

/** A list of nodes as Kubernetes encodes it in protobuf, or of their metadata alone. */
export function encodeList(
  nodes: readonly Thing[],
  resourceVersion: string,
  next: string,
  metadataOnly = false,
): Uint8Array {
  const items = nodes.map(({ metadata, spec }) => {
    const { name, uid, annotations } = metadata;
    const { podCIDR, podCIDRs = [] } = spec as { podCIDR?: string; podCIDRs?: string[] };
    return message(
      [
        1,
        message(
          [1, name],
          [5, uid],
          [7, 3],
          ...Object.entries(annotations).map((
            entry,
          ): Part => [12, message([1, entry[0]], [2, entry[1]])]),
        ),
      ],
      ...metadataOnly ? [] : [
        [2, message([1, podCIDR ?? ""], ...podCIDRs.map((one): Part => [7, one]))] as Part,
        [3, message([1, "something that nobody reads".repeat(10)])] as Part,
      ],
    );
  });
  const list = message(
    [1, message([2, resourceVersion], [3, next])],
    ...items.map((item): Part => [2, item]),
  );
  const type = message([1, "v1"], [2, "NodeList"]);
  const unknown = message([1, type], [2, list], [3, ""], [4, ""]);
  return Uint8Array.of(0x6b, 0x38, 0x73, 0, ...unknown);
}

type Part = readonly [number: number, value: string | number | readonly number[]];

function message(...parts: readonly Part[]): number[] {
  return parts.flatMap(([number, value]) => {
    if (typeof value === "number") return [...varint(number * 8), ...varint(value)];
    const bytes = typeof value === "string" ? [...encoder.encode(value)] : value;
    return [...varint(number * 8 + 2), ...varint(bytes.length), ...bytes];
  });
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...varint(Math.floor(value / 128))];
}
