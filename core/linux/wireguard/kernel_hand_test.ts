import assert from "node:assert/strict";
import { messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import {
  octets,
  wireguardDevice,
  wireguardPeer,
} from "../../../tests/support/wireguard_objects.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import type { WireguardPeer } from "../../kernel_state.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { parseDevice, writeGetDevice, writeGreetings, writeSteps } from "./kernel_hand.ts";
import type { WireguardObject, WireguardStep } from "./wireguard_hand.ts";

/** The number of the family in these tests. */
const FAMILY = 30;
const NAME = "0f000200 666c616e 6e656c2d 77670000"; // WGDEVICE_A_IFNAME, padded

function put(object: WireguardObject): WireguardStep {
  return { action: "put", object, key: "", mayReplace: true };
}

function written(...steps: readonly WireguardStep[]): string[] {
  return messagesOf((writer) => writeSteps(writer, FAMILY, "flannel-wg", steps));
}

/** The words of a key whose octets are all the same. */
function key(octet: string): string {
  return Array(8).fill(octet.repeat(4)).join(" ");
}

Deno.test("kernel hand: a device is asked for by its name, and told its key and port", () => {
  assert.deepEqual(messagesOf((writer) => writeGetDevice(writer, FAMILY, "flannel-wg")), [
    `30 0x0: 00010000 ${NAME}`,
  ]);
  const privateKey = new WireguardSecret(new Uint8Array(32).fill(0x40));
  assert.deepEqual(written(put(wireguardDevice({ privateKey }))), [
    `30 0x0: 01010000 ${NAME} 24000300 ${key("40")} 06000600 6cca0000`,
  ]);
});

Deno.test("kernel hand: a peer is put with all that it has, and then keepalive as it is wanted", () => {
  const publicKey = new Uint8Array(32).fill(0x22).toBase64();
  const presharedKey = new WireguardSecret(new Uint8Array(32).fill(0x33));
  const peer = wireguardPeer(2, { publicKey, presharedKey });
  const start = `30 0x0: 01010000 ${NAME}`;
  assert.deepEqual(written(put(peer)), [
    [
      start,
      "94000880 90000080", // WGDEVICE_A_PEERS, its one element
      `24000100 ${key("22")}`, // WGPEER_A_PUBLIC_KEY
      "08000300 02000000", // WGPEER_A_FLAGS: WGPEER_F_REPLACE_ALLOWEDIPS
      `24000200 ${key("33")}`, // WGPEER_A_PRESHARED_KEY
      "14000400 0200ca6c 0a630002 00000000 00000000", // WGPEER_A_ENDPOINT: struct sockaddr_in
      "06000500 00000000", // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
      "20000980 1c000080", // WGPEER_A_ALLOWEDIPS, its one element
      "06000100 02000000 08000200 0a050200 05000300 18000000", // AF_INET, 10.5.2.0, 24
    ].join(" "),
  ]);
  const greeting = ({ keepaliveSeconds }: Pick<WireguardPeer, "keepaliveSeconds">) =>
    messagesOf((writer) =>
      writeGreetings(writer, FAMILY, "flannel-wg", [{ ...peer, keepaliveSeconds }])
    );
  // WGPEER_F_UPDATE_ONLY
  const keepalive = (word: string) =>
    `38000080 24000100 ${key("22")} 08000300 04000000 06000500 ${word}`;
  assert.deepEqual(greeting({ keepaliveSeconds: 0 }), [
    `${start} 74000880 ${keepalive("01000000")} ${keepalive("00000000")}`,
  ]);
  assert.deepEqual(greeting({ keepaliveSeconds: 25 }), [
    `${start} 3c000880 ${keepalive("19000000")}`,
  ]);
  assert.deepEqual(written({ action: "remove", object: peer, key: "" }), [
    `${start} 34000880 30000080 24000100 ${key("22")} 08000300 01000000`, // WGPEER_F_REMOVE_ME
  ]);
  // Without a preshared key it is zeros.
  assert.ok(written(put(wireguardPeer(2)))[0]!.includes(`24000200 ${key("00")}`));
});

Deno.test("kernel hand: peers share a message, in the order of their steps", () => {
  const peers = [2, 3, 2].map((number) => wireguardPeer(number));
  assert.equal(written(...peers.map(put)).length, 1);
  const read = readWritten(
    (writer) => writeSteps(writer, FAMILY, "flannel-wg", peers.map(put)),
    (reader) => parseDevice(reader, "flannel-wg", 1_000_000_000),
  );
  assert.deepEqual(
    read.peers.map(({ publicKey }) => publicKey),
    peers.map(({ publicKey }) => publicKey),
  );
});

Deno.test("kernel hand: what the kernel says of a peer is what was put, in both families", () => {
  const peer = wireguardPeer(2, {
    presharedKey: new WireguardSecret(octets(7)),
    endpoint: { address: IpAddress.parse("fd99::2"), port: 51821 },
    allowedIps: [Cidr.parse("10.5.2.0/24"), Cidr.parse("fc00:5:0:2::/64")],
  });
  const read = readWritten(
    (writer) => writeSteps(writer, FAMILY, "flannel-wg", [put(peer)]),
    (reader) => parseDevice(reader, "flannel-wg", 1_000_000_000),
  );
  assert.deepEqual(read.device, {
    kind: "wireguard",
    device: "flannel-wg",
    privateKey: undefined,
    listenPort: 0,
  });
  const [{ isHeard, presharedKey, handshakeAtMs, receivedBytes, sentBytes, ...found }, ...more] =
    read.peers as [typeof read.peers[0]];
  const { presharedKey: wanted, begins: _, ...rest } = peer;
  assert.deepEqual(found, rest);
  assert.ok(WireguardSecret.equal(presharedKey, wanted));
  assert.equal(isHeard, false);
  assert.deepEqual([handshakeAtMs, receivedBytes, sentBytes], [undefined, 0, 0]);
  assert.deepEqual(more, []);
});
