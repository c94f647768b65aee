import assert from "node:assert/strict";
import { parseDeviceCounters } from "./device_counters.ts";

// As Linux 6.18 prints it.
const TEXT = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0: 157000    1201    1    2    0     0          0         0 18446744073709551615     987    3    4    0     0       0          0
flannel.1:136000     890    0    0    0     0          0         0   136001     890    0    5    0     0       0          0
`;

Deno.test("device counters: those of the named devices that are there, in the order of the names", () => {
  assert.deepEqual(parseDeviceCounters(TEXT, ["flannel.1", "gone", "eth0"]), [
    {
      name: "flannel.1",
      received: { bytes: 136_000, packets: 890, errors: 0, dropped: 0 },
      sent: { bytes: 136_001, packets: 890, errors: 0, dropped: 5 },
    },
    {
      name: "eth0",
      received: { bytes: 157_000, packets: 1201, errors: 1, dropped: 2 },
      sent: { bytes: 2 ** 64, packets: 987, errors: 3, dropped: 4 },
    },
  ]);
});
