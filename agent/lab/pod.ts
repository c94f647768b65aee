/**
 * A pod of a laboratory: what runs in it runs in a worker that lives in its namespace.
 *
 * @module
 */

import { Cidr, IpAddress } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux";
import type { PodAnswer, PodRequest } from "./pod_worker.ts";

/** The part of a CNI result (CNI spec 1.1.0, section 5) that says which address a pod has. */
interface CniResult {
  readonly ips: readonly { readonly address: string; readonly gateway?: string }[];
}

/** One pod, attached. */
export class Pod implements Disposable {
  /** Its name in the laboratory. */
  readonly name: string;
  /** The path of its namespace. */
  readonly path: string;
  /** Its addresses, the first of them IPv4 if it has one. */
  readonly addresses: readonly IpAddress[];
  readonly #worker: Worker;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #calls = 0;

  private constructor(name: string, path: string, addresses: readonly IpAddress[]) {
    this.name = name;
    this.path = path;
    this.addresses = addresses;
    this.#worker = new Worker(new URL("./pod_worker.ts", import.meta.url), {
      type: "module",
      name,
    });
    this.#worker.onmessage = ({ data }: MessageEvent<PodAnswer>) => {
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ("error" in data) waiting?.reject(new Error(data.error));
      else waiting?.resolve(data.value);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      for (const waiting of this.#waiting.values()) waiting.reject(new Error(event.message));
    };
  }

  /** Starts a pod's worker in its namespace. */
  static async attach(name: string, path: string, result: CniResult): Promise<Pod> {
    const addresses = result.ips.map(({ address }) => parseHost(address));
    const pod = new Pod(name, path, addresses);
    await pod.#call({ kind: "enter", path });
    return pod;
  }

  /** Opens its namespace. */
  open(): NetworkNamespace {
    return NetworkNamespace.open(this.path);
  }

  /** Its first address. */
  get address(): IpAddress {
    return this.addresses[0]!;
  }

  /**
   * Sends one echo request, never in fragments. The time until the reply in milliseconds; `undefined` where
   * none came.
   */
  async ping(
    address: IpAddress,
    options: { readonly timeoutMs?: number; readonly payloadBytes?: number } = {},
  ): Promise<{ readonly id: number; readonly timeMs: number | undefined }> {
    const { timeoutMs = 1000, payloadBytes = 56 } = options;
    const ping = { kind: "ping", address: `${address}`, timeoutMs, payloadBytes } as const;
    return await this.#call(ping) as { id: number; timeMs: number | undefined };
  }

  /** Listens for one TCP connection; answers with the port at once, and with the SHA-256 in `received`. */
  async listen(): Promise<{ readonly port: number }> {
    return await this.#call({ kind: "listen", address: `${this.address}` }) as { port: number };
  }

  /** The SHA-256 and the number of the bytes that the connection since `listen` brought. */
  async received(): Promise<{ readonly sha256: string; readonly bytes: number }> {
    return await this.#call({ kind: "received" }) as { sha256: string; bytes: number };
  }

  /** Sends random bytes over one TCP connection; answers with their SHA-256. */
  async send(
    address: IpAddress,
    port: number,
    bytes: number,
  ): Promise<{ readonly sha256: string }> {
    const send = { kind: "send", address: `${address}`, port, bytes } as const;
    return await this.#call(send) as { sha256: string };
  }

  #call(request: PodRequest): Promise<unknown> {
    const id = ++this.#calls;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#worker.postMessage({ id, ...request });
    return waiting.promise;
  }

  /** Ends the worker. The namespace stays. */
  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}

/** The host's address in `10.5.3.2/24`. */
function parseHost(text: string): IpAddress {
  Cidr.parse(text);
  return IpAddress.parse(text.split("/")[0]!);
}
