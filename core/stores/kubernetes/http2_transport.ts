/**
 * Requests over node:http2, which can do what Deno's `fetch` can't: check the server's certificate for another
 * name, or not at all, and choose among the addresses of a name.
 *
 * @module
 */

import type { ClientHttp2Session } from "node:http2";
import { IpAddress } from "../../mod.ts";
import type { Access } from "./access.ts";
import { explain, type Transport, TransportError, type TransportRequest } from "./transport.ts";

/** The stream is not needed any longer (RFC 9113, section 7). */
const CANCEL = 0x8;

/**
 * Opens a transport with one connection; the server is connected to at once. Node's modules are loaded for those alone
 * who come here.
 *
 * @param address the address to connect to; what the URL's host leads to unless given
 */
export async function openHttp2Transport(access: Access, address?: string): Promise<Transport> {
  const [http2, tls] = [await import("node:http2"), await import("node:tls")];
  const { ca, cert, key, insecure, serverName } = access.tls;
  const { origin, hostname, port, pathname } = new URL(access.server);
  const base = pathname.replace(/\/$/, "");
  const host = hostname.replace(/^\[|\]$/g, "");
  // No IP address may stand there (RFC 6066, section 3), and none is needed: only a name has a choice.
  const servername = serverName ?? (IpAddress.tryParse(host) === undefined ? host : undefined);
  let failure: TransportError | undefined;
  const session = http2.connect(origin, {
    createConnection: () =>
      tls.connect({
        host: address ?? host,
        port: Number(port || 443),
        rejectUnauthorized: !insecure,
        ALPNProtocols: ["h2"],
        ...servername === undefined ? {} : { servername },
        ...ca === undefined ? {} : { ca },
        ...cert === undefined || key === undefined ? {} : { cert, key },
      }),
  });
  session.on("error", (error) => failure = new TransportError(explain(error), { cause: error }));
  session.on("close", () => failure ??= new TransportError("it hung up"));
  const hungUp = () => failure ?? new TransportError("it hung up");
  return {
    send: (request) => {
      if (failure !== undefined || session.destroyed) return Promise.reject(hungUp());
      return answer(session, base, request, hungUp);
    },
    [Symbol.dispose]: () => session.destroy(),
  };
}

function answer(
  session: ClientHttp2Session,
  base: string,
  { method, path, headers, body, signal }: TransportRequest,
  hungUp: () => TransportError,
): Promise<Response> {
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  const stream = session.request({ ...headers, ":method": method, ":path": base + path });
  let controller!: ReadableByteStreamController;
  let open = true;
  const finish = (error?: unknown) => {
    if (!open) return;
    open = false;
    signal.removeEventListener("abort", onAbort);
    session.off("close", onClose);
    if (error === undefined) {
      controller.close();
      // A reader that waits with a buffer of its own hears of the end by nothing else.
      controller.byobRequest?.respond(0);
      return;
    }
    reject(error);
    controller.error(error);
  };
  const end = () => stream.close(CANCEL);
  const onAbort = () => {
    finish(signal.reason);
    end();
  };
  const onClose = () => finish(hungUp());
  const content = new ReadableStream({
    type: "bytes",
    start: (own) => void (controller = own),
    cancel() {
      open = false;
      end();
    },
  });
  signal.addEventListener("abort", onAbort, { once: true });
  session.once("close", onClose);
  stream.on("response", (received) => {
    const fields = Object.entries(received).filter(([name]) => !name.startsWith(":"));
    resolve(
      new Response(content, {
        status: Number(received[":status"]),
        headers: fields.map(([name, value]): [string, string] => [name, String(value)]),
      }),
    );
  });
  stream.on("data", (chunk: Uint8Array<ArrayBuffer>) => {
    if (open && chunk.length > 0) controller.enqueue(chunk);
  });
  stream.on("end", () => finish());
  stream.on("error", (error) => finish(new TransportError(explain(error), { cause: error })));
  stream.on("close", onClose);
  stream.end(body);
  if (signal.aborted) onAbort();
  return promise;
}
