/**
 * What the kernel counts of devices.
 *
 * @module
 */

import { throwDefect } from "@denim/core";
import { readProcFile } from "@denim/core/linux/proc-files";

/** What one device counted since it was made. */
export interface DeviceCounters {
  /** The device's name. */
  readonly name: string;
  /** What came in by it. */
  readonly received: Traffic;
  /** What left by it. */
  readonly sent: Traffic;
}

/** What went one way. */
export interface Traffic {
  /** Octets. */
  readonly bytes: number;
  /** Packets. */
  readonly packets: number;
  /** Packets that were broken, or could not be sent. */
  readonly errors: number;
  /** Packets that were dropped, as there was no room or nobody wanted them. */
  readonly dropped: number;
}

/** Reads `/proc/net/dev` (proc_pid_net(5)) as text: the devices of these names that are there, in this order. */
export function parseDeviceCounters(
  text: string,
  names: readonly string[],
): readonly DeviceCounters[] {
  const found = new Map(
    text.split("\n").slice(2).flatMap((line): [string, DeviceCounters][] => {
      const [name, numbers] = line.split(/:\s*/, 2) as [string, string?];
      if (numbers === undefined) return [];
      const columns = numbers.split(/\s+/).map(Number);
      const traffic = (first: number): Traffic => {
        const [bytes = 0, packets = 0, errors = 0, dropped = 0] = columns.slice(first);
        return { bytes, packets, errors, dropped };
      };
      return [[name.trim(), { name: name.trim(), received: traffic(0), sent: traffic(8) }]];
    }),
  );
  return names.flatMap((name) => found.get(name) ?? []);
}

/** What devices of this network namespace counted; of none if the kernel does not say. */
export function readDeviceCounters(names: readonly string[]): readonly DeviceCounters[] {
  try {
    return parseDeviceCounters(readProcFile("/proc/net/dev"), names);
  } catch (error) {
    throwDefect(error);
    return [];
  }
}
