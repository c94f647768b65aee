import { IpAddress, MetricsRegistry } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { RecentLog } from "../recent_log.ts";
import { Page } from "./page_routes.ts";

function openPage(): Page {
  return new Page({
    unready: "it is starting",
    store: undefined,
    node: undefined,
    startedAtMs: 0,
    metrics: new MetricsRegistry(),
    recent: new RecentLog(new RecordingLog()),
  }, { apiSocket: "/nowhere/agent.sock", subnetFile: "/nowhere/subnet.env" });
}

Deno.test("page: to this machine alone unless asked, wherever the address is", async () => {
  using page = openPage();
  const status = async (ip: string, where: "loopback" | "always" | "never", from: string) => {
    const route = page.routesAt(IpAddress.parse(ip), where)["/"];
    const addr = { transport: "tcp", hostname: from, port: 4711 } as const;
    return (await route?.(new Request("http://localhost:8081/"), addr))?.status;
  };
  for (const [ip, from] of [["127.0.0.1", "127.0.0.1"], ["0.0.0.0", "127.0.0.1"], ["::", "::1"]]) {
    assert.equal(await status(ip!, "loopback", from!), 200);
  }
  // As the kernel tells a socket of both families.
  assert.equal(await status("::", "loopback", "::ffff:127.0.0.1"), 200);
  for (const from of ["10.0.0.7", "::ffff:10.0.0.7", "fd00::7"]) {
    assert.equal(await status("::", "loopback", from), 403);
    assert.equal(await status("::", "always", from), 200);
  }
  assert.equal(await status("127.0.0.1", "never", "127.0.0.1"), undefined);
});

Deno.test("page: nothing is answered under a web site's name, unless all may ask", async () => {
  using page = openPage();
  const status = async (anyName: boolean, url: string) => {
    const routes = page.routes({ anyName });
    const response = await routes[new URL(url).pathname]!(new Request(url));
    await response.body?.cancel();
    return response.status;
  };
  for (const path of ["/", "/page.js", "/events"]) {
    assert.equal(await status(false, `http://localhost:8081${path}`), 200);
    assert.equal(await status(false, `http://evil.example:8081${path}`), 403);
    assert.equal(await status(true, `http://node7.example:8081${path}`), 200);
  }
  assert.equal(await status(false, "http://127.0.0.1/way?peer=10.5.7.0-24"), 404);
  assert.equal(await status(false, "http://127.0.0.1/doctor"), 405);
});

Deno.test("page: a browser keeps it to itself", async () => {
  using page = openPage();
  const response = await page.routes({ anyName: false })["/"]!(new Request("http://127.0.0.1/"));
  const policy = response.headers.get("Content-Security-Policy")!;
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|https?:|data:|\*/);
  const html = await response.text();
  assert.doesNotMatch(html, /(src|href)="(?![/#])/, "everything is its own");
  assert.doesNotMatch(html, /style="|<style| on[a-z]+="/, "nothing that the policy forbids");
});
