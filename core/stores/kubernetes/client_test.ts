import assert from "node:assert/strict";
import { NO_METRICS, storeMetrics } from "../../mod.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { AnnotationNames } from "./annotations.ts";
import { KubernetesClient } from "./client.ts";
import { NodeApi } from "./node_api.ts";
import { NodeFollower } from "./node_follower.ts";

/** A way to a server, on which denim has a defect just when it is told to stop. */
class DefectAtTheEnd implements AsyncDisposable {
  readonly log: RecordingLog = new RecordingLog();
  readonly ending: AbortController = new AbortController();
  readonly client: KubernetesClient = new KubernetesClient({
    access: {
      description: "",
      read: () => {
        this.ending.abort();
        return Promise.reject(new ReferenceError("odd"));
      },
    },
    log: this.log,
    metrics: storeMetrics(NO_METRICS, "kubernetes"),
  });

  [Symbol.asyncDispose](): Promise<void> {
    return this.client[Symbol.asyncDispose]();
  }
}

Deno.test("a request that is given up drops no defect", async () => {
  await using world = new DefectAtTheEnd();
  const call = { verb: "list", resource: "nodes", path: "/", accept: "" };
  const request = world.client.request(call, (answer) => answer.bytes(), world.ending.signal);
  await assert.rejects(request, ReferenceError);
});

Deno.test("a watch that is given up drops no defect", async () => {
  await using world = new DefectAtTheEnd();
  const names = new AnnotationNames("flannel.alpha.coreos.com");
  const api = new NodeApi(world.client, names);
  const metrics = storeMetrics(NO_METRICS, "kubernetes");
  const follower = new NodeFollower({ api, names, known: new Map(), metrics, log: world.log });
  const follow = Array.fromAsync(follower.follow(world.ending.signal));
  await assert.rejects(follow, ReferenceError);
});
