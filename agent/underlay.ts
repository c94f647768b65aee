/**
 * News of the network between the nodes: which of it concerns this node.
 *
 * @module
 */

import { type Cidr, type Clock, type KernelReader } from "@denim/core";
import type { UnderlayNews } from "@denim/core/linux";

/** The wait for the rest of news that belongs together, in milliseconds. */
const SETTLE_MS = 50;

/** Whether a route leads to a device's own link: the kernel makes one for itself on each device (RFC 4291 section 2.5.6). */
function isKernelsOwn({ family, address }: Cidr): boolean {
  return family === 6 && address.isLinkLocal;
}

/** What listening to the underlay works with. */
export interface UnderlayOptions {
  /** Answers backends' questions to the kernel. */
  readonly kernel: KernelReader;
  /** Whether news may change the outer interface. */
  readonly concernsOuter: (news: UnderlayNews) => boolean;
  /** Whether any backend depends on the underlay's routes. */
  readonly routesMatter: () => boolean;
  /** The pods' networks: pods come and go, each with routes of its own. */
  readonly podNetworks: () => readonly Cidr[];
  /** Called when the outer interface may be different. */
  readonly onOuter: () => void;
  /** Called when the routes to peers may be different. */
  readonly onRoutes: () => void;
  /** By which news settles. */
  readonly clock: Clock;
  /** Takes the waits, and the calls after them. */
  readonly runInBackground: (task: Promise<void>) => void;
  /** Ends the waits. */
  readonly signal: AbortSignal;
}

/** Sorts news of the underlay, and passes on what matters once a burst of it is over. */
export class Underlay {
  readonly #options: UnderlayOptions;
  /** The devices by which the kernel sends packets to peers, as far as a backend has asked. */
  readonly #devices = new Set<string>();
  readonly #outer: Burst;
  readonly #routes: Burst;

  /** Backends' view of the kernel. It remembers which devices their questions led to. */
  readonly kernel: KernelReader;

  /** Nothing has happened yet. */
  constructor(options: UnderlayOptions) {
    this.#options = options;
    this.#outer = new Burst(options, options.onOuter);
    this.#routes = new Burst(options, options.onRoutes);
    this.kernel = {
      ...options.kernel,
      routeTo: (address) => {
        const route = options.kernel.routeTo(address);
        if (route !== undefined) this.#devices.add(route.device);
        return route;
      },
    };
  }

  /** Takes news from the reconciler. Costs next to nothing if it does not concern this node. */
  readonly onNews = (news: UnderlayNews): void => {
    const { concernsOuter, routesMatter } = this.#options;
    if (concernsOuter(news)) this.#outer.add();
    if (this.#concernsRoutes(news) && routesMatter()) this.#routes.add();
  };

  #concernsRoutes({ device, destination }: UnderlayNews): boolean {
    if (device !== undefined && !this.#devices.has(device)) return false;
    return destination === undefined || !isKernelsOwn(destination) &&
        !this.#options.podNetworks().some((network) => network.contains(destination));
  }
}

/** Many reasons for one call. */
class Burst {
  readonly #options: UnderlayOptions;
  readonly #onOver: () => void;
  #waiting = false;

  constructor(options: UnderlayOptions, onOver: () => void) {
    this.#options = options;
    this.#onOver = onOver;
  }

  /** Calls back a moment later, once for all that is added until then. */
  add(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.#options.runInBackground(this.#settle());
  }

  async #settle(): Promise<void> {
    const over = await this.#options.clock.sleep(SETTLE_MS, this.#options.signal);
    this.#waiting = false;
    if (over) this.#onOver();
  }
}
