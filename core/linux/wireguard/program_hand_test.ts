import assert from "node:assert/strict";
import {
  octets,
  wireguardDevice,
  wireguardPeer,
} from "../../../tests/support/wireguard_objects.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { greetingRequestsOf, parseDevice, programHand, requestsOf } from "./program_hand.ts";
import type { FoundPeer, WireguardObject } from "./wireguard_hand.ts";

const NOW_MS = 1_800_000_000_000;

function put(object: WireguardObject): string[] {
  return requestsOf({ action: "put", object, key: "", mayReplace: true });
}

Deno.test("program hand: requests are wg's lines, keys in hexadecimal", () => {
  const key = octets(2).toHex(), zeros = "00".repeat(32);
  assert.deepEqual(put(wireguardDevice()), [
    `private_key=${octets(1).toHex()}\nlisten_port=51820\n`,
  ]);
  assert.deepEqual(put(wireguardPeer(2)), [
    `public_key=${key}\npreshared_key=${zeros}\nendpoint=10.99.0.2:51820\n` +
    "persistent_keepalive_interval=0\nreplace_allowed_ips=true\nallowed_ip=10.5.2.0/24\n",
  ]);
  const keepalive = (seconds: number) =>
    `public_key=${key}\nupdate_only=true\npersistent_keepalive_interval=${seconds}\n`;
  assert.deepEqual(greetingRequestsOf(wireguardPeer(2)), [1, 0].map(keepalive));
  const peer = wireguardPeer(2, { keepaliveSeconds: 25 });
  assert.deepEqual(greetingRequestsOf(peer), [keepalive(25)]);
  const ipv6 = { address: IpAddress.parse("fd99::2"), port: 7 };
  assert.match(put(wireguardPeer(2, { endpoint: ipv6 }))[0]!, /^endpoint=\[fd99::2\]:7$/m);
  assert.deepEqual(requestsOf({ action: "remove", object: wireguardPeer(2), key: "" }), [
    `public_key=${key}\nremove=true\n`,
  ]);
});

Deno.test("program hand: an answer is a device and its peers", () => {
  const lines = (text: string) =>
    text.split("\n").map((line) => line.split("=") as [string, string]);
  const answer = [
    `private_key=${octets(1).toHex()}`,
    "listen_port=51820",
    `public_key=${octets(2).toHex()}`,
    `preshared_key=${"00".repeat(32)}`,
    "protocol_version=1",
    "endpoint=[fd99::2]:51821",
    `last_handshake_time_sec=${NOW_MS / 1000 - 179}`,
    "last_handshake_time_nsec=5",
    "tx_bytes=1",
    "rx_bytes=2",
    "persistent_keepalive_interval=25",
    "allowed_ip=10.5.2.0/24",
    "allowed_ip=fc00:5:0:2::/64",
    `public_key=${octets(3).toHex()}`,
    `preshared_key=${octets(7).toHex()}`,
    `last_handshake_time_sec=${NOW_MS / 1000 - 181}`,
  ].join("\n");
  const [device, a, b, ...more] = parseDevice(lines(answer), "flannel-wg", NOW_MS);
  assert.ok(
    device?.kind === "wireguard" && device.listenPort === 51820 &&
      WireguardSecret.equal(device.privateKey, wireguardDevice().privateKey),
  );
  const peer = wireguardPeer(2, {
    endpoint: { address: IpAddress.parse("fd99::2"), port: 51821 },
    keepaliveSeconds: 25,
    allowedIps: [Cidr.parse("10.5.2.0/24"), Cidr.parse("fc00:5:0:2::/64")],
  });
  const { begins: _, ...found } = peer;
  assert.deepEqual(a, {
    ...found,
    isHeard: true,
    handshakeAtMs: NOW_MS - 179_000,
    receivedBytes: 2,
    sentBytes: 1,
  });
  const { isHeard, endpoint, presharedKey } = b as FoundPeer;
  assert.deepEqual([isHeard, endpoint], [false, undefined]);
  assert.ok(WireguardSecret.equal(presharedKey, new WireguardSecret(octets(7))));
  assert.deepEqual(more, []);
});

/** A fake of a WireGuard program, which answers its first request too late, and refuses the others. */
const SLOW_PROGRAM = `
  const listener = Deno.listen({ transport: "unix", path: Deno.args[0] });
  console.log("listening");
  for await (const connection of listener) {
    await new Promise((done) => setTimeout(done, 8_000));
    const request = new Uint8Array(65_536);
    for (let errno = 0; await connection.read(request) !== null; errno = -22) {
      await connection.write(new TextEncoder().encode("errno=" + errno + "\\n\\n"));
    }
  }
`;

rootTest(
  "program hand: a program that does not answer is asked once, not for each peer",
  async () => {
    const device = `denim-${Deno.pid}`;
    const folder = "/var/run/wireguard";
    const path = `${folder}/${device}.sock`;
    Deno.mkdirSync(folder, { recursive: true });
    const program = new Deno.Command(Deno.execPath(), {
      args: ["eval", SLOW_PROGRAM, path],
      stdout: "piped",
    }).spawn();
    const output = program.stdout.getReader();
    try {
      await output.read();
      const startMs = performance.now();
      const steps = [2, 3, 4].map((n) => ({
        action: "put" as const,
        object: wireguardPeer(n),
        key: `${n}`,
        mayReplace: true,
      }));
      assert.throws(() => programHand.apply(device, steps), /it gave no answer/);
      assert.ok(performance.now() - startMs < 9_000);
    } finally {
      program.kill();
      await output.cancel();
      await program.status;
      Deno.removeSync(path);
    }
  },
);
