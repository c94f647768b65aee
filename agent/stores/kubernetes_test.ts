import { ConfigError } from "@denim/core";
import { DEFAULT_PREFIX } from "@denim/core/stores/kubernetes";
import assert from "node:assert/strict";
import { kubernetes, thisNode } from "./kubernetes.ts";

const POD = { POD_NAME: "denim-x7", POD_NAMESPACE: "kube-flannel" };
const OF_POD = { pod: { name: "denim-x7", namespace: "kube-flannel" } };

const CASES: readonly (readonly [Readonly<Record<string, string>>, unknown])[] = [
  [{ NODE_NAME: "n1" }, { name: "n1" }],
  [{ NODE_NAME: "n1", ...POD }, { name: "n1" }],
  [POD, OF_POD],
  [{ NODE_NAME: "", ...POD }, OF_POD],
];

for (const [environment, node] of CASES) {
  Deno.test(`kubernetes: which node it is by ${JSON.stringify(environment)}`, () => {
    assert.deepEqual(thisNode((name) => environment[name]), node);
  });
}

for (const environment of [{}, { POD_NAME: "x" }, { POD_NAMESPACE: "y", POD_NAME: "" }]) {
  Deno.test(`kubernetes: no node by ${JSON.stringify(environment)}`, () => {
    const variables = new Map(Object.entries(environment));
    assert.throws(() => thisNode((name) => variables.get(name)), ConfigError);
  });
}

Deno.test("kubernetes: the flag's default prefix is the store's", () => {
  const prefix = kubernetes.flags.find(({ name }) => name === "kube-annotation-prefix");
  assert.equal(prefix?.fallback, DEFAULT_PREFIX);
});
