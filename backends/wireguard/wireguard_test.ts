import {
  ConfigError,
  type Family,
  IpAddress,
  type KernelState,
  parseLease,
  type Peer,
  readConfig,
  RuntimeError,
  WireguardSecret,
} from "@denim/core";
import assert from "node:assert/strict";
import { nodeContext, type TestNodeContext } from "../../tests/support/node_context.ts";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { TempFolder } from "../../tests/support/temp_folder.ts";
import { readKeyFile } from "./key_file.ts";
import { wireguard, type WireguardPeerData } from "./mod.ts";

const DUAL = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };
const KEY = "YAnz5TF+lXXJte14tjiYUaHpqzEYZGvKATRS13nV+Vo=";
const PUBLIC_KEY = "scbpMlGyJTxQrtQzF6F6G5AF1a83qi9oxr1NQdvZ5iw=";
const PSK = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";

/** Runs something with a key file at its place, gone afterwards. */
async function withKeyFile<T>(work: (path: string) => Promise<T>, text?: string): Promise<T> {
  using folder = new TempFolder();
  const path = `${folder.path}/flannel/wgkey`;
  if (text !== undefined) {
    Deno.mkdirSync(`${folder.path}/flannel`);
    Deno.writeTextFileSync(path, text, { mode: 0o600 });
  }
  return await work(path);
}

/** Opens the backend with the key file of {@link KEY}. */
function open(
  netConf: Record<string, unknown> = {},
  options: Record<string, unknown> = {},
  outer: Partial<TestNodeContext["outer"]> = {},
) {
  return withKeyFile(async (path) => {
    Deno.env.set("WIREGUARD_KEY_FILE", path);
    try {
      const node = nodeContext({ netConf, outer });
      return await wireguard.open(node, readConfig(wireguard.options, options, "net-conf"));
    } finally {
      Deno.env.delete("WIREGUARD_KEY_FILE");
    }
  }, KEY);
}

/** A peer with a lease of these public IPs; IPv6's half if it has such a one. */
function peerAt(
  publicIp: string,
  publicIpv6?: string,
  ports = [51820, 51821],
): Peer<WireguardPeerData> {
  const key = new Uint8Array(32).fill(7).toBase64();
  const lease = parseLease(
    publicIpv6 === undefined ? "10.5.2.0-24" : "10.5.2.0-24&fc00:5:0:2::-64",
    JSON.stringify({
      PublicIP: publicIp,
      PublicIPv6: publicIpv6,
      BackendType: "wireguard",
      BackendData: { PublicKey: key, Port: ports[0] },
      BackendV6Data: { PublicKey: key, Port: ports[1] },
    }),
  );
  return {
    key: lease.key,
    halves: lease.halves.map(({ backendData, ...half }) => ({
      ...half,
      data: wireguard.peerData.parse(backendData),
    })),
  };
}

/** Kernel state as lines, for a table. */
function lines(state: KernelState): string[] {
  return state.map((object) => {
    switch (object.kind) {
      case "link":
        return `${object.info.type} ${object.name} mtu ${object.mtuBytes}`;
      case "wireguard":
        return `${object.device} port ${object.listenPort} key ${object.privateKey.reveal().toBase64()}`;
      case "wireguardPeer": {
        const { endpoint: { address, port }, allowedIps, keepaliveSeconds, presharedKey } = object;
        const psk = presharedKey === undefined ? "" : " psk";
        return `${object.device} peer at ${address} port ${port} keepalive ${keepaliveSeconds}${psk} ` +
          allowedIps.join(" ");
      }
      case "address":
        return `address ${object.device} ${object.address}/${object.prefixLength}`;
      case "route":
        return `route ${object.destination} ` +
          ("device" in object ? `dev ${object.device} src ${object.source}` : "by nexthop");
      default:
        return object.kind;
    }
  });
}

const LEASE = parseLease(
  "10.5.1.0-24&fc00:5:0:1::-64",
  '{"PublicIP":"10.99.0.1","PublicIPv6":"fd99::1"}',
);

Deno.test("wireguard: a device of flannel's for each family, an address, and a route for the network", async () => {
  await using session = await open(DUAL);
  const devices = [
    "wireguard flannel-wg mtu 1420",
    `flannel-wg port 51820 key ${KEY}`,
    "wireguard flannel-wg-v6 mtu 1420",
    `flannel-wg-v6 port 51821 key ${KEY}`,
  ];
  assert.deepEqual(lines(session.nodeState(undefined)), devices);
  assert.deepEqual(lines(session.nodeState(LEASE)), [
    ...devices,
    "address flannel-wg 10.5.1.0/32",
    "route 10.5.0.0/16 dev flannel-wg src 10.5.1.0",
    "address flannel-wg-v6 fc00:5:0:1::/128",
    "route fc00:5::/48 dev flannel-wg-v6 src fc00:5:0:1::",
  ]);
  assert.equal(session.mtuBytes, 1420);
  assert.deepEqual([...session.publishes], [
    [4, { PublicKey: PUBLIC_KEY, Port: 51820 }],
    [6, { PublicKey: PUBLIC_KEY, Port: 51821 }],
  ]);
});

Deno.test("wireguard: a mode with one device has both families on it", async () => {
  await using session = await open(DUAL, { Mode: "auto", ListenPort: 9000, MTU: 1400 });
  assert.deepEqual(lines(session.nodeState(LEASE)), [
    "wireguard flannel-wg mtu 1320",
    `flannel-wg port 9000 key ${KEY}`,
    "address flannel-wg 10.5.1.0/32",
    "route 10.5.0.0/16 dev flannel-wg src 10.5.1.0",
    "address flannel-wg fc00:5:0:1::/128",
    "route fc00:5::/48 dev flannel-wg src fc00:5:0:1::",
  ]);
  assert.deepEqual([...session.publishes.values()].map(({ Port }) => Port), [9000, 9000]);
});

Deno.test("wireguard: which way a peer is reached in each mode", async () => {
  const privates = ["10.99.0.2", "fd99::2"] as const;
  const both = "10.5.2.0/24 fc00:5:0:2::/64";
  const publicOuter = new Map<Family, IpAddress>([
    [4, IpAddress.parse("10.99.0.1")],
    [6, IpAddress.parse("2001:db8::1")],
  ]);
  for (
    const [options, peer, expected, publicIps] of [
      [{ Mode: "separate" }, peerAt(...privates), [
        "flannel-wg peer at 10.99.0.2 port 51820 keepalive 0 10.5.2.0/24",
        "flannel-wg-v6 peer at fd99::2 port 51821 keepalive 0 fc00:5:0:2::/64",
      ]],
      [{ Mode: "ipv4" }, peerAt(...privates), [
        `flannel-wg peer at 10.99.0.2 port 51820 keepalive 0 ${both}`,
      ]],
      [{ Mode: "ipv6" }, peerAt(...privates), [
        `flannel-wg peer at fd99::2 port 51820 keepalive 0 ${both}`,
      ]],
      [{ Mode: "auto" }, peerAt(...privates), [
        `flannel-wg peer at 10.99.0.2 port 51820 keepalive 0 ${both}`,
      ]],
      [{ Mode: "auto" }, peerAt("192.0.2.2", "2001:db8::2"), [
        `flannel-wg peer at 192.0.2.2 port 51820 keepalive 0 ${both}`,
      ], publicOuter],
      [{ Mode: "auto" }, peerAt("10.99.0.2", "2001:db8::2"), [
        `flannel-wg peer at 2001:db8::2 port 51820 keepalive 0 ${both}`,
      ], publicOuter],
      [{ Mode: "auto" }, peerAt("10.99.0.2", "2001:db8::2"), [
        `flannel-wg peer at 10.99.0.2 port 51820 keepalive 0 ${both}`,
      ]],
      [{ Mode: "auto" }, peerAt("10.99.0.2"), [
        "flannel-wg peer at 10.99.0.2 port 51820 keepalive 0 10.5.2.0/24",
      ]],
      [
        { PSK, PersistentKeepaliveInterval: 25, ListenPort: 9 },
        peerAt("10.99.0.2", undefined, [0]),
        [
          "flannel-wg peer at 10.99.0.2 port 9 keepalive 25 psk 10.5.2.0/24",
        ],
      ],
    ] as const
  ) {
    await using session = await open(DUAL, options, publicIps && { publicIps });
    assert.deepEqual(lines(session.peerState(peer)), expected, JSON.stringify(options));
  }
});

Deno.test("wireguard: a peer with this node's key is a clone; one with its public IP is not", async () => {
  await using session = await open();
  const peer = peerAt("10.99.0.1");
  assert.equal(session.conflict!(peer), undefined);
  assert.equal(wireguard.sharesPublicIp, true);
  const [half] = peer.halves;
  const clone = { ...peer, halves: [{ ...half!, data: { PublicKey: PUBLIC_KEY, Port: 1 } }] };
  assert.equal(session.conflict!(clone), `WireGuard key ${PUBLIC_KEY}`);
});

Deno.test("wireguard: of two nodes that meet, the one whose public key comes first begins", async () => {
  await using session = await open();
  const peer = peerAt("10.99.0.2");
  for (const [octet, begins] of [[0, false], [0xcf, true]] as const) {
    const data = { PublicKey: new Uint8Array(32).fill(octet).toBase64(), Port: 1 };
    assert.equal(PUBLIC_KEY < data.PublicKey, begins);
    const [object] = session.peerState({ ...peer, halves: [{ ...peer.halves[0]!, data }] });
    assert.ok(object?.kind === "wireguardPeer" && object.begins === begins);
  }
});

Deno.test("wireguard: what net-conf can't ask for is named, and no secret is", async () => {
  for (
    const [netConf, options, complaint] of [
      [{}, { PSK: "hush" }, /Backend\.PSK is "\(a secret\)": expected 32 octets in base64/],
      [{}, { PSK: 1234567890 }, /PSK is "\(a secret\)"/],
      [{}, { Mode: "both" }, /Mode is "both"/],
      [{}, { Mode: "ipv6" }, /Backend\.Mode "ipv6" is over IPv6, which net-conf does not enable/],
      [{}, { PersistentKeepaliveInterval: -1 }, /PersistentKeepaliveInterval is -1/],
      [{}, { MTU: 100 }, /an outer MTU of 100 leaves 20 bytes/],
    ] as const
  ) {
    await assert.rejects(
      async () => {
        readConfig(wireguard.options, options, "net-conf", ["Backend"]);
        await open(netConf, options);
      },
      (error: unknown) => {
        assert.ok(error instanceof ConfigError && complaint.test(error.message), String(error));
        assert.doesNotMatch(error.message, /hush|1234567890/);
        return true;
      },
    );
  }
});

Deno.test("key file: made once, for its owner alone, and then read", async () => {
  await withKeyFile(async (path) => {
    const log = new RecordingLog();
    const made = await readKeyFile(path, log);
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
    const text = Deno.readTextFileSync(path);
    assert.equal(made.privateKey.reveal().toBase64(), text);
    const read = await readKeyFile(path, log);
    assert.equal(read.publicKey, made.publicKey);
    assert.ok(WireguardSecret.equal(read.privateKey, made.privateKey));
    assert.ok(!JSON.stringify(log.lines).includes(text), "not in the log");
  });
});

Deno.test("key file: flannel's is read, with the public key that wg(8) gives it", async () => {
  for (const text of [KEY, `${KEY}\n`]) {
    const { publicKey } = await withKeyFile((path) => readKeyFile(path, new RecordingLog()), text);
    assert.equal(publicKey, PUBLIC_KEY);
  }
});

Deno.test("key file: one that others can read is closed, and that is said", async () => {
  await withKeyFile(async (path) => {
    Deno.chmodSync(path, 0o644);
    const log = new RecordingLog();
    await readKeyFile(path, log);
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
    assert.equal(log.of("key-file-open").length, 1);
  }, KEY);
});

Deno.test("key file: one that holds no key, or can't be, is named without its text", async () => {
  await withKeyFile(async (path) => {
    await assert.rejects(
      readKeyFile(path, new RecordingLog()),
      (error: unknown) =>
        error instanceof RuntimeError && /wgkey holds no private key/.test(error.message) &&
        !error.message.includes("hush"),
    );
    await assert.rejects(readKeyFile(`${path}/below`, new RecordingLog()), /can't be read/);
  }, "hush");
});
