import assert from "node:assert/strict";
import type { CarrierFailure, CarrierReport } from "./carrier_messages.ts";
import { Counters } from "./counters.ts";
import { PeerMap } from "./peer_map.ts";

/** What a thread says of why it fails with this setup. */
async function failureOf(setup: unknown): Promise<CarrierFailure> {
  const worker = new Worker(new URL("./carrier_worker.ts", import.meta.url), { type: "module" });
  try {
    const failed = Promise.withResolvers<CarrierFailure>();
    worker.onmessage = ({ data }: MessageEvent<CarrierReport>) => {
      if (typeof data === "object") failed.resolve(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      failed.reject(new Error(event.message));
    };
    worker.postMessage(setup);
    return await failed.promise;
  } finally {
    worker.terminate();
  }
}

Deno.test("a thread reports its defect with the stack", async () => {
  const { error, defect } = await failureOf({});
  assert.equal(defect, true);
  assert.ok(error instanceof Error);
  assert.match(error.stack!, /^TypeError: [^]*carrier_worker\.ts/);
});

Deno.test("a thread reports what the system refuses as no defect, by its name", async () => {
  const { error, defect } = await failureOf({
    ...{ peers: PeerMap.memory(16), capacity: 16 },
    ...{ counters: Counters.memory(16, 1), number: 0 },
    ...{ tun: -1, wake: -1, sockets: new Map([[4, -1]]), rawSockets: new Map() },
    outbound: { port: 8285, header: true, segment: true },
  });
  assert.equal(defect, false);
  assert.match(`${error}`, /read from the TUN device: .*EBADF|errno 9/);
});
