import assert from "node:assert/strict";
import { RuntimeError } from "../../mod.ts";
import { AnnotationNames, DEFAULT_PREFIX } from "./annotations.ts";
import type { KubernetesClient } from "./client.ts";
import { Answer } from "./connection.ts";
import { NodeApi } from "./node_api.ts";

/** A fake of a client whose server sends these lines to whoever watches. */
function serverThatSays(...lines: readonly string[]): NodeApi {
  const chunks = async function* () {
    yield new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
  };
  const client: Pick<KubernetesClient, "request"> = {
    request: (_call, read) =>
      read(
        new Answer(
          { status: 200, headers: new Headers(), chunks: chunks() },
          new DisposableStack(),
        ),
      ),
  };
  return new NodeApi(client as KubernetesClient, new AnnotationNames(DEFAULT_PREFIX));
}

const META = { name: "n", uid: "u", resourceVersion: "7" };
const { signal } = new AbortController();

Deno.test("a watch tells of nodes, and how far it is", async () => {
  const api = serverThatSays(
    JSON.stringify({ type: "ADDED", object: { metadata: META } }),
    JSON.stringify({ type: "BOOKMARK", object: { metadata: { resourceVersion: "9" } } }),
  );
  const news = await Array.fromAsync(api.watch({ resourceVersion: "1" }, signal));
  assert.deepEqual(news, [{
    events: [{ present: true, node: { name: "n", uid: "u", podCidrs: [], annotations: {} } }],
    resourceVersion: "9",
  }]);
});

Deno.test("what is no news of Kubernetes' ends a watch, and not the agent", async () => {
  const objects = [
    ["ADDED", {}],
    ["MODIFIED", { metadata: { ...META, uid: undefined } }],
    ["DELETED", { metadata: { ...META, annotations: { key: null } } }],
    ["BOOKMARK", { metadata: {} }],
    ["BOOKMARK", null],
    ["ERROR", "gone"],
    ["MOVED", { metadata: META }],
  ];
  for (const [type, object] of objects) {
    const watch = serverThatSays(JSON.stringify({ type, object }))
      .watch({ resourceVersion: "1" }, signal);
    await assert.rejects(watch.next(), (error) => {
      assert.ok(error instanceof RuntimeError, `${type}: ${error}`);
      assert.match(error.message, /is not Kubernetes'/);
      return true;
    });
  }
});
