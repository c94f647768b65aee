/**
 * A program that makes many TCP connections, or takes them: `serve ADDRESS…` prints the sources that it has seen, once
 * its input ends; `connect COUNT ADDRESS…` makes so many connections, in turns to each address and port.
 *
 * @module
 */

/** Several ports, so that a source port can be used again before the kernel forgets the connection. */
const PORTS = Array.from({ length: 16 }, (_, index) => 9000 + index);
const AT_ONCE = 64;

const [command, ...words] = Deno.args;
if (command === "serve") await serve(words);
else await connect(Number(words[0]), words.slice(1));

async function serve(addresses: readonly string[]): Promise<void> {
  const seen = new Map<string, number>();
  const listeners = addresses.flatMap((hostname) =>
    PORTS.map((port) => Deno.listen({ hostname, port }))
  );
  const accepting = listeners.map(async (listener) => {
    for await (const connection of listener) {
      const { hostname } = connection.remoteAddr;
      seen.set(hostname, (seen.get(hostname) ?? 0) + 1);
      connection.close();
    }
  });
  console.log("ready");
  for await (const _ of Deno.stdin.readable);
  for (const listener of listeners) listener.close();
  await Promise.all(accepting);
  console.log(JSON.stringify(Object.fromEntries(seen)));
}

async function connect(count: number, addresses: readonly string[]): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let mine = next++; mine < count; mine = next++) {
      const hostname = addresses[mine % addresses.length]!;
      const port = PORTS[Math.floor(mine / addresses.length) % PORTS.length]!;
      const connection = await Deno.connect({ hostname, port });
      // The other side closes first: this side's port is free at once.
      await connection.read(new Uint8Array(1));
      connection.close();
    }
  }));
}
