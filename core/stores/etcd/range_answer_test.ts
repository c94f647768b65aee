import assert from "node:assert/strict";
import { readRangeAnswer } from "./range_answer.ts";

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
const encoder = new TextEncoder();

function varint(value: bigint): number[] {
  const bytes = [];
  for (; value > 0x7fn; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80);
  return [...bytes, Number(value)];
}

const number = (field: number, value: bigint) => [field << 3 | VARINT, ...varint(value)];
const bytes = (field: number, value: Iterable<number>) => {
  const all = [...value];
  return [...varint(BigInt(field << 3 | BYTES)), ...varint(BigInt(all.length)), ...all];
};
const text = (field: number, value: string) => bytes(field, encoder.encode(value));

const PREFIX = "/köln/subnets/";
const PREFIX_BYTES = encoder.encode(PREFIX).length;

const ROW = [
  ...text(1, `${PREFIX}10.5.1.0-24`),
  ...number(2, 7n),
  ...number(3, 1n << 40n),
  ...number(4, 3n),
  ...text(5, '{"PublicIP":"10.99.0.1","name":"Zürich"}'),
  ...number(6, 0x7fff_ffff_ffff_fffen),
];
const LAST_KEY = [...encoder.encode(PREFIX), 0xff, 0x00, 0x80];
const ANSWER = [
  ...bytes(1, [...number(1, 0xffff_ffff_ffff_fff1n), ...number(2, 9n), ...number(3, 300n)]),
  ...bytes(2, ROW),
  // What nobody has asked for: a later etcd may say more.
  ...text(99, "news"),
  9 << 3 | FIXED64,
  ...Array(8).fill(0xff),
  9 << 3 | FIXED32,
  ...Array(4).fill(0xff),
  ...bytes(2, [...bytes(1, LAST_KEY), ...number(6, 1n << 52n)]),
  ...number(3, 1n),
  ...number(4, 200n),
];

Deno.test("readRangeAnswer: numbers of 64 bits are exact, and what is unknown is left out", () => {
  const { rows, lastKey, ...rest } = readRangeAnswer(new Uint8Array(ANSWER), PREFIX_BYTES);
  assert.deepEqual(rest, {
    more: true,
    count: 200,
    revision: 300,
    clusterId: `${0xffff_ffff_ffff_fff1n}`,
  });
  assert.deepEqual(rows[0], {
    key: "10.5.1.0-24",
    value: '{"PublicIP":"10.99.0.1","name":"Zürich"}',
    createRevision: 7,
    modRevision: 2 ** 40,
    etcdLease: `${0x7fff_ffff_ffff_fffen}`,
  });
  assert.deepEqual([...lastKey], LAST_KEY, "byte by byte, though it is no text");
  assert.equal(rows[1]?.etcdLease, `${2 ** 52}`);
});

Deno.test("readRangeAnswer: nothing is what it says, too", () => {
  assert.deepEqual(readRangeAnswer(new Uint8Array(), 5), {
    rows: [],
    lastKey: new Uint8Array(),
    more: false,
    count: 0,
    revision: 0,
    clusterId: "0",
  });
});

Deno.test("readRangeAnswer: an answer that was cut short in a field is refused", () => {
  const fields = bytes(2, ROW);
  for (let length = 1; length < fields.length; length++) {
    assert.throws(() => readRangeAnswer(new Uint8Array(fields.slice(0, length)), 0), RangeError);
  }
  assert.throws(() => readRangeAnswer(new Uint8Array([1 << 3 | 3]), 0), RangeError);
  assert.throws(() => readRangeAnswer(new Uint8Array(bytes(2, bytes(5, ROW).slice(0, 9))), 0));
});

Deno.test("readRangeAnswer: a number that has no end is refused", () => {
  const endless = Array(200).fill(0x80);
  for (const head of [[], [2 << 3 | BYTES], [3 << 3 | VARINT], [1 << 3 | BYTES, 204, 1, 1 << 3]]) {
    const message = new Uint8Array([...head, ...endless, 0, 1, 2, 3]);
    assert.throws(() => readRangeAnswer(message, 0), RangeError);
  }
});
