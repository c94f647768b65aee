/**
 * What the page shows, kept up to date while somebody looks: everything once, then each second what is different. All who
 * look share the work of one, and while nobody does there is none.
 *
 * @module
 */

import { type Clock, messageOf, type Sample, throwDefect } from "@denim/core";
import type { MeshReport } from "../mesh/mesh_report.ts";
import type { ProbedHalf } from "../mesh/prober.ts";
import type { ListedPeer } from "../peer_list.ts";
import type { NodeView } from "../status_routes.ts";
import type { StatusReport } from "../status_report.ts";
import type { DeviceCounters } from "./device_counters.ts";

/** How often the page hears what is different, and the store is asked what other nodes find, in milliseconds. */
const TICK_MS = 1000;
/** How long the store may take to tell of the mesh, in milliseconds. */
const MESH_TIMEOUT_MS = 5_000;
/** So many may look at the same time: each costs a copy of what is sent. */
const MAX_FOLLOWERS = 32;
/** Who has not read for so many ticks is sent away; a browser comes again by itself. */
const MAX_UNREAD = 30;

/** A half of a peer's health, in an order that saves names: `null` if it is not probed. */
export type HealthRow =
  | readonly [
    health: string,
    /** In milliseconds since 1970. */
    sinceMs: number,
    roundTripMs: number | null,
    /** From 0 to 1. */
    loss: number | null,
    pathMtuBytes: number | null,
  ]
  | null;

/** A peer, in an order that saves names: there may be thousands. */
export type PeerRow = readonly [
  /** Of its lease. */
  key: string,
  /** The type of the backend that reaches it. */
  backend: string,
  /** When it came or was changed, in milliseconds since 1970. */
  changedAtMs: number,
  halves: readonly (readonly [
    subnet: string,
    publicIp: string,
    device: string | null,
    isDirect: boolean,
  ])[],
  healths: readonly HealthRow[],
];

/** One message to the page. What a message leaves out is as it was. */
export interface PageNews {
  /** The agent's time, in milliseconds since 1970. */
  readonly atMs: number;
  /** Set in the first message: what the page knows from before is void. */
  readonly isAll?: true;
  /** This node, and what it said lately. */
  readonly status?: StatusReport;
  /** The key of this node's lease; `null` before it has one. */
  readonly own?: string | null;
  /** What all nodes together find wrong; `error` says why the store does not tell. */
  readonly mesh?: { readonly report: MeshReport | null; readonly error: string | null };
  /** What devices counted, of those that packets to other nodes pass. */
  readonly devices?: readonly DeviceCounters[];
  /** What is counted: name, labels and meaning of each. */
  readonly counters?: readonly (readonly [
    name: string,
    labels: Readonly<Record<string, string>>,
    help: string,
  ])[];
  /** The numbers of `counters`, in their order. */
  readonly values?: readonly number[];
  /** Peers that are new, or reached otherwise. */
  readonly peers?: readonly PeerRow[];
  /** Healths of peers that are there. */
  readonly healths?: readonly (readonly [key: string, healths: readonly HealthRow[]])[];
  /** Peers that are gone. */
  readonly gone?: readonly string[];
}

/** What the page is made from. */
export interface PageSources {
  /** This node, as `/status` has it. */
  readonly status: () => StatusReport;
  /** The node; `undefined` before there is one. */
  readonly node: () => Pick<NodeView, "lease" | "peers" | "health" | "mesh"> | undefined;
  /** What is counted. */
  readonly samples: () => readonly Sample[];
  /** What devices counted. */
  readonly devices: () => readonly DeviceCounters[];
  /** By which it waits. */
  readonly clock: Clock;
}

/** The parts of the news that are sent as a whole. */
type Parts = Omit<PageNews, "atMs" | "isAll" | "peers" | "healths" | "gone">;

const encoder = new TextEncoder();

/** Sends news to pages, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export class PageFeed implements Disposable {
  readonly #sources: PageSources;
  readonly #followers = new Set<ReadableStreamDefaultController<Uint8Array>>();
  readonly #parts = new Map<keyof Parts, { readonly text: string; readonly value: unknown }>();
  /** Peers as they were sent last. */
  readonly #peers = new Map<string, PeerRow>();
  #mesh: NonNullable<PageNews["mesh"]> = { report: null, error: null };
  #running: AbortController | undefined;
  #isOver = false;

  /** Looks at nothing before somebody follows. */
  constructor(sources: PageSources) {
    this.#sources = sources;
  }

  /** How many look now. */
  get followers(): number {
    return this.#followers.size;
  }

  /** A stream of events: everything, and then what is different. 503 if too many follow. */
  follow(): Response {
    if (this.#isOver || this.#followers.size >= MAX_FOLLOWERS) {
      return new Response(`${this.#followers.size} pages look already; close one`, { status: 503 });
    }
    let own: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        own = controller;
        this.#start();
        controller.enqueue(eventOf(this.#all()));
        this.#followers.add(controller);
      },
      cancel: () => this.#leave(own),
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  /** Ends all streams. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    for (const follower of [...this.#followers]) this.#end(follower);
  }

  #end(follower: ReadableStreamDefaultController<Uint8Array>): void {
    follower.close();
    this.#leave(follower);
  }

  #leave(follower: ReadableStreamDefaultController<Uint8Array>): void {
    this.#followers.delete(follower);
    if (this.#followers.size > 0) return;
    this.#running?.abort();
    this.#running = undefined;
    this.#parts.clear();
    this.#peers.clear();
  }

  #start(): void {
    if (this.#running !== undefined) return;
    this.#news();
    const running = this.#running = new AbortController();
    // A defect in it is left uncaught, which ends the process as any other does.
    void this.#run(running.signal);
  }

  async #run(signal: AbortSignal): Promise<void> {
    let isAsking = false;
    for (;;) {
      if (!isAsking) {
        isAsking = true;
        void this.#askMesh(signal).finally(() => isAsking = false);
      }
      if (!await this.#sources.clock.sleep(TICK_MS, signal)) return;
      const event = eventOf(this.#news());
      for (const follower of [...this.#followers]) {
        if (follower.desiredSize! < -MAX_UNREAD) this.#end(follower);
        else follower.enqueue(event);
      }
    }
  }

  async #askMesh(signal: AbortSignal): Promise<void> {
    const node = this.#sources.node();
    if (node === undefined) return;
    try {
      const limits = AbortSignal.any([signal, AbortSignal.timeout(MESH_TIMEOUT_MS)]);
      this.#mesh = { report: await node.mesh(limits), error: null };
    } catch (error) {
      throwDefect(error);
      if (!signal.aborted) this.#mesh = { ...this.#mesh, error: messageOf(error) };
    }
  }

  /** Everything, as it was sent last. */
  #all(): PageNews {
    return {
      atMs: Date.now(),
      isAll: true,
      ...Object.fromEntries([...this.#parts].map(([name, { value }]) => [name, value])),
      peers: [...this.#peers.values()],
    };
  }

  /** What is different from what was sent last. */
  #news(): PageNews {
    const { status, node, samples, devices } = this.#sources;
    const counted = samples().filter(({ type, value }) =>
      type !== "histogram" && !Number.isNaN(value)
    );
    const parts: Parts = {
      status: status(),
      own: node()?.lease?.key ?? null,
      mesh: this.#mesh,
      devices: devices(),
      counters: counted.map(({ name, labels, help }) => [name, labels, help] as const),
      values: counted.map(({ value }) => value),
    };
    const news = Object.entries(parts).filter(([name, value]) => {
      const text = JSON.stringify(value);
      if (this.#parts.get(name as keyof Parts)?.text === text) return false;
      this.#parts.set(name as keyof Parts, { text, value });
      return true;
    });
    return { atMs: Date.now(), ...Object.fromEntries(news), ...this.#peerNews() };
  }

  #peerNews(): Pick<PageNews, "peers" | "healths" | "gone"> {
    const node = this.#sources.node();
    const peers: PeerRow[] = [], gone: string[] = [];
    const healths: [string, readonly HealthRow[]][] = [];
    for (const listed of node?.peers ?? []) {
      const { key } = listed;
      const sent = this.#peers.get(key);
      const probed = node!.health(key);
      const isListed = sent?.[2] === listed.changedAtMs;
      if (isListed && isSame(sent[4], probed)) continue;
      const row = peerRow(listed, probed.map(healthRow));
      this.#peers.set(key, row);
      if (isListed) healths.push([key, row[4]]);
      else peers.push(row);
    }
    // All that are there were sent.
    if (this.#peers.size !== (node?.peers.size ?? 0)) {
      for (const key of this.#peers.keys()) {
        if (node?.peers.get(key) !== undefined) continue;
        gone.push(key);
        this.#peers.delete(key);
      }
    }
    return {
      ...peers.length > 0 && { peers },
      ...healths.length > 0 && { healths },
      ...gone.length > 0 && { gone },
    };
  }
}

function peerRow({ key, way, changedAtMs, halves }: ListedPeer, healths: PeerRow[4]): PeerRow {
  return [
    key,
    way.backend,
    changedAtMs,
    halves.map(({ subnet, publicIp, device, isDirect }) =>
      [`${subnet}`, `${publicIp}`, device ?? null, isDirect] as const
    ),
    healths,
  ];
}

function healthRow(half: ProbedHalf | undefined): HealthRow {
  return half === undefined ? null : [
    half.health,
    half.sinceMs,
    rounded(half.roundTripMs),
    rounded(half.loss),
    half.pathMtuBytes ?? null,
  ];
}

/** To what one sees: a hundredth. */
function rounded(value: number | undefined): number | null {
  return value === undefined ? null : Math.round(value * 100) / 100;
}

/** Whether a peer is as it was sent. It makes nothing, since it is asked of each peer in each tick. */
function isSame(sent: readonly HealthRow[], probed: readonly (ProbedHalf | undefined)[]): boolean {
  if (sent.length !== probed.length) return false;
  for (let index = 0; index < sent.length; index++) {
    const [row, half] = [sent[index]!, probed[index]];
    if (row === null || half === undefined) {
      if (row !== null || half !== undefined) return false;
      continue;
    }
    const isSame = row[0] === half.health && row[1] === half.sinceMs &&
      row[2] === rounded(half.roundTripMs) && row[3] === rounded(half.loss) &&
      row[4] === (half.pathMtuBytes ?? null);
    if (!isSame) return false;
  }
  return true;
}

function eventOf(news: PageNews): Uint8Array {
  return encoder.encode(`data: ${JSON.stringify(news)}\n\n`);
}
