/**
 * What the two ways to a WireGuard device have in common: the kernel's own, and a program's.
 *
 * @module
 */

import type { WireguardDevice, WireguardEndpoint, WireguardPeer } from "../../kernel_state.ts";
import type { Step, StepFailure } from "../reconciler/kernel_table.ts";

/** What is wanted of WireGuard. */
export type WireguardObject = WireguardDevice | WireguardPeer;

/** A device as it is: it may have no private key yet, which no wanted one equals. */
export type FoundDevice = Omit<WireguardDevice, "privateKey"> & {
  readonly privateKey: WireguardDevice["privateKey"] | undefined;
};

/** A peer as a device has it. */
export type FoundPeer = Omit<WireguardPeer, "endpoint" | "begins"> & {
  /** Where its packets go now; `undefined` if the device does not know. */
  readonly endpoint: WireguardEndpoint | undefined;
  /**
   * Whether it proved lately that it is where `endpoint` says: it made a handshake in the last 180 s. Not
   * said of what denim has just written.
   */
  readonly isHeard?: boolean;
  /** When it made the latest handshake, in milliseconds since 1970; `undefined` before the first one. */
  readonly handshakeAtMs?: number | undefined;
  /** How much came from it and went to it, headers included, in bytes. */
  readonly receivedBytes?: number;
  /** See {@link FoundPeer.receivedBytes}. */
  readonly sentBytes?: number;
  /** Whether the device was down, and so forgot what it had agreed on with the peer, without a word to it since. */
  readonly isForgotten?: boolean;
};

/** What a device has. */
export type FoundWireguard = FoundDevice | FoundPeer;

/** A step about one device. */
export type WireguardStep = Step<WireguardObject, FoundWireguard>;
/** A step that puts a peer. */
export type PeerPut = WireguardStep & { readonly action: "put"; readonly object: WireguardPeer };
/** A step that failed. */
export type WireguardFailure = StepFailure<WireguardObject, FoundWireguard>;

/** For how long packets go by what a handshake agreed on, in milliseconds (`REJECT_AFTER_TIME` of the protocol, 180 s). */
const SESSION_MS = 180_000;

/** What both ways say of a handshake at this time, 0 if there was none yet. */
export function handshakeOf(
  atMs: number,
  nowMs: number,
): Pick<FoundPeer, "isHeard" | "handshakeAtMs"> {
  return { isHeard: nowMs - atMs < SESSION_MS, handshakeAtMs: atMs || undefined };
}

/** A way to WireGuard devices. */
export interface WireguardHand {
  /** What a device has. Throws a LinuxError. */
  read(device: string): readonly FoundWireguard[];
  /**
   * Takes steps about one device in the order given, and returns those that failed. A peer that is put has no keepalive
   * before it is greeted. Throws a LinuxError if the device can't be spoken to.
   */
  apply(device: string, steps: readonly WireguardStep[]): readonly WireguardFailure[];
  /** Greets peers that were put; see {@link greetingOf}. Returns the steps of those where that failed, and throws, likewise. */
  greet(device: string, put: readonly PeerPut[]): readonly WireguardFailure[];
}

/**
 * What the keepalive of a peer that was put without one is set to, in seconds, one after the other. A device sends a
 * packet when keepalive is switched on. For that it makes a handshake: so the first pod's packet does not wait for one,
 * and a peer that still uses what it agreed on with an earlier run of this node finds out at once rather than after 15 s.
 * A handshake costs twice what a peer does: no peer waits for others' handshakes if all are put before the first.
 */
export function greetingOf({ keepaliveSeconds }: WireguardPeer): readonly number[] {
  return keepaliveSeconds === 0 ? [1, 0] : [keepaliveSeconds];
}

/** The steps that put peers, but for those that failed. */
export function peersPut(
  steps: readonly WireguardStep[],
  failures: readonly WireguardFailure[],
): PeerPut[] {
  const failed = new Set(failures.map(({ step }) => step));
  return steps.filter((step): step is PeerPut =>
    step.action === "put" && step.object.kind === "wireguardPeer" && !failed.has(step)
  );
}
