/**
 * WireGuard as a table of the kernel's: what denim's devices are to their peers, and the peers. A device is the
 * kernel's own, or a program's; the table speaks to either.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import type { WireguardDevice, WireguardPeer } from "../../kernel_state.ts";
import { sleep } from "../../sleep.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import { deviceKey, type KernelContext } from "../objects/object_kind.ts";
import type { DesiredView, KernelTable, TableListener } from "../reconciler/kernel_table.ts";
import type { Links } from "../reconciler/links.ts";
import { ENODEV, LinuxError } from "../sys/linux_error.ts";
import { KernelHand } from "./kernel_hand.ts";
import { programHand } from "./program_hand.ts";
import type {
  FoundPeer,
  FoundWireguard,
  WireguardFailure,
  WireguardHand,
  WireguardObject,
  WireguardStep,
} from "./wireguard_hand.ts";

/** WireGuard reports nothing: this is how often denim looks whether others have changed it, in milliseconds. */
const LOOK_MS = 10_000;

/** What a {@link WireguardTable} works with. */
export interface WireguardTableOptions {
  /** The devices that there are. */
  readonly links: Pick<Links, "named">;
  /** The namespace. */
  readonly context: Pick<KernelContext, "isUp">;
  /** What owners want. */
  readonly desired: DesiredView;
}

/** Devices and their peers, in the network namespace of the thread that opens this. */
export class WireguardTable implements KernelTable<WireguardObject, FoundWireguard>, Disposable {
  readonly #options: WireguardTableOptions;
  readonly #kernel = new KernelHand();

  /** A table of the devices that owners want. */
  constructor(options: WireguardTableOptions) {
    this.#options = options;
  }

  /** Closes the socket. The devices stay. */
  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }

  /** See {@link KernelTable.key}. */
  key(object: FoundWireguard): string {
    return object.kind === "wireguard"
      ? wireguardKey(object.device)
      : `${wireguardKey(object.device)} peer ${object.publicKey}`;
  }

  /** See {@link KernelTable.equal}. */
  equal(wanted: WireguardObject, found: FoundWireguard): boolean {
    if (wanted.kind === "wireguard") {
      return found.kind === "wireguard" && wanted.listenPort === found.listenPort &&
        WireguardSecret.equal(wanted.privateKey, found.privateKey);
    }
    return found.kind === "wireguardPeer" && peerEqual(wanted, found);
  }

  /** See {@link KernelTable.ours}: all peers on denim's devices. What a device is goes with it. */
  ours({ kind }: FoundWireguard): boolean {
    return kind === "wireguardPeer";
  }

  /** See {@link KernelTable.needs}. */
  needs(object: WireguardObject): readonly string[] {
    const { device, kind } = object;
    return [
      ...kind === "wireguard" ? [] : [wireguardKey(device)],
      ...this.#options.context.isUp(device) ? [] : [deviceKey(device)],
    ];
  }

  /** See {@link KernelTable.carrier}. */
  carrier({ device }: WireguardObject): string {
    return deviceKey(device);
  }

  /** See {@link KernelTable.dump}. */
  dump(): FoundWireguard[] {
    const wanted = [...this.#options.desired.of("wireguard").values()];
    return wanted.flatMap(({ object }) => {
      const { device } = object as WireguardDevice;
      return this.#options.links.named(device) === undefined ? [] : this.#hand(device).read(device);
    });
  }

  /** See {@link KernelTable.apply}. Peers that are to go are gone with a device that is. */
  apply(steps: readonly WireguardStep[]): readonly WireguardFailure[] {
    const byDevice = Map.groupBy(steps, ({ object }) => object.device);
    return [...byDevice].flatMap(([device, steps]) => {
      try {
        const hand = this.#hand(device);
        return hand.apply(device, steps.filter((step) => !this.#isTaken(step, hand)));
      } catch (error) {
        throwDefect(error);
        return steps.filter(({ action }) => action === "put")
          .map((step) => ({ step, error: error as Error }));
      }
    });
  }

  /** Whether a device is as wanted already: a program that is told its port again opens it again. */
  #isTaken({ action, object }: WireguardStep, hand: WireguardHand): boolean {
    return action === "put" && object.kind === "wireguard" &&
      hand.read(object.device).some((found) => this.equal(object as WireguardDevice, found));
  }

  /** The way to a device. Throws a LinuxError if there is none. */
  #hand(device: string): WireguardHand {
    const link = this.#options.links.named(device);
    if (link === undefined) throw new LinuxError(ENODEV, wireguardKey(device));
    return link.tun === undefined ? this.#kernel : programHand;
  }

  /** See {@link KernelTable.listen}. */
  async listen(listener: TableListener<FoundWireguard>, signal: AbortSignal): Promise<void> {
    while (await sleep(LOOK_MS, signal)) {
      if (this.#options.desired.of("wireguard").size > 0) listener.lost();
    }
  }
}

function wireguardKey(device: string): string {
  return `WireGuard device ${device}`;
}

/**
 * A peer's endpoint moves with its packets, as it does for a node behind NAT: while it is heard from, where it is heard
 * from is right, whatever its lease says.
 */
function peerEqual(wanted: WireguardPeer, found: FoundPeer): boolean {
  const { endpoint, allowedIps } = found;
  return wanted.keepaliveSeconds === found.keepaliveSeconds &&
    WireguardSecret.equal(wanted.presharedKey, found.presharedKey) &&
    (found.isHeard || endpoint?.port === wanted.endpoint.port &&
        endpoint.address.equals(wanted.endpoint.address)) &&
    wanted.allowedIps.length === allowedIps.length &&
    wanted.allowedIps.every((cidr) => allowedIps.some((other) => `${other}` === `${cidr}`));
}
