/**
 * What a laboratory's pod does, on a thread that has moved into the pod's namespace: `setns` moves one
 * thread, and all that a worker opens is opened on its own.
 *
 * @module
 */

import { type Family, IpAddress } from "@denim/core/ip";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { Pinger } from "@denim/core/linux/ping";

/** What a pod can be asked to do. */
export type PodRequest =
  | { readonly kind: "enter"; readonly path: string }
  | {
    readonly kind: "ping";
    readonly address: string;
    readonly timeoutMs: number;
    readonly payloadBytes: number;
  }
  | { readonly kind: "listen"; readonly address: string }
  | { readonly kind: "received" }
  | {
    readonly kind: "send";
    readonly address: string;
    readonly port: number;
    readonly bytes: number;
  };

/** What it answers. */
export type PodAnswer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string };

const pingers = new Map<Family, Pinger>();
let receiving: Promise<{ sha256: string; bytes: number }> | undefined;

async function answer(request: PodRequest): Promise<unknown> {
  switch (request.kind) {
    case "enter": {
      using namespace = NetworkNamespace.open(request.path);
      namespace.enter();
      return undefined;
    }
    case "ping": {
      const address = IpAddress.parse(request.address);
      const pinger = pingers.get(address.family) ?? new Pinger(address.family);
      pingers.set(address.family, pinger);
      return {
        id: pinger.id,
        timeMs: pinger.ping(address, request.timeoutMs, request.payloadBytes),
      };
    }
    case "listen": {
      const listener = Deno.listen({ hostname: request.address, port: 0 });
      receiving = receive(listener);
      return { port: listener.addr.port };
    }
    case "received":
      return await receiving;
    case "send": {
      const bytes = new Uint8Array(request.bytes);
      // getRandomValues gives 64 KiB at the most.
      for (let at = 0; at < bytes.length; at += 65_536) {
        crypto.getRandomValues(bytes.subarray(at, at + 65_536));
      }
      using connection = await Deno.connect({ hostname: request.address, port: request.port });
      for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
      return { sha256: await sha256(bytes) };
    }
  }
}

async function receive(listener: Deno.Listener): Promise<{ sha256: string; bytes: number }> {
  using connection = await listener.accept();
  listener.close();
  const bytes = new Uint8Array(await new Response(connection.readable).arrayBuffer());
  return { sha256: await sha256(bytes), bytes: bytes.length };
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** This thread's side of the worker. The library that declares it is not for published packages. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ id: number } & PodRequest>) => void;
  postMessage(answer: PodAnswer): void;
};

worker.onmessage = async ({ data }) => {
  try {
    worker.postMessage({ id: data.id, value: await answer(data) });
  } catch (error) {
    worker.postMessage({ id: data.id, error: String(error) });
  }
};
