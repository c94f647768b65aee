/**
 * Addresses on disk, as the host-local plugin keeps them, so that the two can take turns on a live node: in a
 * folder for each network, one file for each address, named after it, with the container's id and interface
 * inside; the address given last, so that one that was just given back is not given out again at once; and a
 * lock.
 *
 * @module
 */

import { IpAddress } from "@denim/core/ip";
import { CNI_CODE, CniError } from "./cni_error.ts";
import type { Attachment } from "./environment.ts";
import type { AddressRange } from "./host_local_conf.ts";
import { removeIfThere } from "./saved_conf.ts";

const LOCK = "lock";
/** host-local counts the sets of ranges from 0; denim has one set a family. */
const LAST_RESERVED = "last_reserved_ip.";
/** Where an address file is written before it has its name. No address, and so nothing to host-local. */
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
  /** The container's id. */
  readonly containerId: string;
  /** The interface; `undefined` in a file of a host-local older than 0.8. */
  readonly ifName: string | undefined;
  /** When the address was given, in ms since 1970. */
  readonly writtenMs: number;
}

/** One network's folder, locked against every other plugin for as long as it is open. */
export class AddressStore implements Disposable {
  readonly #directory: string;
  readonly #lock: Deno.FsFile;

  private constructor(directory: string, lock: Deno.FsFile) {
    this.#directory = directory;
    this.#lock = lock;
  }

  /** Opens a network's folder, made where it is missing, and waits for its lock (flock(2), as host-local). */
  static open(directory: string): AddressStore {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o755 });
    const lock = Deno.openSync(`${directory}/${LOCK}`, { write: true, create: true, mode: 0o600 });
    lock.lockSync(true);
    return new AddressStore(directory, lock);
  }

  /** As {@link AddressStore.open}, with `undefined` where there is no such folder. */
  static openExisting(directory: string): AddressStore | undefined {
    try {
      Deno.statSync(directory);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
    return AddressStore.open(directory);
  }

  /** Gives up the lock. */
  [Symbol.dispose](): void {
    this.#lock.close();
  }

  /**
   * Reserves one address of each range for an attachment: the one of `requested` that is in the range, else
   * the next free one after the last that was given. All or none. Throws a CniError where a range has none
   * left, where a requested address is not to be had, or where the attachment holds one already.
   */
  reserve(
    attachment: Attachment,
    ranges: readonly AddressRange[],
    requested: readonly IpAddress[],
  ): HeldAddress[] {
    const { names, held } = this.#list(attachment);
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
        ? this.#nextFree(range, index, names)
        : checkFree(wish, range, names);
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
      this.#write(`${address}`, contentOf(attachment));
      undo.defer(() => this.remove([address]));
      // Half of this file would cost no more than the turn.
      Deno.writeTextFileSync(`${this.#directory}/${LAST_RESERVED}${index}`, `${address}`, {
        mode: 0o600,
      });
    });
    undo.move();
    return plan;
  }

  /**
   * Gives back every address that an attachment holds, and no other's. None is fine. Tells whether another
   * interface of the same container holds one.
   */
  release(attachment: Attachment): boolean {
    const { held, sameContainer } = this.#list(attachment);
    for (const name of held) removeIfThere(`${this.#directory}/${name}`);
    return sameContainer;
  }

  /** The addresses that an attachment holds, as their files' names. */
  heldBy(attachment: Attachment): readonly string[] {
    return this.#list(attachment).held;
  }

  /** Who holds which address. Files that say nothing of a holder are nobody's. */
  holders(): Holder[] {
    const decoder = new TextDecoder();
    return this.#files().flatMap((name) => {
      const address = IpAddress.tryParse(name);
      const [containerId, ifName] = decoder.decode(this.#read(name)).trim().split(LINE_BREAK);
      if (address === undefined || !containerId) return [];
      const writtenMs = Deno.statSync(`${this.#directory}/${name}`).mtime!.getTime();
      return [{ address, containerId, ifName, writtenMs }];
    });
  }

  /** Gives back these addresses. */
  remove(addresses: readonly IpAddress[]): void {
    for (const address of addresses) removeIfThere(`${this.#directory}/${address}`);
  }

  /** Looks through the folder, once. */
  #list(attachment: Attachment): {
    /** Every address that is held, as its file's name. */
    readonly names: ReadonlySet<string>;
    /** Those that the attachment holds. */
    readonly held: readonly string[];
    /** Whether another interface of the container holds one. */
    readonly sameContainer: boolean;
  } {
    const names = this.#files();
    const own = encoder.encode(contentOf(attachment));
    // host-local's files had the container's id alone until its release 0.8.
    const old = encoder.encode(attachment.containerId);
    const container = encoder.encode(attachment.containerId + LINE_BREAK);
    const held: string[] = [], heldAsOld: string[] = [];
    let sameContainer = false;
    for (const name of names) {
      const content = this.#read(name);
      if (isContent(content, own)) held.push(name);
      else if (isContent(content, old)) heldAsOld.push(name);
      else if (startsWith(content, container)) sameContainer = true;
    }
    return { names: new Set(names), held: held.length > 0 ? held : heldAsOld, sameContainer };
  }

  #files(): string[] {
    const names: string[] = [];
    for (const { name, isFile } of Deno.readDirSync(this.#directory)) {
      // Nobody writes one while the lock is held: a plugin was killed.
      if (name === DRAFT) {
        removeIfThere(`${this.#directory}/${DRAFT}`);
        continue;
      }
      if (isFile && name !== LOCK && !name.startsWith(LAST_RESERVED)) names.push(name);
    }
    return names;
  }

  #read(name: string): Uint8Array {
    try {
      return Deno.readFileSync(`${this.#directory}/${name}`);
    } catch {
      return new Uint8Array(); // somebody else's, and gone
    }
  }

  /**
   * Writes a file so that it is there whole or not at all: one without its holder could never be given back.
   * The lock, and a look at the folder under it, make the name free.
   */
  #write(name: string, content: string): void {
    const draft = `${this.#directory}/${DRAFT}`;
    Deno.writeTextFileSync(draft, content, { mode: 0o600 });
    Deno.renameSync(draft, `${this.#directory}/${name}`);
  }

  #nextFree(range: AddressRange, index: number, names: ReadonlySet<string>): IpAddress {
    const { subnet, first, last, gateway } = range;
    const count = last.value - first.value + 1n;
    const lastGiven = this.#lastReserved(index);
    const start = lastGiven !== undefined && inRange(lastGiven, range)
      ? lastGiven.value - first.value + 1n
      : 0n;
    for (let step = 0n; step < count; step++) {
      const address = new IpAddress(subnet.family, first.value + (start + step) % count);
      if (!address.equals(gateway) && !names.has(`${address}`)) return address;
    }
    throw new CniError(
      CNI_CODE.noAddress,
      `no address is free in ${subnet} (${first} to ${last}): ` +
        `${this.#directory} has a file for each one that is held`,
    );
  }

  #lastReserved(index: number): IpAddress | undefined {
    try {
      const text = Deno.readTextFileSync(`${this.#directory}/${LAST_RESERVED}${index}`);
      return IpAddress.tryParse(text.trim());
    } catch {
      return undefined;
    }
  }
}

const encoder = new TextEncoder();

function contentOf({ containerId, ifName }: Attachment): string {
  return `${containerId}${LINE_BREAK}${ifName}`;
}

function inRange(address: IpAddress, { subnet, first, last }: AddressRange): boolean {
  return address.family === subnet.family && address.value >= first.value &&
    address.value <= last.value;
}

function show(ranges: readonly AddressRange[]): string {
  return ranges.map(({ first, last }) => `${first} to ${last}`).join(" and ");
}

function checkFree(
  address: IpAddress,
  { gateway, subnet }: AddressRange,
  names: ReadonlySet<string>,
): IpAddress {
  const reason = address.equals(gateway)
    ? `it is the gateway of ${subnet}`
    : names.has(`${address}`)
    ? "another container has it"
    : undefined;
  if (reason === undefined) return address;
  throw new CniError(CNI_CODE.noAddress, `${address} can't be given as asked: ${reason}`);
}

function startsWith(content: Uint8Array, start: Uint8Array): boolean {
  return start.every((byte, index) => content[index] === byte);
}

/** Whether a file says this and no more; white space behind it does not count. */
function isContent(content: Uint8Array, wanted: Uint8Array): boolean {
  return startsWith(content, wanted) && content.subarray(wanted.length).every((byte) => byte <= 32);
}
