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

Deno.test("page: on loopback unless asked, and then wherever the address is", () => {
  using page = openPage();
  const served = (ip: string, where: "loopback" | "always" | "never") =>
    "/" in page.routesAt(IpAddress.parse(ip), where);
  assert.deepEqual(
    ["127.0.0.1", "::1", "10.0.0.1", "0.0.0.0", "::"].map((ip) => served(ip, "loopback")),
    [true, true, false, false, false],
  );
  assert.equal(served("10.0.0.1", "always"), true);
  assert.equal(served("127.0.0.1", "never"), false);
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
