/**
 * TUN devices (linux/if_tun.h): a program reads the packets that the kernel sends by them, and writes those that come in.
 *
 * @module
 */

import { type FileDescriptor, ioctl, ioctlValue, open } from "../sys/libc.ts";
import { EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, LinuxError } from "../sys/linux_error.ts";
import {
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TUN,
  IFF_VNET_HDR,
  IFNAMSIZ,
  IFREQ_LEN,
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_USO4,
  TUN_F_USO6,
  TUNGETFEATURES,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETPERSIST,
} from "../uapi/if_tun.ts";
import { O_CLOEXEC, O_NONBLOCK, O_RDWR } from "../uapi/socket.ts";

const CLONE_DEVICE = "/dev/net/tun";

/** What the kernel hands over, and takes, in one piece. */
export interface TunOffloads {
  /** Whether packets come and go with unfinished checksums (`TUN_F_CSUM`). */
  readonly checksums: boolean;
  /** Whether TCP comes and goes in packets of up to 64 KiB (`TUN_F_TSO4`, `TUN_F_TSO6`). */
  readonly tcp: boolean;
  /** Whether datagrams of one UDP flow come and go many in one packet (`TUN_F_USO4`, since Linux 6.2). */
  readonly udp: boolean;
}

/**
 * Opens one more queue of a TUN device in this thread's network namespace. Makes the device, which stays, if there is
 * none. Reads and writes do not wait. Throws a LinuxError.
 */
export function openTun(name: string): TunQueue {
  let fd;
  try {
    fd = open(CLONE_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  } catch (error) {
    const missing = error instanceof LinuxError &&
      (error.errno === ENOENT || error.errno === ENODEV);
    if (!missing) throw error;
    throw new LinuxError(
      error.errno,
      `open ${CLONE_DEVICE}`,
      "there are no TUN devices here; load the kernel's module for them (modprobe tun), or give the " +
        `container ${CLONE_DEVICE}`,
    );
  }
  try {
    return new TunQueue(fd, name);
  } catch (error) {
    fd[Symbol.dispose]();
    throw error;
  }
}

/** One open queue of a TUN device. */
export class TunQueue implements Disposable {
  /** What reads and writes go to. */
  readonly descriptor: FileDescriptor;
  /** The device's name. */
  readonly name: string;
  /** Whether a header (`struct virtio_net_hdr`) stands before each packet, which offloads need. */
  readonly header: boolean;

  /** Takes over an open `/dev/net/tun`; see {@link openTun}. */
  constructor(descriptor: FileDescriptor, name: string) {
    this.descriptor = descriptor;
    this.name = name;
    const features = new Uint32Array(1);
    ioctl(descriptor, TUNGETFEATURES, features, "features of TUN devices");
    this.header = (features[0]! & IFF_VNET_HDR) !== 0;
    this.attach();
  }

  /** Makes this a queue of the device again, after the device was deleted; makes the device if there is none. */
  attach(): void {
    const request = new DataView(new ArrayBuffer(IFREQ_LEN));
    new TextEncoder().encodeInto(this.name, new Uint8Array(request.buffer, 0, IFNAMSIZ - 1));
    // The last to open a device decides for all of its queues: each must say the same.
    const flags = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE | (this.header ? IFF_VNET_HDR : 0);
    request.setUint16(IFNAMSIZ, flags, true);
    try {
      ioctl(this.descriptor, TUNSETIFF, request, `open TUN device ${this.name}`);
    } catch (error) {
      // It is one already.
      if (error instanceof LinuxError && error.errno === EEXIST) return;
      // EINVAL: it is there with other flags than these.
      const taken = error instanceof LinuxError &&
        (error.errno === EBUSY || error.errno === EINVAL);
      if (!taken) throw error;
      throw new LinuxError(
        error.errno,
        `open TUN device ${this.name}`,
        "another program has it, or made it for itself; stop that program (flanneld?)",
      );
    }
    ioctlValue(this.descriptor, TUNSETPERSIST, 1, `keep TUN device ${this.name}`);
  }

  /** Asks the kernel for all the offloads that it knows, and returns which these are. */
  setOffloads(): TunOffloads {
    const attempts = this.header
      ? [
        { flags: TCP | TUN_F_USO4 | TUN_F_USO6, checksums: true, tcp: true, udp: true },
        { flags: TCP, checksums: true, tcp: true, udp: false },
        { flags: TUN_F_CSUM, checksums: true, tcp: false, udp: false },
      ]
      : [];
    for (const { flags, ...offloads } of attempts) {
      try {
        ioctlValue(this.descriptor, TUNSETOFFLOAD, flags, `offloads of TUN device ${this.name}`);
        return offloads;
      } catch (error) {
        // A kernel refuses what it does not know.
        if (!(error instanceof LinuxError) || error.errno !== EINVAL) throw error;
      }
    }
    return this.clearOffloads();
  }

  /** Asks for packets as they will travel, one by one. An earlier run may have asked for offloads. */
  clearOffloads(): TunOffloads {
    if (this.header) {
      ioctlValue(this.descriptor, TUNSETOFFLOAD, 0, `offloads of TUN device ${this.name}`);
    }
    return { checksums: false, tcp: false, udp: false };
  }

  /** Closes the queue. The device stays. */
  [Symbol.dispose](): void {
    this.descriptor[Symbol.dispose]();
  }
}

const TCP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
