/**
 * A TUN device's packets one by one, on the main thread: for a data path that would rather be short than
 * fast. `tun.ts` and `packet_io.ts` are for one that would be fast.
 *
 * @module
 */

import { type FileDescriptor, read, write } from "../sys/libc.ts";
import { LinuxError } from "../sys/linux_error.ts";
import { inputOn } from "../sys/poll.ts";
import { openTun, type TunQueue } from "./tun.ts";
import { VIRTIO_NET_HDR_LEN } from "./virtio_net.ts";

const MAX_PACKET_BYTES = 65_535;
/** How many packets are handed over before others have their turn. */
const BURST = 64;

/** What the kernel sends by a TUN device, and takes from it. */
export class TunPackets implements Disposable {
  readonly #queue: TunQueue;
  readonly #fd: FileDescriptor;
  readonly #headerBytes: number;
  readonly #buffer = new Uint8Array(new ArrayBuffer(VIRTIO_NET_HDR_LEN + MAX_PACKET_BYTES));

  /** Opens a device of this thread's namespace; makes it if there is none. Throws a LinuxError. */
  constructor(device: string) {
    this.#queue = openTun(device);
    this.#queue.clearOffloads();
    this.#fd = this.#queue.descriptor;
    this.#headerBytes = this.#queue.header ? VIRTIO_NET_HDR_LEN : 0;
  }

  /**
   * The packets that leave by the device, until the signal is aborted. Each is a view that is valid until the next one.
   * Throws a LinuxError if the device is deleted.
   */
  async *read(signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    while (await inputOn(this.#fd, signal)) {
      for (let count = 0; count < BURST; count++) {
        const length = read(this.#fd, this.#buffer);
        if (length < 0) break;
        yield this.#buffer.subarray(this.#headerBytes, length);
      }
    }
  }

  /** Lets a packet come in by the device. Drops one that the kernel refuses. */
  write(packet: Uint8Array): void {
    // A header that is all zero says that the packet is as it will travel.
    const bytes = new Uint8Array(this.#headerBytes + packet.length);
    bytes.set(packet, this.#headerBytes);
    try {
      write(this.#fd, bytes);
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error;
    }
  }

  /** Closes it. The device stays. */
  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
  }
}
