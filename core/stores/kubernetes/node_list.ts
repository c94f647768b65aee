/**
 * Lists of nodes as the API server sends them in protobuf. A node has 16 KB of which its lease needs 300
 * bytes: all else is stepped over rather than parsed.
 *
 * The numbers are those of `NodeList`, `Node`, `NodeSpec` (k8s.io/api/core/v1/generated.proto),
 * `PartialObjectMetadataList`, `ListMeta`, `ObjectMeta` (k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto)
 * and `Unknown` (k8s.io/apimachinery/pkg/runtime/generated.proto).
 *
 * @module
 */

import { RuntimeError } from "../../mod.ts";
import type { AnnotationNames, NodeRecord } from "./annotations.ts";
import { fieldsOf, textOf } from "./protobuf.ts";

/** One page of a list. */
export interface NodePage {
  /** Its nodes; without podCIDRs in a list of metadata. */
  readonly nodes: readonly NodeRecord[];
  /** The state of the store that the list shows; a watch goes on from it. */
  readonly resourceVersion: string;
  /** What to ask for the next page with; empty on the last one. */
  readonly next: string;
}

/** What each answer in protobuf begins with. */
const MAGIC = "k8s\0";
const UNKNOWN_RAW = 2;
/** The same in a list of nodes and in one of metadata. */
const LIST = { metadata: 1, items: 2 };
const LIST_META = { resourceVersion: 2, continue: 3 };
/** The same in a node and in its metadata alone. */
const OBJECT = { metadata: 1, spec: 2 };
const OBJECT_META = { name: 1, uid: 5, annotations: 12 };
const ENTRY = { key: 1, value: 2 };
const NODE_SPEC = { podCIDR: 1, podCIDRs: 7 };

/**
 * Reads a list of nodes, or one of their metadata. Throws a RuntimeError if it is neither.
 *
 * @param names the annotations to keep
 */
export function readNodePage(answer: Uint8Array, names: AnnotationNames): NodePage {
  if (textOf(answer.subarray(0, MAGIC.length)) !== MAGIC) {
    throw new RuntimeError("the API server's answer is not Kubernetes' protobuf");
  }
  const nodes: NodeRecord[] = [];
  let resourceVersion = "", next = "";
  for (const unknown of fieldsOf(answer.subarray(MAGIC.length))) {
    if (unknown.number !== UNKNOWN_RAW) continue;
    for (const { number, bytes } of fieldsOf(unknown.bytes)) {
      if (number === LIST.items) nodes.push(readNode(bytes, names));
      else if (number === LIST.metadata) {
        for (const field of fieldsOf(bytes)) {
          if (field.number === LIST_META.resourceVersion) resourceVersion = textOf(field.bytes);
          else if (field.number === LIST_META.continue) next = textOf(field.bytes);
        }
      }
    }
  }
  return { nodes, resourceVersion, next };
}

function readNode(message: Uint8Array, names: AnnotationNames): NodeRecord {
  let name = "", uid = "", podCidr = "";
  const podCidrs: string[] = [];
  const annotations: Record<string, string> = {};
  for (const part of fieldsOf(message)) {
    if (part.number === OBJECT.metadata) {
      for (const { number, bytes } of fieldsOf(part.bytes)) {
        if (number === OBJECT_META.name) name = textOf(bytes);
        else if (number === OBJECT_META.uid) uid = textOf(bytes);
        else if (number === OBJECT_META.annotations) {
          const [key, value] = readEntry(bytes);
          if (names.has(key)) annotations[key] = value;
        }
      }
    } else if (part.number === OBJECT.spec) {
      for (const { number, bytes } of fieldsOf(part.bytes)) {
        if (number === NODE_SPEC.podCIDR) podCidr = textOf(bytes);
        else if (number === NODE_SPEC.podCIDRs) podCidrs.push(textOf(bytes));
      }
    }
  }
  // Servers before 1.16 know the one of them alone.
  if (podCidrs.length === 0 && podCidr !== "") podCidrs.push(podCidr);
  return { name, uid, podCidrs, annotations };
}

function readEntry(message: Uint8Array): readonly [key: string, value: string] {
  let key = "", value = "";
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === ENTRY.key) key = textOf(bytes);
    else if (number === ENTRY.value) value = textOf(bytes);
  }
  return [key, value];
}
