/**
 * The kernel's WireGuard devices, by generic netlink (linux/wireguard.h).
 *
 * @module
 */

import { Cidr, IpAddress } from "../../ip.ts";
import type { WireguardDevice, WireguardEndpoint, WireguardPeer } from "../../kernel_state.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { beginGeneric, genericFamily } from "../netlink/generic_netlink.ts";
import { attributesOf, type MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { addressFamily } from "../sys/address_family.ts";
import { LinuxError } from "../sys/linux_error.ts";
import { SOCKADDR_ADDRESS, SOCKADDR_LEN } from "../sys/socket_address.ts";
import { GENL_HDRLEN } from "../uapi/genetlink.ts";
import { NETLINK_GENERIC } from "../uapi/netlink.ts";
import {
  WG_CMD_GET_DEVICE,
  WG_CMD_SET_DEVICE,
  WG_GENL_NAME,
  WG_GENL_VERSION,
  WG_KEY_LEN,
  WGALLOWEDIP_A_CIDR_MASK,
  WGALLOWEDIP_A_FAMILY,
  WGALLOWEDIP_A_IPADDR,
  WGDEVICE_A_IFNAME,
  WGDEVICE_A_LISTEN_PORT,
  WGDEVICE_A_PEERS,
  WGDEVICE_A_PRIVATE_KEY,
  WGPEER_A_ALLOWEDIPS,
  WGPEER_A_ENDPOINT,
  WGPEER_A_FLAGS,
  WGPEER_A_LAST_HANDSHAKE_TIME,
  WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL,
  WGPEER_A_PRESHARED_KEY,
  WGPEER_A_PUBLIC_KEY,
  WGPEER_A_RX_BYTES,
  WGPEER_A_TX_BYTES,
  WGPEER_F_REMOVE_ME,
  WGPEER_F_REPLACE_ALLOWEDIPS,
  WGPEER_F_UPDATE_ONLY,
} from "../uapi/wireguard.ts";
import {
  type FoundDevice,
  type FoundPeer,
  type FoundWireguard,
  greetingOf,
  handshakeOf,
  type PeerPut,
  type WireguardFailure,
  type WireguardHand,
  type WireguardStep,
} from "./wireguard_hand.ts";

/** A batch's size in bytes, as of an `RtnetlinkTable`. */
const BATCH_BYTES = 60_000;
/** Zeros, which stand for no preshared key. */
const NO_KEY = new Uint8Array(WG_KEY_LEN);
/** How many peers share a message. */
const PEERS_IN_MESSAGE = 32;

/** Devices of the network namespace of the thread that opens this. */
export class KernelHand implements WireguardHand, Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_GENERIC);
  readonly #writer = new MessageWriter();
  #family: number | undefined;

  /** Closes the socket. The devices stay. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  /** Looked up when there is a device, and so the kernel has its module. */
  get #familyId(): number {
    return this.#family ??= genericFamily(this.#socket, WG_GENL_NAME);
  }

  /** See {@link WireguardHand.read}. */
  read(device: string): FoundWireguard[] {
    const family = this.#familyId;
    const parts = this.#socket.dump(
      `read WireGuard device ${device}`,
      (writer) => writeGetDevice(writer, family, device),
      (reader) => parseDevice(reader, device, Date.now()),
    );
    return joinParts(parts);
  }

  /** See {@link WireguardHand.apply}. */
  apply(device: string, steps: readonly WireguardStep[]): WireguardFailure[] {
    const family = this.#familyId;
    return this.#send(steps, (group) => writeSteps(this.#writer, family, device, group));
  }

  /** See {@link WireguardHand.greet}. */
  greet(device: string, put: readonly PeerPut[]): WireguardFailure[] {
    const family = this.#familyId;
    return this.#send(put, (group) => {
      writeGreetings(this.#writer, family, device, group.map(({ object }) => object));
    });
  }

  /**
   * Sends what `write` makes of steps, and returns those that failed. Peers share messages: a message costs the kernel
   * more than a peer. It says of one that failed what was wrong and not with which peer; so each is tried again alone.
   */
  #send<Each extends WireguardStep>(
    steps: readonly Each[],
    write: (group: readonly Each[]) => void,
  ): WireguardFailure[] {
    const failed = this.#sendGroups(groupsOf(steps), write);
    const alone = [...failed.keys()].filter(({ length }) => length > 1).flat();
    const errors = new Map([...failed, ...this.#sendGroups(alone.map((step) => [step]), write)]);
    return [...errors].filter(([{ length }]) => length === 1).map(([group, cause]) => {
      const step = group[0]!;
      const { errno, detail } = cause;
      return { step, error: new LinuxError(errno, `${step.action} ${step.key}`, detail) };
    });
  }

  /** Sends a message for each group, in batches, and returns the errors of those that failed. */
  #sendGroups<Each extends WireguardStep>(
    groups: readonly (readonly Each[])[],
    write: (group: readonly Each[]) => void,
  ): Map<readonly Each[], LinuxError> {
    const failed = new Map<readonly Each[], LinuxError>();
    const writer = this.#writer;
    let sent: (readonly Each[])[] = [];
    const flush = () => {
      for (const { index, error } of this.#socket.send(writer)) failed.set(sent[index]!, error);
      writer.clear();
      sent = [];
    };
    writer.clear();
    for (const group of groups) {
      write(group);
      while (sent.length < writer.count) sent.push(group);
      if (writer.length > BATCH_BYTES) flush();
    }
    flush();
    return failed;
  }
}

/** Steps that share a message, in their order: so many about peers at most, or one about the device. */
function groupsOf<Each extends WireguardStep>(steps: readonly Each[]): Each[][] {
  const groups: Each[][] = [];
  let group: Each[] = [], isOfPeers = false;
  for (const step of steps) {
    const isPeer = step.object.kind === "wireguardPeer";
    if (!isPeer || !isOfPeers || group.length === PEERS_IN_MESSAGE) groups.push(group = []);
    group.push(step);
    isOfPeers = isPeer;
  }
  return groups;
}

/** Writes the question for all of a device. */
export function writeGetDevice(writer: MessageWriter, family: number, device: string): void {
  beginGeneric(writer, family, WG_CMD_GET_DEVICE, WG_GENL_VERSION)
    .stringAttribute(WGDEVICE_A_IFNAME, device).end();
}

/** Writes the message of steps about peers, or of one about the device. A peer that is put has no keepalive yet. */
export function writeSteps(
  writer: MessageWriter,
  family: number,
  device: string,
  steps: readonly WireguardStep[],
): void {
  const [{ action, object }] = steps as [WireguardStep];
  if (object.kind === "wireguard") {
    if (action === "put") writeDevice(beginSet(writer, family, device), object as WireguardDevice);
    return;
  }
  beginSet(writer, family, device);
  const peers = writer.beginNested(WGDEVICE_A_PEERS);
  for (const { action, object } of steps) {
    const peer = object as WireguardPeer;
    if (action === "put") writeWanted(writer, peer);
    else writer.endNested(beginPeer(writer, peer, WGPEER_F_REMOVE_ME));
  }
  writer.endNested(peers);
  writer.end();
}

/** Writes the message after which peers that were put have their keepalive; see {@link greetingOf}. */
export function writeGreetings(
  writer: MessageWriter,
  family: number,
  device: string,
  peers: readonly WireguardPeer[],
): void {
  beginSet(writer, family, device);
  const all = writer.beginNested(WGDEVICE_A_PEERS);
  for (const peer of peers) {
    for (const seconds of greetingOf(peer)) {
      const start = beginPeer(writer, peer, WGPEER_F_UPDATE_ONLY);
      writer.u16Attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, seconds).endNested(start);
    }
  }
  writer.endNested(all);
  writer.end();
}

function beginSet(writer: MessageWriter, family: number, device: string): MessageWriter {
  return beginGeneric(writer, family, WG_CMD_SET_DEVICE, WG_GENL_VERSION)
    .stringAttribute(WGDEVICE_A_IFNAME, device);
}

function writeDevice(writer: MessageWriter, { privateKey, listenPort }: WireguardDevice): void {
  writer.bytesAttribute(WGDEVICE_A_PRIVATE_KEY, privateKey.reveal())
    .u16Attribute(WGDEVICE_A_LISTEN_PORT, listenPort).end();
}

/** Returns its place, by which it is ended. */
function beginPeer(
  writer: MessageWriter,
  { publicKey }: Pick<WireguardPeer, "publicKey">,
  flags: number,
): number {
  const start = writer.beginNested(0);
  keyOctets.setFromBase64(publicKey);
  writer.bytesAttribute(WGPEER_A_PUBLIC_KEY, keyOctets).u32Attribute(WGPEER_A_FLAGS, flags);
  return start;
}

/** Of the public key that is being written: an array for each would cost more than all else of a peer. */
const keyOctets = new Uint8Array(WG_KEY_LEN);

function writeWanted(writer: MessageWriter, peer: WireguardPeer): void {
  const { presharedKey, endpoint, allowedIps } = peer;
  const start = beginPeer(writer, peer, WGPEER_F_REPLACE_ALLOWEDIPS);
  writer.bytesAttribute(WGPEER_A_PRESHARED_KEY, presharedKey?.reveal() ?? NO_KEY)
    .socketAddressAttribute(WGPEER_A_ENDPOINT, endpoint.address, endpoint.port)
    .u16Attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, 0);
  const networks = writer.beginNested(WGPEER_A_ALLOWEDIPS);
  for (const { address, prefixLength } of allowedIps) {
    const network = writer.beginNested(0);
    writer.u16Attribute(WGALLOWEDIP_A_FAMILY, addressFamily(address.family))
      .addressAttribute(WGALLOWEDIP_A_IPADDR, address)
      .u8Attribute(WGALLOWEDIP_A_CIDR_MASK, prefixLength)
      .endNested(network);
  }
  writer.endNested(networks);
  writer.endNested(start);
}

/** What one message of a dump says. */
export interface DevicePart {
  /** The device; only the first message says all of it. */
  readonly device: FoundDevice;
  /** Peers; the first may be the rest of the message before, with more networks. */
  readonly peers: readonly FoundPeer[];
}

/** Reads a message of a dump. */
export function parseDevice(reader: MessageReader, device: string, nowMs: number): DevicePart {
  reader.readAttributes(GENL_HDRLEN);
  const key = reader.bytesAttribute(WGDEVICE_A_PRIVATE_KEY);
  const peers = [...attributesOf(reader.bytesAttribute(WGDEVICE_A_PEERS) ?? NONE)];
  return {
    device: {
      kind: "wireguard",
      device,
      privateKey: key && new WireguardSecret(key),
      listenPort: reader.u16Attribute(WGDEVICE_A_LISTEN_PORT) ?? 0,
    },
    peers: peers.map(([, bytes]) => parsePeer(bytes, device, nowMs)),
  };
}

const NONE = new Uint8Array();

function parsePeer(bytes: Uint8Array, device: string, nowMs: number): FoundPeer {
  const attributes = new Map(attributesOf(bytes));
  const view = (type: number) => {
    const value = attributes.get(type) ?? NONE;
    return new DataView(value.buffer, value.byteOffset, value.byteLength);
  };
  const psk = attributes.get(WGPEER_A_PRESHARED_KEY);
  const keepalive = view(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL);
  const handshake = view(WGPEER_A_LAST_HANDSHAKE_TIME);
  const seconds = handshake.byteLength < 8 ? 0 : Number(handshake.getBigInt64(0, true));
  return {
    kind: "wireguardPeer",
    device,
    publicKey: (attributes.get(WGPEER_A_PUBLIC_KEY) ?? NONE).toBase64(),
    presharedKey: psk?.some((octet) => octet !== 0) ? new WireguardSecret(psk) : undefined,
    endpoint: parseEndpoint(view(WGPEER_A_ENDPOINT)),
    ...handshakeOf(seconds * 1000, nowMs),
    receivedBytes: bytesOf(view(WGPEER_A_RX_BYTES)),
    sentBytes: bytesOf(view(WGPEER_A_TX_BYTES)),
    keepaliveSeconds: keepalive.byteLength < 2 ? 0 : keepalive.getUint16(0, true),
    allowedIps: [...attributesOf(attributes.get(WGPEER_A_ALLOWEDIPS) ?? NONE)]
      .map(([, network]) => {
        const parts = new Map(attributesOf(network));
        const address = IpAddress.fromBytes(parts.get(WGALLOWEDIP_A_IPADDR) ?? NONE);
        return new Cidr(address, parts.get(WGALLOWEDIP_A_CIDR_MASK)?.[0] ?? 0);
      }),
  };
}

function bytesOf(view: DataView): number {
  return view.byteLength < 8 ? 0 : Number(view.getBigUint64(0, true));
}

/** Reads a `struct sockaddr_in` or `sockaddr_in6`. */
function parseEndpoint(view: DataView): WireguardEndpoint | undefined {
  const family = view.byteLength === SOCKADDR_LEN[4] ? 4 : 6;
  if (view.byteLength !== SOCKADDR_LEN[family]) return undefined;
  const at = view.byteOffset + SOCKADDR_ADDRESS[family];
  const bytes = new Uint8Array(view.buffer, at, family === 4 ? 4 : 16);
  return { address: IpAddress.fromBytes(bytes), port: view.getUint16(2) };
}

/** Joins what the messages of a dump say: a peer with many networks may be spread over several. */
function joinParts(parts: readonly DevicePart[]): FoundWireguard[] {
  const peers = new Map<string, FoundPeer>();
  for (const peer of parts.flatMap(({ peers }) => peers)) {
    const before = peers.get(peer.publicKey);
    peers.set(
      peer.publicKey,
      before ? { ...before, allowedIps: [...before.allowedIps, ...peer.allowedIps] } : peer,
    );
  }
  return [...parts.slice(0, 1).map(({ device }) => device), ...peers.values()];
}
