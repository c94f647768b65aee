import { RuntimeError } from "@denim/core";
import { getAvailablePort } from "@std/net/get-available-port";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { healthRoutes, type Readiness, type Routes, StatusServer } from "./status_server.ts";

function serve(
  routes: Routes,
  log = new RecordingLog(),
  onDefect?: (error: unknown) => void,
): AsyncDisposable & { ask(path: string): Promise<string> } {
  const port = getAvailablePort();
  const server = StatusServer.serve("127.0.0.1", port, routes, log, onDefect);
  return {
    ask: async (path) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      return `${response.status} ${await response.text()}`;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

Deno.test("/healthz answers at once, /readyz says why the node is not ready", async () => {
  const readiness: Readiness = { unready: "it is starting" };
  await using server = serve(healthRoutes(readiness));
  assert.equal(await server.ask("/healthz"), "200 denim is running");
  assert.equal(await server.ask("/readyz"), "503 denim is not ready: it is starting");
  readiness.unready = undefined;
  assert.equal(await server.ask("/readyz"), "200 denim is ready");
  readiness.unready = "its subnet is another node's";
  assert.equal(await server.ask("/readyz"), "503 denim is not ready: its subnet is another node's");
});

Deno.test("StatusServer serves the routes that it is given, and no others", async () => {
  await using server = serve({ "/metrics": () => new Response("peers 3") });
  assert.equal(await server.ask("/metrics"), "200 peers 3");
  for (const path of ["/", "/metrics/", "/healthz", "/toString"]) {
    assert.equal(await server.ask(path), "404 not found");
  }
});

Deno.test("StatusServer answers 500 if a route fails, and hands on a defect", async () => {
  const log = new RecordingLog();
  const defects: unknown[] = [];
  const routes: Routes = {
    "/expected": () => {
      throw new RuntimeError("the store is out of reach");
    },
    "/defect": () => {
      throw new TypeError("not a function");
    },
  };
  await using server = serve(routes, log, (error) => defects.push(error));
  assert.equal(await server.ask("/expected"), "500 the store is out of reach");
  assert.deepEqual(defects, []);
  assert.equal(log.of("status-failed").length, 1);
  assert.match(await server.ask("/defect"), /^500 /);
  assert.match(String(defects[0]), /^TypeError/);
});

Deno.test("StatusServer names the flags of an address that is taken", () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  assert.throws(() => StatusServer.serve("127.0.0.1", port, {}, new RecordingLog()), {
    name: "RuntimeError",
    message: new RegExp(`^--healthz-ip 127\\.0\\.0\\.1 --healthz-port ${port}: `),
  });
});
