/**
 * As much of protobuf's wire format as it takes to walk through a message and leave out most of it
 * (https://protobuf.dev/programming-guides/encoding).
 *
 * @module
 */

import { RuntimeError } from "../../mod.ts";

/** A field of a message whose value is bytes: a string, or a message itself. */
export interface Field {
  /** Its number in the message's definition. */
  readonly number: number;
  /** Its value, a view into the message. */
  readonly bytes: Uint8Array;
}

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;

/** A message's fields that are bytes, in their order; those of numbers are stepped over. Throws a RuntimeError. */
export function* fieldsOf(message: Uint8Array): Generator<Field, void, void> {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1;; scale *= 128) {
      const byte = message[at++];
      // Lengths and tags are far below 2⁵³; what is above is a number, which is stepped over.
      if (byte === undefined || scale > 2 ** 63) throw broken();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const wireType = tag % 8;
    if (wireType === BYTES) {
      const length = varint();
      if (at + length > message.length) throw broken();
      yield { number: (tag - wireType) / 8, bytes: message.subarray(at, at + length) };
      at += length;
    } else if (wireType === VARINT) varint();
    else if (wireType === FIXED64) at += 8;
    else if (wireType === FIXED32) at += 4;
    else throw broken();
  }
}

function broken(): RuntimeError {
  return new RuntimeError("the API server's answer is not protobuf, or was cut short");
}

const decoder = new TextDecoder();

/** A string field's text. */
export function textOf(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}
