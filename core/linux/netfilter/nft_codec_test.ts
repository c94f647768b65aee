import assert from "node:assert/strict";
import { MessageWriter } from "../netlink/netlink_codec.ts";
import { NF_ACCEPT, NF_NAT_RANGE_PROTO_RANDOM_FULLY } from "../uapi/netfilter.ts";
import {
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_JUMP,
  NFT_META_MARK,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_RETURN,
  NFTA_RULE_EXPRESSIONS,
} from "../uapi/nf_tables.ts";
import { type Expression, expressionText, readExpressions, writeExpressions } from "./nft_codec.ts";

const bytes = (hex: string) => Uint8Array.fromHex(hex.replace(/#.*$/gm, "").replace(/\s/g, ""));

/** Each step, and an element of the list octet by octet: lengths and types are in host order. */
const STEPS: readonly [step: Expression, element: string, text: string][] = [
  [
    { name: "meta", key: NFT_META_MARK },
    `2400 0180  0900 0100 6d65746100 000000 # "meta"
     1400 0280
       0800 0100 00000001 # to register 1
       0800 0200 00000003 # the mark`,
    "meta load 3 => reg 1",
  ],
  [
    { name: "payload", base: NFT_PAYLOAD_NETWORK_HEADER, offset: 12, length: 4 },
    `3400 0180  0c00 0100 7061796c6f616400 # "payload"
     2400 0280
       0800 0100 00000001 # to register 1
       0800 0200 00000001 # from the network header
       0800 0300 0000000c # at 12
       0800 0400 00000004 # 4 bytes`,
    "payload load 4b @ header 1 + 12 => reg 1",
  ],
  [
    { name: "bitwise", mask: bytes("fffff000") },
    `4c00 0180  0c00 0100 6269747769736500 # "bitwise"
     3c00 0280
       0800 0100 00000001 # from register 1
       0800 0200 00000001 # to register 1
       0800 0300 00000004 # 4 bytes
       0800 0600 00000000 # mask and exclusive or
       0c00 0480 0800 0100 fffff000
       0c00 0580 0800 0100 00000000`,
    "bitwise reg 1 = reg 1 & 0xfffff000",
  ],
  [
    { name: "cmp", op: NFT_CMP_EQ, value: bytes("0a050300") },
    `2c00 0180  0800 0100 636d7000 # "cmp"
     2000 0280
       0800 0100 00000001 # register 1
       0800 0200 00000000 # equals
       0c00 0380 0800 0100 0a050300`,
    "cmp eq reg 1 0x0a050300",
  ],
  [
    { name: "cmp", op: NFT_CMP_NEQ, value: bytes("ff000000000000000000000000000000") },
    `3800 0180  0800 0100 636d7000 # "cmp"
     2c00 0280
       0800 0100 00000001
       0800 0200 00000001 # differs from
       1800 0380 1400 0100 ff000000000000000000000000000000`,
    "cmp 1 reg 1 0xff000000000000000000000000000000",
  ],
  [
    { name: "immediate", verdict: NFT_RETURN },
    `3000 0180  0e00 0100 696d6d65646961746500 0000 # "immediate"
     1c00 0280
       0800 0100 00000000 # to the register of verdicts
       1000 0280 0c00 0280 0800 0100 fffffffb`,
    "immediate reg 0 -5",
  ],
  [
    { name: "masq", flags: NF_NAT_RANGE_PROTO_RANDOM_FULLY },
    `1c00 0180  0900 0100 6d61737100 000000 # "masq"
     0c00 0280
       0800 0100 00000010`,
    "masq flags 0x10",
  ],
  [
    { name: "immediate", verdict: NFT_JUMP, chain: "pods" },
    `3c00 0180 0e00 0100 696d6d65646961746500 0000
     2800 0280
       0800 0100 00000000
       1c00 0280 1800 0280 0800 0100 fffffffd 0900 0200 706f647300 000000 # "pods"`,
    "immediate reg 0 -3 pods",
  ],
  [
    { name: "counter" },
    `2c00 0180 0c00 0100 636f756e74657200 # "counter"
     1c00 0280
       0c00 0100 0000000000000000 # bytes
       0c00 0200 0000000000000000 # packets`,
    "counter",
  ],
  [
    {
      name: "target",
      extension: "MASQUERADE",
      revision: 0,
      info: new Uint8Array([1, 0, 0, 0, 16, 0, 0, 0]),
    },
    `3800 0180 0b00 0100 74617267657400 00 # "target"
     2800 0280
       0f00 0100 4d41535155455241444500 00 # "MASQUERADE"
       0800 0200 00000000
       0c00 0300 0100000010000000`,
    "target MASQUERADE rev 0 0x0100000010000000",
  ],
];

function written(steps: readonly Expression[]): Uint8Array {
  const writer = new MessageWriter();
  writeExpressions(writer, NFTA_RULE_EXPRESSIONS, steps);
  return writer.bytes.slice(0, writer.length);
}

Deno.test("each step as bytes, and back", () => {
  for (const [step, element, text] of STEPS) {
    assert.equal(written([step]).slice(4).toHex(), bytes(element).toHex(), text);
    assert.deepEqual(readExpressions(bytes(element)), [step]);
    assert.equal(expressionText(step), text);
  }
  const steps = STEPS.map(([step]) => step);
  const rule = written(steps);
  assert.equal(
    rule.slice(0, 4).toHex(),
    `${rule.length.toString(16).padStart(4, "0").replace(/(..)(..)/, "$2$1")}0480`,
  );
  assert.deepEqual(readExpressions(rule.subarray(4)), steps);
});

Deno.test("what a rule of denim's never has is read as something else", () => {
  const others: readonly [kernelName: string, what: string, element: string][] = [
    ["limit", "an unknown step", "1400 0180 0a00 0100 6c696d697400 0000 0400 0280"],
    ["cmp", "a step without anything", "0c00 0180 0800 0100 636d7000"],
    [
      "meta",
      "another register",
      `2400 0180 0900 0100 6d65746100 000000 1400 0280 0800 0100 00000002 0800 0200 00000003`,
    ],
    [
      "masq",
      "masquerade with ports of its own",
      `2400 0180 0900 0100 6d61737100 000000 1400 0280 0800 0100 00000010 0800 0200 00000001`,
    ],
    [
      "bitwise",
      "bits that are turned over",
      `4c00 0180 0c00 0100 6269747769736500 3c00 0280
       0800 0100 00000001 0800 0200 00000001 0800 0300 00000004 0800 0600 00000000
       0c00 0480 0800 0100 fffff000 0c00 0580 0800 0100 00000001`,
    ],
  ];
  for (const [kernelName, what, element] of others) {
    const [step] = readExpressions(bytes(element));
    assert.deepEqual(step, { name: "other", kernelName }, what);
    assert.throws(() => written([step!]), /nftables: can't write the expression/, what);
  }
  assert.deepEqual(readExpressions(new Uint8Array()), []);
});

Deno.test("an attribute that a later kernel may add changes nothing", () => {
  const masquerade =
    "2400 0180 0900 0100 6d61737100 000000 1400 0280 0800 0100 00000000 0800 3000 00000000";
  assert.deepEqual(readExpressions(bytes(masquerade)), [{ name: "masq", flags: 0 }]);
  const accept: Expression = { name: "immediate", verdict: NF_ACCEPT };
  assert.deepEqual(readExpressions(written([accept]).subarray(4)), [accept]);
});
