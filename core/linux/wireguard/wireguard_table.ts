/**
 * WireGuard as a table of the kernel's: what denim's devices are to their peers, and the peers. A device is the
 * kernel's own, or a program's; the table speaks to either.
 *
 * @module
 */

import { RuntimeError, throwDefect } from "../../errors.ts";
import { EventCounter } from "../../event_counter.ts";
import type { WireguardDevice, WireguardPeer } from "../../kernel_state.ts";
import { MAX_SLEEP_MS, msToTick, sleep } from "../../sleep.ts";
import { WireguardSecret } from "../../wireguard_key.ts";
import type { LinkState } from "../objects/link.ts";
import { deviceKey, type KernelContext } from "../objects/object_kind.ts";
import type { DesiredView, KernelTable, TableListener } from "../reconciler/kernel_table.ts";
import type { Links } from "../reconciler/links.ts";
import { EADDRINUSE, ENODEV, LinuxError } from "../sys/linux_error.ts";
import { KernelHand } from "./kernel_hand.ts";
import { programHand } from "./program_hand.ts";
import {
  type FoundPeer,
  type FoundWireguard,
  type PeerPut,
  peersPut,
  type WireguardFailure,
  type WireguardHand,
  type WireguardObject,
  type WireguardStep,
} from "./wireguard_hand.ts";

/** WireGuard reports nothing: this is how often denim looks whether others have changed it, in milliseconds. */
const LOOK_MS = 500;
/** And so often whether there is something to look at by now. */
const IDLE_MS = 1000;
/** With many peers it looks less often: a wait takes this many times as long as a look. */
const WAITS_TO_LOOK = 100;
/** How long a peer may take to begin, from when it is put, in milliseconds: a handshake's three ways, and more. */
const BEGIN_MS = 300;

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
  /** Devices that were down since they had a word with all their peers. */
  readonly #wereDown = new Set<string>();
  /** Devices that this table has listed. */
  readonly #listed = new Set<string>();
  /** Keys of peers that this table has put: they have met this node. */
  readonly #met = new Set<string>();
  /** Peers that are to begin and were put lately, by key. */
  readonly #expected = new Map<string, PeerPut>();
  /** Counts those that are put. */
  readonly #arrivals = new EventCounter();

  /** A table of the devices that owners want. */
  constructor(options: WireguardTableOptions) {
    this.#options = options;
  }

  /** Closes the socket. The devices stay. */
  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }

  /**
   * Told of a change of a device. The kernel's forgets what it agreed on with its peers when it goes down. They don't, and
   * would go on like that for 15 s: when it is up again its peers are put again, which makes a handshake; see
   * `greetingOf`. A program that makes a device sets it up itself, and its events come late: they are no sign of that.
   */
  onLink(before: LinkState | undefined, now: LinkState | undefined): void {
    if (before?.up && now?.up === false && now.tun === undefined) this.#wereDown.add(now.name);
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

  /** See {@link KernelTable.hasPlace}. */
  hasPlace({ device }: WireguardObject): boolean {
    return this.#options.links.named(device) !== undefined;
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
      if (this.#options.links.named(device) === undefined) return [];
      const isForgotten = this.#wereDown.has(device);
      const isAsRead = !isForgotten && this.#expected.size === 0;
      const all = this.#hand(device).read(device);
      this.#listed.add(device);
      return all.map((found) => {
        if (isAsRead || found.kind !== "wireguardPeer") return found;
        // One that is not greeted yet has its keepalive soon.
        const { keepaliveSeconds } = this.#expected.get(this.key(found))?.object ?? found;
        return { ...found, keepaliveSeconds, isForgotten };
      });
    });
  }

  /** See {@link KernelTable.apply}. Peers that are to go are gone with a device that is. */
  apply(steps: readonly WireguardStep[]): readonly WireguardFailure[] {
    const byDevice = Map.groupBy(steps, ({ object }) => object.device);
    return [...byDevice].flatMap(([device, steps]) => {
      try {
        return this.#applyTo(device, steps);
      } catch (error) {
        throwDefect(error);
        return steps.filter(({ action }) => action === "put")
          .map((step) => ({ step, error: error as Error }));
      }
    });
  }

  /** Without its key and its port a device has nothing to say to peers: then they wait. Throws a LinuxError. */
  #applyTo(device: string, steps: readonly WireguardStep[]): readonly WireguardFailure[] {
    const hand = this.#hand(device);
    const { own = [], peers = [] } = Object.groupBy(
      this.#due(device, steps, hand),
      ({ object }) => object.kind === "wireguard" ? "own" : "peers",
    );
    const [failure] = hand.apply(device, own);
    if (failure !== undefined) throw explain(failure);
    const failed = hand.apply(device, peers);
    const failures = [...failed, ...hand.greet(device, this.#meet(peers, failed))];
    if (failures.length === 0) this.#wereDown.delete(device);
    return failures;
  }

  /** The peers of steps that were taken that are to be greeted at once: a peer that is to begin is waited for. */
  #meet(steps: readonly WireguardStep[], failures: readonly WireguardFailure[]): PeerPut[] {
    for (const { action, key } of steps) {
      this.#expected.delete(key);
      if (action === "remove") this.#met.delete(key);
    }
    return peersPut(steps, failures).filter((step) => {
      const { key, object: { begins } } = step;
      if (begins || this.#met.has(key)) return true;
      this.#met.add(key);
      this.#expected.set(key, step);
      this.#arrivals.add();
      return false;
    });
  }

  /** Greets peers that were to begin and did not: they may not know of this node yet, or still use old keys. */
  async #greetLate(signal: AbortSignal): Promise<void> {
    for (let seen = 0; await this.#arrivals.after(seen, MAX_SLEEP_MS, signal);) {
      seen = this.#arrivals.count;
      const expected = [...this.#expected.values()];
      if (!await sleep(BEGIN_MS, signal)) return;
      const late = expected.filter((step) => this.#expected.get(step.key) === step);
      for (const { key } of late) this.#expected.delete(key);
      for (const [device, steps] of Map.groupBy(late, ({ object }) => object.device)) {
        try {
          this.#greetUnheard(device, steps);
        } catch (error) {
          throwDefect(error);
          // The device is gone: its peers are put again with the next one.
        }
      }
    }
  }

  /**
   * A pod's packet may have had both sides begin at the same moment: that peer, which was heard to no avail, is put anew,
   * since a device tries again but every 5 s. Keepalive that is wanted is switched on in any case. What fails is found and
   * mended as others' changes are.
   */
  #greetUnheard(device: string, steps: readonly PeerPut[]): void {
    const hand = this.#hand(device);
    const found = new Map(
      hand.read(device).flatMap((peer) =>
        peer.kind === "wireguardPeer" ? [[peer.publicKey, peer]] : []
      ),
    );
    const silent = steps.filter(({ object }) =>
      found.get(object.publicKey)?.handshakeAtMs === undefined
    );
    const crossed = silent.filter(({ object }) => {
      const { receivedBytes = 0, sentBytes = 0 } = found.get(object.publicKey) ?? {};
      return receivedBytes > 0 && sentBytes > 0;
    });
    const anew = crossed.flatMap((step): WireguardStep[] => [{ ...step, action: "remove" }, step]);
    hand.apply(device, anew);
    const kept = steps.filter(({ object }) => object.keepaliveSeconds > 0);
    hand.greet(device, [...new Set([...silent, ...kept])]);
  }

  /**
   * The steps that are not taken already: what an agent before this one left as it is wanted stays untouched. A program
   * that is told its port again opens it again, and one that is told a peer's networks again has none of them meanwhile.
   */
  #due(
    device: string,
    steps: readonly WireguardStep[],
    hand: WireguardHand,
  ): readonly WireguardStep[] {
    const isKnown = this.#listed.has(device) || this.#wereDown.has(device);
    const mayBeTaken = ({ action, object: { kind } }: WireguardStep) =>
      action === "put" && (kind === "wireguard" || !isKnown);
    if (!steps.some(mayBeTaken)) return steps;
    const found = new Map(hand.read(device).map((each) => [this.key(each), each]));
    return steps.filter((step) => {
      const there = found.get(step.key);
      return there === undefined || !mayBeTaken(step) ||
        !this.equal(step.object as WireguardObject, there);
    });
  }

  /** The way to a device. Throws a LinuxError if there is none. */
  #hand(device: string): WireguardHand {
    const link = this.#options.links.named(device);
    if (link === undefined) throw new LinuxError(ENODEV, wireguardKey(device));
    return link.tun === undefined ? this.#kernel : programHand;
  }

  /** See {@link KernelTable.listen}. */
  async listen(listener: TableListener<FoundWireguard>, signal: AbortSignal): Promise<void> {
    await Promise.all([this.#look(listener, signal), this.#greetLate(signal)]);
  }

  async #look(listener: TableListener<FoundWireguard>, signal: AbortSignal): Promise<void> {
    for (let waitMs = LOOK_MS; await sleep(waitMs, signal);) {
      if (this.#options.desired.of("wireguard").size === 0) {
        waitMs = msToTick(IDLE_MS);
        continue;
      }
      const startMs = performance.now();
      if (!this.#isAsWanted()) listener.lost();
      waitMs = Math.max(LOOK_MS, WAITS_TO_LOOK * (performance.now() - startMs));
    }
  }

  /** Whether the devices that there are have what is wanted, and no peer more. */
  #isAsWanted(): boolean {
    const { desired, links } = this.#options;
    const kinds = ["wireguard", "wireguardPeer"].map((kind) => [...desired.of(kind).values()]);
    const wanted = kinds.flat().filter(({ object }) =>
      links.named((object as WireguardObject).device) !== undefined
    );
    try {
      const found = this.dump();
      return found.length === wanted.length && found.every((each) => {
        const object = desired.get(each.kind, this.key(each))?.object;
        return object !== undefined && this.equal(object as WireguardObject, each);
      });
    } catch (error) {
      throwDefect(error);
      // The comparison that follows meets the same error, and is tried again.
      return false;
    }
  }
}

/** The error of a device's own step, with what an operator can do. */
function explain({ step: { key, object }, error }: WireguardFailure): Error {
  if (!(error instanceof LinuxError) || error.errno !== EADDRINUSE) return error;
  const { listenPort } = object as WireguardDevice;
  return new RuntimeError(
    `${key}: another program has UDP port ${listenPort} (ss -ulnp shows which); stop it, or choose another port ` +
      "in net-conf's Backend",
    { cause: error },
  );
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
  return !found.isForgotten && wanted.keepaliveSeconds === found.keepaliveSeconds &&
    WireguardSecret.equal(wanted.presharedKey, found.presharedKey) &&
    (found.isHeard || endpoint?.port === wanted.endpoint.port &&
        endpoint.address.equals(wanted.endpoint.address)) &&
    wanted.allowedIps.length === allowedIps.length &&
    wanted.allowedIps.every((cidr) => allowedIps.some((other) => `${other}` === `${cidr}`));
}
