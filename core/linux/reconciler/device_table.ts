/**
 * Network devices as a table of the kernel's: made, changed and removed by rtnetlink, TUN devices by opening them, and
 * WireGuard devices by a program where the kernel has no WireGuard.
 *
 * @module
 */

import { messageOf, RuntimeError } from "../../errors.ts";
import type { Link } from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import type { MessageWriter } from "../netlink/netlink_codec.ts";
import type { Monitor } from "../netlink/monitor.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import {
  findLink,
  LINK_MESSAGES,
  linkAdoptable,
  linkEqual,
  type LinkState,
  listLinks,
  type MadeLink,
  parseLink,
  sameLink,
  writeChangedLink,
  writeNewLink,
  writeRemovedLink,
} from "../objects/link.ts";
import { deviceKey, type KernelContext } from "../objects/object_kind.ts";
import { EADDRINUSE, EEXIST, EOPNOTSUPP, LinuxError } from "../sys/linux_error.ts";
import { readSysctl, trySysctl } from "../sys/sysctl.ts";
import { openTun } from "../tunnel/tun.ts";
import { awaitEnd, awaitUp, startProgram } from "../wireguard/program.ts";
import { hasProgram } from "../wireguard/uapi_socket.ts";
import {
  applyEach,
  type DesiredView,
  type KernelTable,
  type PutStep,
  type Step,
  type StepFailure,
  type TableListener,
} from "./kernel_table.ts";
import type { Links, OnLinkChange } from "./links.ts";
import { heldDevice, portTaken, rivalTunnel } from "./device_obstacles.ts";
import { tunHolder } from "./tun_holder.ts";

/** A device as the kernel has it. */
export interface FoundLink extends LinkState {
  /** Tells the kinds of object apart. */
  readonly kind: "link";
  /** Whether the kernel takes routes that other hosts advertise; `undefined` if it was not looked up. */
  readonly acceptsRoutes?: boolean;
}

/** What a {@link DeviceTable} works with. */
export interface DeviceTableOptions {
  /** For requests. */
  readonly socket: NetlinkSocket;
  /** Events of {@link LINK_MESSAGES}. */
  readonly monitor: Monitor;
  /** Kept up to date by the table, for all others. */
  readonly links: Links;
  /** Which devices are denim's. */
  readonly context: KernelContext;
  /** What owners want. */
  readonly desired: DesiredView;
  /** Takes what operators should know. */
  readonly log: Logger;
  /** The names of devices that earlier runs left, as their record says. */
  readonly left: ReadonlySet<string>;
  /** Told of every change of a device, denim's or not, that denim did not make itself. */
  readonly onChange: OnLinkChange;
  /** Told that events of devices, and so perhaps of all else, were lost. */
  readonly onLost: () => void;
}

/**
 * Devices that denim makes. Whatever lies on a device is lost with it, when it is set down, or when its carrier goes,
 * in part without an event: so devices carry the objects of later tables.
 */
export class DeviceTable implements KernelTable<Link, Link | FoundLink> {
  readonly #options: DeviceTableOptions;
  /** The indexes of denim's devices that others renamed, by the names that they should have. */
  readonly #renamed = new Map<string, number>();

  /** Reads the devices that there are. Throws a LinuxError. */
  constructor(options: DeviceTableOptions) {
    this.#options = options;
    options.links.replace(listLinks(options.socket), () => {});
  }

  /** See {@link KernelTable.key}. */
  key({ name }: Link | FoundLink): string {
    return deviceKey(name);
  }

  /** See {@link KernelTable.equal}. */
  equal(wanted: Link, found: Link | FoundLink): boolean {
    if (!("index" in found)) return sameLink(wanted, found);
    return linkEqual(wanted, found, this.#options.context) && found.acceptsRoutes !== true;
  }

  /** See {@link KernelTable.ours}. A device of unknown origin is never denim's to remove. */
  ours({ name }: Link | FoundLink, known: boolean): boolean {
    return known || this.#options.left.has(name);
  }

  /** See {@link KernelTable.find}. */
  find({ name }: Link): FoundLink | undefined {
    const link = this.#options.links.named(name);
    return link && { kind: "link", ...link };
  }

  /** See {@link KernelTable.carrier}. */
  carrier(link: Link): string | undefined {
    return link.mac === undefined ? undefined : deviceKey(link.info.outerDevice);
  }

  /** See {@link KernelTable.carries}. */
  carries(): boolean {
    return true;
  }

  /** See {@link KernelTable.dump}. */
  dump(): FoundLink[] {
    const { links, socket, onChange } = this.#options;
    links.replace(listLinks(socket), onChange);
    return links.all().map((link) => ({
      kind: "link",
      ...link,
      ...this.#options.context.owned(link.name) && link.vxlan !== undefined &&
        { acceptsRoutes: readSysctl(acceptRa(link.name)) === "1" },
    }));
  }

  /**
   * Removals come last, except of a device in whose presence the kernel refuses another: one VXLAN device has a VNI
   * and port at a time.
   */
  arrange(
    steps: readonly Step<Link, Link | FoundLink>[],
  ): readonly Step<Link, Link | FoundLink>[] {
    const puts = steps.filter((step) => step.action === "put");
    const first = steps.filter(({ action, object }) =>
      action === "remove" && puts.some((put) => sameTunnel(put.object, object))
    );
    return first.length === 0
      ? steps
      : [...first, ...steps.filter((step) => !first.includes(step))];
  }

  /** See {@link KernelTable.apply}. */
  apply(
    steps: readonly Step<Link, Link | FoundLink>[],
  ): readonly StepFailure<Link, Link | FoundLink>[] {
    return applyEach(steps, (step) => {
      if (step.action === "put") this.#put(step);
      else this.#remove(step.object.name, this.#options.links.named(step.object.name)?.index);
    }, (error, step) => this.#explain(step, error));
  }

  #put({ object: link }: PutStep<Link>): void {
    const { links, socket, log } = this.#options;
    const { name } = link;
    let found = findLink(socket, name);
    const renamed = links.at(this.#renamed.get(name) ?? 0);
    this.#renamed.delete(name);
    // The kernel allows one device of a tunnel, whatever its name.
    if (found === undefined && renamed !== undefined) this.#remove(name, renamed.index);
    if (found !== undefined && !linkAdoptable(link, found)) {
      if (found.tun !== undefined) refuseIfHeld(name);
      log.info(
        "device-recreated",
        `device ${name} can't be changed to what net-conf asks for; recreating it`,
      );
      this.#remove(name, found.index);
      found = undefined;
    }
    const isNew = found === undefined;
    if (isNew) this.#make(link);
    found ??= findLink(socket, name);
    const byProgram = link.info.type === "wireguard" && found?.tun !== undefined;
    try {
      // What rtnetlink made is right already.
      if (found !== undefined && (!isNew || found.tun !== undefined)) this.#change(link, found);
      if (isNew && byProgram) awaitUp(name);
    } catch (error) {
      if (isNew) this.#remove(name, found?.index);
      throw error;
    }
    const made = findLink(socket, name);
    if (made !== undefined) links.set(made);
    // Routes on a VXLAN device are denim's to set, not a peer's that plays router (RFC 4861).
    if (link.mac !== undefined) trySysctl(acceptRa(name), "0");
  }

  #make(link: Link): void {
    const { name, info } = link;
    if (link.mac === undefined && info.type === "tun") return openTun(name)[Symbol.dispose]();
    try {
      this.#request(
        `make device ${name}`,
        (writer) => writeNewLink(writer, link as MadeLink, this.#options.context),
      );
    } catch (error) {
      if (info.type !== "wireguard" || !isUnknownType(error)) throw error;
      startProgram(info.program, name);
      this.#options.log.info(
        "wireguard-program",
        `the kernel has no WireGuard: ${info.program} has made device ${name}`,
      );
    }
  }

  #change(link: Link, found: LinkState): void {
    this.#request(
      `change device ${link.name}`,
      (writer) => writeChangedLink(writer, link, found, this.#options.context),
    );
  }

  #remove(name: string, index: number | undefined): void {
    if (index === undefined) return;
    const ofProgram = this.#options.links.at(index)?.tun?.persistent === false && hasProgram(name);
    this.#request(`remove device ${name}`, (writer) => writeRemovedLink(writer, index));
    if (ofProgram) awaitEnd(name);
    this.#options.links.delete(index);
  }

  #request(what: string, write: (writer: MessageWriter) => void): void {
    this.#options.socket.request(what, write);
  }

  #explain({ action, object }: Step<Link, Link | FoundLink>, error: Error): Error {
    if (!(error instanceof LinuxError) || action !== "put" || "index" in object) return error;
    const hint = this.#hint(object, error);
    return hint === undefined
      ? error
      : new RuntimeError(`${messageOf(error)}; ${hint}`, { cause: error });
  }

  #hint(link: Link, error: LinuxError): string | undefined {
    const { errno } = error;
    if (isUnknownType(error)) {
      return `load the kernel's module for it (modprobe ${link.info.type}), or choose another Backend in net-conf`;
    }
    if (link.mac === undefined) {
      if (errno !== EEXIST || link.info.type !== "ipip") return undefined;
      const { local } = link.info;
      const rival = listLinks(this.#options.socket).find(({ ipip }) => ipip?.local.equals(local));
      return rival &&
        `device ${rival.name} is a tunnel from ${local} too; remove it (ip link del ${rival.name})`;
    }
    if (errno !== EEXIST && errno !== EADDRINUSE) return undefined;
    const rival = listLinks(this.#options.socket).find(({ name, vxlan }) =>
      name !== link.name && vxlan?.port === link.info.port
    );
    if (rival !== undefined) return rivalTunnel(rival);
    return errno === EADDRINUSE ? portTaken(link.info.port) : undefined;
  }

  /** See {@link KernelTable.listen}. */
  listen(listener: TableListener<Link | FoundLink>, signal: AbortSignal): Promise<void> {
    return this.#options.monitor.listen({
      onMessage: (reader, isOld) => {
        const { type } = reader;
        if (type !== LINK_MESSAGES.new && type !== LINK_MESSAGES.del) return;
        const link = parseLink(reader);
        if (link === undefined) return;
        // What a device had lost by then was found by the comparison of everything.
        const heard = isOld ? { ...listener, restored: () => {} } : listener;
        this.#onEvent(link, type === LINK_MESSAGES.del, heard);
      },
      onLost: () => {
        listener.lost();
        this.#options.onLost();
      },
    }, signal);
  }

  #onEvent(link: LinkState, gone: boolean, listener: TableListener<Link | FoundLink>): void {
    const { links, desired, onChange } = this.#options;
    const before = links.at(link.index);
    if (gone) links.delete(link.index);
    else links.set(link);
    onChange(before, gone ? undefined : link);
    const renamed = !gone && before !== undefined && before.name !== link.name;
    if (renamed) {
      const wanted = (name: string) => desired.get("link", deviceKey(name)) !== undefined;
      if (wanted(before.name) && !wanted(link.name)) this.#renamed.set(before.name, link.index);
      listener.gone({ kind: "link", ...before });
    }
    if (gone) listener.gone({ kind: "link", ...link });
    else listener.found({ kind: "link", ...link });
    if (!gone && link.running && (!before?.running || renamed)) {
      listener.restored(deviceKey(link.name));
    }
  }
}

/** Whether the kernel has no devices of a type. */
function isUnknownType(error: unknown): boolean {
  return error instanceof LinuxError && error.errno === EOPNOTSUPP &&
    error.detail === "Unknown device type";
}

function acceptRa(device: string): string {
  return `net/ipv6/conf/${device}/accept_ra`;
}

/** A TUN device that a living program reads is not denim's to remove. */
function refuseIfHeld(name: string): void {
  const holder = tunHolder(name);
  if (holder !== undefined) throw new RuntimeError(heldDevice(name, holder));
}

function sameTunnel(wanted: Link, other: Link | FoundLink): boolean {
  if (wanted.mac === undefined || wanted.name === other.name) return false;
  const vxlan = "index" in other ? other.vxlan : other.mac === undefined ? undefined : other.info;
  return vxlan !== undefined && vxlan.vni === wanted.info.vni && vxlan.port === wanted.info.port;
}
