import { RuntimeError } from "@denim/core";
import { getAvailablePort } from "@std/net/get-available-port";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { type Routes, StatusServer } from "./status_server.ts";

function serve(
  routes: Routes,
  log = new RecordingLog(),
  onDefect?: (error: unknown) => void,
): AsyncDisposable & { ask(path: string): Promise<string> } {
  const port = getAvailablePort();
  const server = StatusServer.serve("127.0.0.1", port, {
    routes,
    log,
    ...onDefect && { onDefect },
  });
  return {
    ask: async (path) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      return `${response.status} ${await response.text()}`;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

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
  assert.throws(
    () => StatusServer.serve("127.0.0.1", port, { routes: {}, log: new RecordingLog() }),
    {
      name: "RuntimeError",
      message: new RegExp(`^--healthz-ip 127\\.0\\.0\\.1 --healthz-port ${port}: `),
    },
  );
});

/** A socket's path in a folder of its own, and a log. */
function local(): Disposable & { path: string; log: RecordingLog } {
  const folder = Deno.makeTempDirSync();
  return {
    path: `${folder}/run/agent.sock`,
    log: new RecordingLog(),
    [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }),
  };
}

async function askLocally(path: string): Promise<string> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  return await (await fetch("http://127.0.0.1/status", { client })).text();
}

const ROUTES: Routes = { "/status": () => new Response("ready") };

Deno.test("StatusServer serves on a socket that its owner alone may open, and removes it", async () => {
  using place = local();
  const { path, log } = place;
  {
    await using _server = await StatusServer.serveLocally(path, { routes: ROUTES, log });
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
    assert.equal(await askLocally(path), "ready");
  }
  assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
  assert.deepEqual(log.events, ["info api-served"]);
});

Deno.test("StatusServer takes the place of a dead socket, not of a living one or a file", async () => {
  using place = local();
  const { path, log } = place;
  Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")));
  // Deno leaves the socket behind when the listener is closed, as a killed agent does.
  Deno.listen({ transport: "unix", path }).close();
  {
    await using _server = await StatusServer.serveLocally(path, { routes: ROUTES, log });
    const second = await StatusServer.serveLocally(path, { routes: {}, log });
    assert.equal(second, undefined);
    assert.match(log.of("api-not-served")[0]!.message, /another agent serves there$/);
    assert.equal(await askLocally(path), "ready");
  }
  Deno.writeTextFileSync(path, "somebody's");
  assert.equal(await StatusServer.serveLocally(path, { routes: {}, log }), undefined);
  assert.equal(Deno.readTextFileSync(path), "somebody's");
});

Deno.test("StatusServer ends soon, whatever a client leaves undone", async () => {
  using place = local();
  const { path, log } = place;
  const large = () => new Response(new Uint8Array(10_000_000));
  const server = await StatusServer.serveLocally(path, { routes: { "/status": large }, log });
  const line = "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const post = line.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\nx");
  const clients = await Promise.all([post, line].map(async (text) => {
    const client = await Deno.connect({ transport: "unix", path });
    await client.write(new TextEncoder().encode(text));
    // The answer has begun; its rest is left where it is.
    await client.read(new Uint8Array(1));
    return client;
  }));
  const startMs = performance.now();
  await server![Symbol.asyncDispose]();
  assert.ok(performance.now() - startMs < 5_000);
  assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
  for (const client of clients) client.close();
});
