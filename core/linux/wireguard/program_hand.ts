/**
 * WireGuard devices of programs in user space, such as wireguard-go(1), by the programs' sockets.
 *
 * @module
 */

import { Cidr, IpAddress } from "../../ip.ts";
import type { WireguardDevice, WireguardEndpoint, WireguardPeer } from "../../kernel_state.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { applyEach } from "../reconciler/kernel_table.ts";
import { WG_KEY_LEN } from "../uapi/wireguard.ts";
import { UapiSocket } from "./uapi_socket.ts";
import {
  type FoundPeer,
  type FoundWireguard,
  greetingOf,
  handshakeOf,
  type WireguardFailure,
  type WireguardHand,
  type WireguardStep,
} from "./wireguard_hand.ts";

/** Devices whose programs have their sockets where this process sees them. */
export const programHand: WireguardHand = {
  read(device) {
    using socket = new UapiSocket(device);
    return parseDevice(socket.ask("get=1\n"), device, Date.now());
  },

  apply: (device, steps) => askEach(device, steps, requestsOf),
  greet: (device, put) => askEach(device, put, ({ object }) => greetingRequestsOf(object)),
};

/** Makes each step's requests, and returns the steps that failed. Throws a LinuxError if the program does not answer. */
function askEach<Each extends WireguardStep>(
  device: string,
  steps: readonly Each[],
  requestsOf: (step: Each) => readonly string[],
): WireguardFailure[] {
  using socket = new UapiSocket(device);
  const failures = applyEach(steps, (step) => {
    for (const request of requestsOf(step)) socket.ask(`set=1\n${request}`);
  });
  if (socket.failure !== undefined) throw socket.failure;
  return failures;
}

/** The requests of a step, as lines. A peer that is put has no keepalive yet; see {@link greetingRequestsOf}. */
export function requestsOf({ action, object }: WireguardStep): string[] {
  if (object.kind === "wireguard") {
    return action === "put" ? [deviceLines(object as WireguardDevice)] : [];
  }
  if (action === "remove") return [`${peerLine(object)}remove=true\n`];
  return [`${peerLine(object)}${wantedLines(object as WireguardPeer)}`];
}

/** The requests after which a peer that was put has its keepalive; see {@link greetingOf}. */
export function greetingRequestsOf(peer: WireguardPeer): string[] {
  return greetingOf(peer).map((seconds) =>
    `${peerLine(peer)}update_only=true\npersistent_keepalive_interval=${seconds}\n`
  );
}

function peerLine({ publicKey }: { readonly publicKey: string }): string {
  return `public_key=${Uint8Array.fromBase64(publicKey).toHex()}\n`;
}

function deviceLines({ privateKey, listenPort }: WireguardDevice): string {
  return `private_key=${privateKey.reveal().toHex()}\nlisten_port=${listenPort}\n`;
}

function wantedLines({ presharedKey, endpoint, allowedIps }: WireguardPeer): string {
  const psk = presharedKey?.reveal() ?? new Uint8Array(WG_KEY_LEN);
  return `preshared_key=${psk.toHex()}\nendpoint=${formatEndpoint(endpoint)}\n` +
    `persistent_keepalive_interval=0\nreplace_allowed_ips=true\n${
      allowedIps.map((cidr) => `allowed_ip=${cidr}\n`).join("")
    }`;
}

/** An endpoint as WireGuard's programs have it: `10.99.0.2:51820`, `[fd99::2]:51820`. */
export function formatEndpoint({ address, port }: WireguardEndpoint): string {
  return address.family === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}

function parseEndpoint(text: string): WireguardEndpoint | undefined {
  const [, host, port] = /^\[?([0-9a-f.:]+)\]?:(\d+)$/.exec(text) ?? [];
  const address = host === undefined ? undefined : IpAddress.tryParse(host);
  return address && { address, port: Number(port) };
}

/** Reads the answer to `get=1`: the device's own lines, and then each peer's from its `public_key` on. */
export function parseDevice(
  lines: readonly (readonly [key: string, value: string])[],
  device: string,
  nowMs: number,
): FoundWireguard[] {
  const groups: (readonly [string, string])[][] = [[]];
  for (const line of lines) {
    if (line[0] === "public_key") groups.push([]);
    groups.at(-1)!.push(line);
  }
  const [own, ...peers] = groups;
  const { private_key: privateKey, listen_port: listenPort } = Object.fromEntries(own!);
  return [
    {
      kind: "wireguard",
      device,
      privateKey: secretOf(privateKey),
      listenPort: Number(listenPort ?? 0),
    },
    ...peers.map((group) => parsePeer(group, device, nowMs)),
  ];
}

function parsePeer(
  lines: readonly (readonly [string, string])[],
  device: string,
  nowMs: number,
): FoundPeer {
  const one = Object.fromEntries(lines);
  const handshakeMs = Number(one.last_handshake_time_sec ?? 0) * 1000;
  return {
    kind: "wireguardPeer",
    device,
    publicKey: Uint8Array.fromHex(one.public_key!).toBase64(),
    presharedKey: secretOf(one.preshared_key),
    endpoint: parseEndpoint(one.endpoint ?? ""),
    ...handshakeOf(handshakeMs, nowMs),
    receivedBytes: Number(one.rx_bytes ?? 0),
    sentBytes: Number(one.tx_bytes ?? 0),
    keepaliveSeconds: Number(one.persistent_keepalive_interval ?? 0),
    allowedIps: lines.filter(([key]) => key === "allowed_ip").map(([, text]) => Cidr.parse(text)),
  };
}

/** Zeros stand for no key. */
function secretOf(hex: string | undefined): WireguardSecret | undefined {
  return hex === undefined || /^0*$/.test(hex)
    ? undefined
    : new WireguardSecret(Uint8Array.fromHex(hex));
}
