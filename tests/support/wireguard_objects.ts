/**
 * What a WireGuard table is asked for, for its tests.
 *
 * @module
 */

import {
  Cidr,
  IpAddress,
  type Link,
  type WireguardDevice,
  type WireguardPeer,
  WireguardSecret,
} from "@denim/core";

/** Key octets that are the same number, made a private key's as every device has it (RFC 7748). */
export function octets(number: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(32).fill(number);
  bytes[0]! &= 248;
  bytes[31] = bytes[31]! & 127 | 64;
  return bytes;
}

/** The public key of a private one, as base64: X25519 with the base point 9 (RFC 7748 section 6.1). */
export async function publicKeyOf(privateKey: Uint8Array): Promise<string> {
  const name = { name: "X25519" };
  const pkcs8 = Uint8Array.fromHex(`302e020100300506032b656e04220420${privateKey.toHex()}`);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, name, false, ["deriveBits"]);
  const base = new Uint8Array(32);
  base[0] = 9;
  const point = await crypto.subtle.importKey("raw", base, name, false, []);
  const bits = await crypto.subtle.deriveBits({ ...name, public: point }, key, 256);
  return new Uint8Array(bits).toBase64();
}

/** A device of this name as a link of a node, made by this program where the kernel has none. */
export function wireguardLink(name: string, program = "wireguard-go"): Link {
  return { kind: "link", name, mtuBytes: 1420, info: { type: "wireguard", program } };
}

/** What a device is to its peers. */
export function wireguardDevice(changes: Partial<WireguardDevice> = {}): WireguardDevice {
  return {
    kind: "wireguard",
    device: "flannel-wg",
    privateKey: new WireguardSecret(octets(1)),
    listenPort: 51820,
    ...changes,
  };
}

/** The peer with this number: its key, its address on the underlay, and its subnet have it. */
export function wireguardPeer(number: number, changes: Partial<WireguardPeer> = {}): WireguardPeer {
  return {
    kind: "wireguardPeer",
    device: "flannel-wg",
    publicKey: octets(number).toBase64(),
    presharedKey: undefined,
    endpoint: { address: IpAddress.parse(`10.99.0.${number}`), port: 51820 },
    keepaliveSeconds: 0,
    allowedIps: [Cidr.parse(`10.5.${number}.0/24`)],
    begins: true,
    ...changes,
  };
}
