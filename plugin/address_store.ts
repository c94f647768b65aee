/**
 * Addresses on disk, as the host-local plugin keeps them, so that the two can take turns on a live node. Each
 * network has a folder. In it are a lock; a file for each address that is held, named after it, with the
 * container's id and interface inside; and the address given last, so that the next ADD does not reuse one that
 * was just given back.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { IpAddress } from "@denim/core/ip";
import { replaceFile } from "@denim/core/linux/attach";
import { CNI_CODE, CniError } from "./cni_error.ts";
import { type Attachment, isCniName } from "./environment.ts";
import { lockFile, removeIfPossible, removeIfThere, unlessGone } from "./files.ts";
import type { AddressRange, HostLocalConf } from "./host_local_conf.ts";

const LOCK = "lock";
/** host-local counts the sets of ranges from 0; denim has one set a family. */
const LAST_RESERVED = "last_reserved_ip.";
/** Where an address file is written before it has its name. host-local ignores it: it is not an address. */
const DRAFT = ".draft";
/** What stands between the container's id and the interface's name. */
const LINE_BREAK = "\r\n";

/** An address that an attachment holds. */
export interface HeldAddress {
  /** The address. */
  readonly address: IpAddress;
  /** The range that it is from. */
  readonly range: AddressRange;
}

/** Who holds an address. */
export interface Holder {
  /** The address. */
  readonly address: IpAddress;
  /** The container's id; `undefined` if the file has none, after a power cut or a host-local that was killed. */
  readonly containerId: string | undefined;
  /** The interface; `undefined` in a file of a host-local older than 0.8. */
  readonly ifName: string | undefined;
  /** When the address was given, in ms since 1970. */
  readonly writtenMs: number;
}

/**
 * One network's folder; the folders beside it are other networks', or those of this one under its name of before. Its
 * lock keeps every other plugin process out as long as the store is open. */
export class AddressStore implements Disposable {
  readonly #directory: string;
  readonly #lock: Disposable;

  private constructor(directory: string, lock: Disposable) {
    this.#directory = directory;
    this.#lock = lock;
  }

  /** Opens a network's folder, makes it if it is missing, and waits for its lock (flock(2), as host-local does). */
  static open(directory: string): AddressStore {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o755 });
    return new AddressStore(directory, lockFile(`${directory}/${LOCK}`, "alone"));
  }

  /** As {@link AddressStore.open}, but returns `undefined` if there is no such folder. */
  static openExisting(directory: string): AddressStore | undefined {
    return unlessGone(() => Deno.statSync(directory)) && AddressStore.open(directory);
  }

  /** Gives up the lock. */
  [Symbol.dispose](): void {
    this.#lock[Symbol.dispose]();
  }

  /**
   * Reserves one address of each range for an attachment: the one of `requested` that is in the range, else
   * the next free one after the last that was given. All or none. Throws a CniError if a range has none
   * left, or if a requested address is taken. Addresses that the attachment holds already were left by a plugin
   * that was killed, and are given back first; but if the container is `attached` they are in use, and a CniError
   * says so.
   */
  reserve(
    attachment: Attachment,
    { ranges, requested }: Pick<HostLocalConf, "ranges" | "requested">,
    attached: boolean,
  ): HeldAddress[] {
    const { names, held } = this.#list(attachment);
    if (!attached) {
      this.#remove(held);
      for (const name of held.splice(0)) names.delete(name);
    }
    const taken = new Map([...names].map((name) => [name, `${this.#directory}/${name}`]));
    for (const path of this.#takenBeside(ranges)) {
      taken.set(path.slice(path.lastIndexOf("/") + 1), path);
    }
    const unmet = new Set(requested.map(String));
    const plan = ranges.map((range, index): HeldAddress => {
      const before = held.map((name) => IpAddress.tryParse(name)).find((a) =>
        a && inRange(a, range)
      );
      if (before !== undefined) {
        throw new CniError(
          CNI_CODE.conflict,
          `${attachment.containerId} ${attachment.ifName} has ${before} already ` +
            `(${this.#directory}/${before}): a second ADD needs a DEL first`,
        );
      }
      const wish = requested.find((address) =>
        inRange(address, range) && unmet.delete(`${address}`)
      );
      const address = wish === undefined
        ? this.#nextFree(range, index, taken)
        : this.#checkFree(wish, range, taken);
      return { address, range };
    });
    if (unmet.size > 0) {
      throw new CniError(
        CNI_CODE.noAddress,
        `${[...unmet].join(", ")} can't be given as asked: the node's ranges are ${
          show(ranges)
        }, ` +
          "with one address each for a pod",
      );
    }
    using undo = new DisposableStack();
    plan.forEach(({ address }, index) => {
      // Written whole: a file without its holder could not be given back.
      replaceFile(
        `${this.#directory}/${address}`,
        `${attachment.containerId}${LINE_BREAK}${attachment.ifName}`,
        { mode: 0o600, draft: `${this.#directory}/${DRAFT}` },
      );
      undo.defer(() => this.remove([address]));
      this.#writeLastReserved(index, address);
    });
    undo.move();
    return plan;
  }

  /**
   * Gives back the addresses that an attachment holds; it need not hold any.
   *
   * @returns whether another interface of the same container holds an address
   */
  release(attachment: Attachment): boolean {
    const { held, sameContainer } = this.#list(attachment);
    this.#remove(held);
    return sameContainer;
  }

  /** The addresses that an attachment holds, as their files' names. */
  heldBy(attachment: Attachment): readonly string[] {
    return this.#list(attachment).held;
  }

  /** Every address that is held, and by whom. */
  holders(): Holder[] {
    return this.#entries().flatMap(({ name, isFile }) => {
      const address = IpAddress.tryParse(name), names = isFile ? this.#read(name) : undefined;
      return address && names ? [{ address, ...names, writtenMs: this.#writtenMs(name) }] : [];
    });
  }

  /** Gives back addresses, whoever holds them. */
  remove(addresses: readonly IpAddress[]): void {
    this.#remove(addresses.map(String));
  }

  #remove(names: readonly string[]): void {
    for (const name of names) removeIfThere(`${this.#directory}/${name}`);
  }

  /**
   * The files of addresses of these ranges that pods of other networks hold: a network has another name after flannel's
   * configuration gave way to denim's, and its pods live on. What was written before the machine's last start is
   * nobody's any more.
   */
  #takenBeside(ranges: readonly AddressRange[]): string[] {
    const parent = this.#directory.slice(0, this.#directory.lastIndexOf("/"));
    return [...Deno.readDirSync(parent)].flatMap(({ name, isDirectory }) => {
      const folder = `${parent}/${name}`;
      if (!isDirectory || folder === this.#directory) return [];
      return (unlessGone(() => [...Deno.readDirSync(folder)]) ?? []).flatMap((entry) => {
        const path = `${folder}/${entry.name}`;
        const address = entry.isFile ? IpAddress.tryParse(entry.name) : undefined;
        if (address === undefined || !ranges.some((range) => inRange(address, range))) return [];
        const writtenMs = unlessGone(() => Deno.statSync(path).mtime!.getTime());
        return writtenMs !== undefined && writtenMs >= bootMs() ? [path] : [];
      });
    });
  }

  /** Reads the folder once. */
  #list({ containerId, ifName }: Attachment): {
    /** Every address that is held, as its file's name. */
    readonly names: Set<string>;
    /** Those that the attachment holds. */
    readonly held: string[];
    /** Whether another interface of the container holds one. */
    readonly sameContainer: boolean;
  } {
    const names = new Set<string>();
    const held: string[] = [], heldAsOld: string[] = [];
    let sameContainer = false;
    for (const { name, isFile } of this.#entries()) {
      const holder = isFile ? this.#read(name) : undefined;
      // The container that had it did not survive the machine's last start.
      if (holder && !holder.containerId && this.#writtenMs(name) < bootMs()) continue;
      names.add(name);
      if (holder?.containerId !== containerId) continue;
      if (holder.ifName === ifName) held.push(name);
      // host-local's files had the container's id alone until its release 0.8.
      else if (holder.ifName === undefined) heldAsOld.push(name);
      else sameContainer = true;
    }
    return { names, held: held.length > 0 ? held : heldAsOld, sameContainer };
  }

  /**
   * Everything in the folder that may be named after an address. It need not be a file: if a folder or a link has an
   * address's name, that address can't be given, and nothing holds it. host-local passes it by as well.
   */
  #entries(): Deno.DirEntry[] {
    const entries: Deno.DirEntry[] = [];
    for (const entry of Deno.readDirSync(this.#directory)) {
      const { name } = entry;
      // No other process writes one while this one has the lock: it was left by a plugin that was killed.
      if (name === DRAFT) removeIfPossible(`${this.#directory}/${DRAFT}`);
      else if (name !== LOCK && !name.startsWith(LAST_RESERVED)) entries.push(entry);
    }
    return entries;
  }

  /** The holder that a file names; `undefined` if the file can't be read, and is not denim's to change. */
  #read(name: string): Pick<Holder, "containerId" | "ifName"> | undefined {
    let text: string;
    try {
      text = Deno.readTextFileSync(`${this.#directory}/${name}`);
    } catch (error) {
      throwDefect(error);
      return undefined;
    }
    const [containerId = "", ifName] = text.trim().split(LINE_BREAK);
    return isCniName(containerId)
      ? { containerId, ifName }
      : { containerId: undefined, ifName: undefined };
  }

  #writtenMs(name: string): number {
    return Deno.statSync(`${this.#directory}/${name}`).mtime!.getTime();
  }

  #nextFree(
    range: AddressRange,
    index: number,
    taken: ReadonlyMap<string, string>,
  ): IpAddress {
    const { subnet, first, last, gateway } = range;
    const count = last.value - first.value + 1n;
    const lastGiven = this.#lastReserved(index);
    const start = lastGiven !== undefined && inRange(lastGiven, range)
      ? lastGiven.value - first.value + 1n
      : 0n;
    for (let step = 0n; step < count; step++) {
      const address = new IpAddress(subnet.family, first.value + (start + step) % count);
      if (!address.equals(gateway) && !taken.has(`${address}`)) return address;
    }
    throw new CniError(
      CNI_CODE.noAddress,
      `no address is free in ${subnet} (${first} to ${last}): ` +
        `${this.#directory}, or a folder beside it, has a file for each one that is held`,
    );
  }

  /** Keeps the address given last. If this file is lost or cut short, an address may be reused too soon, no more. */
  #writeLastReserved(index: number, address: IpAddress): void {
    const path = `${this.#directory}/${LAST_RESERVED}${index}`;
    try {
      // Not emptied first: ext4 takes a file that was for a replaced one, and hands it to the disk when it is closed.
      using file = Deno.openSync(path, { write: true, create: true, mode: 0o600 });
      const text = new TextEncoder().encode(`${address}`);
      file.writeSync(text);
      file.truncateSync(text.length);
    } catch (error) {
      // A folder has its name.
      if (!(error instanceof Deno.errors.IsADirectory)) throw error;
    }
  }

  #checkFree(
    address: IpAddress,
    { gateway, subnet }: AddressRange,
    taken: ReadonlyMap<string, string>,
  ): IpAddress {
    const path = taken.get(`${address}`);
    const reason = address.equals(gateway)
      ? `it is the gateway of ${subnet}`
      : path !== undefined
      ? `it is taken (${path})`
      : undefined;
    if (reason === undefined) return address;
    throw new CniError(CNI_CODE.noAddress, `${address} can't be given as asked: ${reason}`);
  }

  #lastReserved(index: number): IpAddress | undefined {
    try {
      const text = Deno.readTextFileSync(`${this.#directory}/${LAST_RESERVED}${index}`);
      return IpAddress.tryParse(text.trim());
    } catch (error) {
      throwDefect(error);
      return undefined;
    }
  }
}

/** When the machine last started, in ms since 1970. */
function bootMs(): number {
  return Date.now() - Deno.osUptime() * 1000;
}

function inRange(address: IpAddress, { subnet, first, last }: AddressRange): boolean {
  return address.family === subnet.family && address.value >= first.value &&
    address.value <= last.value;
}

function show(ranges: readonly AddressRange[]): string {
  return ranges.map(({ first, last }) => `${first} to ${last}`).join(" and ");
}
