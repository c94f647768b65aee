/**
 * What the agent says of WireGuard, if that carries pods' packets.
 *
 * @module
 */

import { type KernelState, throwDefect } from "@denim/core";
import { type WireguardPeerStatus, wireguardStatus } from "@denim/core/linux";
import type { WireguardPeerReport, WireguardReport } from "./status_report.ts";

/** The devices of WireGuard that a node should have, as they are. */
export function wireguardReports(state: KernelState): WireguardReport[] {
  const programs = new Map(
    state.flatMap((object) =>
      object.kind === "link" && object.info.type === "wireguard"
        ? [[object.name, object.info.program]]
        : []
    ),
  );
  return state.flatMap((object) => {
    if (object.kind !== "wireguard") return [];
    const { device, listenPort } = object;
    const status = wireguardStatus(device);
    if (status === undefined) return [];
    return [{ device, by: status.isKernel ? "kernel" : programs.get(device)!, listenPort }];
  });
}

/** What a node's devices of WireGuard say of their peers, by the subnet of each; nothing where they can't be asked. */
export function wireguardPeers(
  devices: readonly WireguardReport[],
): ReadonlyMap<string, WireguardPeerReport> {
  return new Map(
    devices.flatMap(({ device }) => [...readPeers(device)]).map(
      ([subnet, { endpoint, handshakeAtMs, receivedBytes, sentBytes }]) => [subnet, {
        endpoint: endpoint ?? null,
        handshakeAt: handshakeAtMs === undefined ? null : new Date(handshakeAtMs).toISOString(),
        receivedBytes,
        sentBytes,
      }],
    ),
  );
}

function readPeers(device: string): ReadonlyMap<string, WireguardPeerStatus> {
  try {
    return wireguardStatus(device)?.peers() ?? new Map();
  } catch (error) {
    throwDefect(error);
    return new Map();
  }
}
