/**
 * `denim peers`: the other nodes, how each is reached, and how it is.
 *
 * @module
 */

import { askAgent } from "./agent_client.ts";
import { formatColumns } from "./columns.ts";
import { isTrouble } from "./mesh/peer_health.ts";
import { type Screen, shortTime } from "./screen.ts";
import type { PeerReport, PeersReport, WireguardPeerReport } from "./status_report.ts";

const HELP = `Usage: denim peers [flags]

Lists the other nodes, as this node's agent sees them: how each is reached, whether it answers probes
over the data path that pods use, and since when that is so. Those in trouble come first:

  mtu        small packets reach it, the largest do not
  checksum   it refuses what has its checksum from a device: checksum offload is broken
  blocked    its address on the underlay answers, its subnet does not
  one-way    its packets come in, this node's do not reach it
  no-answer  it is down, or the underlay between is cut
  no-agent   it carries pods' packets, and its agent probes no more: it has ended, or hangs

Of peers that WireGuard reaches it tells where packets to them go, how long ago the two agreed on keys,
and how much came and went.
`;

/** Runs `denim peers`, and resolves to the exit code: 0 fine, 1 if no agent answers, 2 wrong usage. */
export function runPeers(args: readonly string[]): Promise<number> {
  return askAgent<PeersReport>(
    { name: "denim peers", help: HELP, path: "/peers", format: formatPeers },
    args,
  );
}

/** The report as people read it. */
function formatPeers({ peers, refused }: PeersReport, screen: Screen): string {
  const [troubled, others] = [peers.filter(isTroubled), peers.filter((one) => !isTroubled(one))];
  const tables = [formatColumns([
    ["SUBNET", "PUBLIC IP", "REACHED", "ROUND TRIP", "LOSS", "PATH MTU", "SINCE", "HEALTH"],
    ...[...troubled, ...others].map((peer) => row(peer, screen)),
  ])];
  const spoken = peers.filter(({ wireguard }) => wireguard !== null);
  if (spoken.length > 0) {
    const nowMs = Date.now();
    tables.push(formatColumns([
      ["BY WIREGUARD", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT"],
      ...spoken.map(({ subnet, wireguard }) => wireguardRow(subnet, wireguard!, nowMs)),
    ]));
  }
  if (refused.length > 0) {
    tables.push(formatColumns([
      ["NOT FOLLOWED", "WHY"],
      ...refused.map(({ key, reason }) => [key, screen.paint("doubtful", reason)]),
    ]));
  }
  return tables.join("\n\n");
}

function isTroubled({ health }: PeerReport): boolean {
  return health !== null && isTrouble(health);
}

function row(peer: PeerReport, screen: Screen): string[] {
  const { subnet, publicIp, backend, device, direct, changedAt } = peer;
  const { health, healthSince, roundTripMs, loss, pathMtuBytes } = peer;
  const way = device === null ? "" : direct ? ` direct by ${device}` : ` by ${device}`;
  return [
    subnet,
    publicIp,
    `${backend}${way}`,
    roundTripMs === null ? "-" : `${roundTripMs.toFixed(2)} ms`,
    loss === null ? "-" : `${Math.round(loss * 100)} %`,
    `${pathMtuBytes ?? "-"}`,
    shortTime(healthSince ?? changedAt),
    // Last, since colours have no width.
    health === null || health === "unknown"
      ? health ?? "not probed"
      : screen.paint(isTroubled(peer) ? "bad" : "good", health),
  ];
}

function wireguardRow(
  subnet: string,
  { endpoint, handshakeAt, receivedBytes, sentBytes }: WireguardPeerReport,
  nowMs: number,
): string[] {
  const handshake = handshakeAt === null ? "never" : formatAge(nowMs - Date.parse(handshakeAt));
  return [subnet, endpoint ?? "-", handshake, formatBytes(receivedBytes), formatBytes(sentBytes)];
}

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** `12.3 MB` */
function formatBytes(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${UNITS[power]}`;
}

/** `12 s ago`, `3 min ago`, `5 h ago` */
function formatAge(ageMs: number): string {
  const seconds = Math.max(Math.round(ageMs / 1000), 0);
  if (seconds < 120) return `${seconds} s ago`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min ago` : `${Math.round(minutes / 60)} h ago`;
}
