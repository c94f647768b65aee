/**
 * The page, and what it asks. It shows what the API tells and changes nothing; the doctor, which it may ask, does not
 * either.
 *
 * @module
 */

import { type IpAddress, SYSTEM_CLOCK } from "@denim/core";
import { denimProgram } from "../program.ts";
import type { Route, Routes } from "../status_server.ts";
import { type AgentState, statusReport } from "../status_routes.ts";
import { readDeviceCounters } from "./device_counters.ts";
import { DoctorVisit } from "./doctor_visit.ts";
import icon from "./icon.svg" with { type: "text" };
import style from "./page.css" with { type: "text" };
import page from "./page.html" with { type: "text" };
import script from "./page.js" with { type: "text" };
import { PageFeed } from "./page_feed.ts";
import { isAskedLocally, isFromLoopback, isLocalName, isSameOrigin } from "./same_site.ts";

/** What the browser lets the page do: what it has of its own origin, and nothing else. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

/** Goes with every answer. `no-transform` keeps events from being held back to be compressed. */
const HEADERS: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store, no-transform",
  "Content-Security-Policy": CONTENT_SECURITY_POLICY,
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

/** Where things are on this host, for the doctor. */
export interface PagePaths {
  /** The socket of the agent's API. */
  readonly apiSocket: string;
  /** subnet.env. */
  readonly subnetFile: string;
}

/** The page of an agent, until it is disposed of. */
export class Page implements Disposable {
  readonly #feed: PageFeed;
  readonly #doctor: DoctorVisit;
  readonly #state: Readonly<AgentState>;

  /** Shows what the agent knows of itself. */
  constructor(state: Readonly<AgentState>, { apiSocket, subnetFile }: PagePaths) {
    this.#state = state;
    this.#feed = new PageFeed({
      status: () => statusReport(state),
      node: () => state.node,
      samples: () => state.metrics.samples(),
      devices: () => {
        const { node } = state;
        return node === undefined
          ? []
          : readDeviceCounters([...new Set([...node.devices, node.outer.name])]);
      },
      clock: SYSTEM_CLOCK,
    });
    const [command, ...words] = denimProgram("agent");
    this.#doctor = new DoctorVisit([
      command,
      ...words.slice(0, -1),
      "doctor",
      "--json",
      "--api-socket",
      apiSocket,
      "--subnet-file",
      subnetFile,
    ]);
  }

  /**
   * What is answered: `/` and its parts, `/events` (server-sent events), `/way?peer=KEY` and `/doctor`.
   *
   * @param anyName whether the page may be asked for under any name; if not, under those of this machine alone
   */
  routes({ anyName }: { readonly anyName: boolean }): Routes {
    const routes: Routes = {
      "/": () => text(page, "text/html"),
      "/page.css": () => text(style, "text/css"),
      "/page.js": () => text(script, "text/javascript"),
      "/icon.svg": () => text(icon, "image/svg+xml"),
      "/events": () => this.#feed.follow(),
      "/way": (request) => this.#way(new URL(request.url).searchParams.get("peer") ?? ""),
      "/doctor": async (request) => {
        if (request.method !== "POST") return new Response("POST only", { status: 405 });
        if (!isSameOrigin(request)) return new Response("not from elsewhere", { status: 403 });
        return Response.json(await this.#doctor.report());
      },
    };
    return Object.fromEntries(
      Object.entries(routes).map(([path, route]) => [path, guarded(route, anyName)]),
    );
  }

  /**
   * What is answered at an address of TCP; nothing if the page is not to be served there.
   *
   * @param where `loopback` serves it to who connects from a loopback address, `always` to everybody, under any name
   */
  routesAt(ip: IpAddress, where: "loopback" | "always" | "never"): Routes {
    if (where === "never") return {};
    const isLoopback = isLocalName(ip.family === 6 ? `[${ip}]` : `${ip}`);
    const routes = this.routes({ anyName: where === "always" && !isLoopback });
    if (where === "always") return routes;
    return Object.fromEntries(
      Object.entries(routes).map(([path, route]): [string, Route] => [
        path,
        (request, from) =>
          isFromLoopback(from) ? route(request) : refused("this page is for this machine alone"),
      ]),
    );
  }

  #way(key: string): Response {
    const ways = this.#state.node?.ways(key);
    return ways === undefined
      ? new Response(`no peer has the lease ${key}`, { status: 404 })
      : Response.json(ways);
  }

  /** Ends the streams to browsers. */
  [Symbol.dispose](): void {
    this.#feed[Symbol.dispose]();
  }
}

/** A route that a web site's own name does not lead to, and whose answers a browser keeps to the page. */
function guarded(route: Route, anyName: boolean): Route {
  return async (request) => {
    const response = anyName || isAskedLocally(request)
      ? await route(request)
      : refused("ask for this page as localhost or 127.0.0.1");
    for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
    return response;
  };
}

function refused(why: string): Response {
  return new Response(`${why}; see --page in docs/configuration.md`, { status: 403 });
}

function text(body: string, type: string): Response {
  return new Response(body, { headers: { "Content-Type": `${type}; charset=utf-8` } });
}
