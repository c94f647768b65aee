/** Lists in protobuf: what is kept of them, and what is not one. What a real server sends is in kubernetes_test. */

import assert from "node:assert/strict";
import { encodeList } from "../../../tests/support/kube_stand_in.ts";
import { RuntimeError } from "../../mod.ts";
import { AnnotationNames } from "./annotations.ts";
import { readNodePage } from "./node_list.ts";

const names = new AnnotationNames("flannel.alpha.coreos.com");

function thing(name: string, spec: Readonly<Record<string, unknown>>, annotations = {}) {
  return {
    metadata: { name, uid: `uid-${name}`, resourceVersion: "1", annotations },
    spec,
    status: {},
  };
}

const LIST = [
  thing("n1", { podCIDR: "10.5.1.0/24", podCIDRs: ["10.5.1.0/24", "fc00::/64"] }, {
    [names.managed]: "true",
    "other.example/note": "ö".repeat(300),
  }),
  thing("old", { podCIDR: "10.5.2.0/24" }),
  thing("new", {}),
];

Deno.test("a list of nodes is read for what leases need", () => {
  const page = readNodePage(encodeList(LIST, "4711", "more"), names);
  assert.deepEqual(page, {
    resourceVersion: "4711",
    next: "more",
    nodes: [
      {
        name: "n1",
        uid: "uid-n1",
        podCidrs: ["10.5.1.0/24", "fc00::/64"],
        annotations: { [names.managed]: "true" },
      },
      { name: "old", uid: "uid-old", podCidrs: ["10.5.2.0/24"], annotations: {} },
      { name: "new", uid: "uid-new", podCidrs: [], annotations: {} },
    ],
  });
});

Deno.test("a list of metadata has no podCIDRs", () => {
  const { nodes } = readNodePage(encodeList(LIST, "1", "", true), names);
  assert.deepEqual(nodes.map(({ podCidrs }) => podCidrs), [[], [], []]);
});

Deno.test("what is cut short, or is something else, is refused", () => {
  const whole = encodeList(LIST, "1", "");
  let refused = 0;
  for (let length = 0; length < whole.length; length++) {
    try {
      readNodePage(whole.subarray(0, length), names);
    } catch (error) {
      assert.ok(error instanceof RuntimeError, `${length}: ${error}`);
      refused++;
    }
  }
  // But for where one field of the outermost message ends and the next begins.
  assert.ok(whole.length - refused <= 5, `${whole.length - refused} were taken`);
  const text = new TextEncoder().encode('{"kind":"NodeList"}');
  assert.throws(() => readNodePage(text, names), /is not Kubernetes' protobuf/);
  const wrong = Uint8Array.of(...whole.subarray(0, 4), 0x0f, 0xff, 0xff);
  assert.throws(() => readNodePage(wrong, names), RuntimeError);
});
