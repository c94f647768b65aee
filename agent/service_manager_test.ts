import assert from "node:assert/strict";
import { bind, receive, socket } from "../core/linux/sys/sockets.ts";
import { MSG_DONTWAIT } from "../core/linux/uapi/socket.ts";
import { FakeClock } from "../tests/support/fake_clock.ts";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";
import { ServiceManager } from "./service_manager.ts";

/** A service manager's socket. */
class Inbox implements Disposable {
  readonly #socket = socket(1, 2, 0); // AF_UNIX, SOCK_DGRAM

  constructor(path: string) {
    const name = new TextEncoder().encode(path.replace(/^@/, "\0"));
    bind(this.#socket, new Uint8Array([1, 0, ...name]));
  }

  /** The messages that have arrived. */
  read(): string[] {
    const messages: string[] = [];
    const data = new Uint8Array(1000);
    for (;;) {
      const length = receive(this.#socket, data, MSG_DONTWAIT);
      if (length < 0) return messages;
      messages.push(new TextDecoder().decode(data.subarray(0, length)));
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

function environment(variables: Record<string, string>) {
  const values = new Map(Object.entries(variables));
  return {
    values,
    get: (name: string) => values.get(name),
    delete: (name: string) => void values.delete(name),
  };
}

Deno.test("the agent tells systemd once that it is ready, and how it is, by either kind of socket", () => {
  using temp = new TempFolder();
  for (const path of [`${temp.path}/notify`, `@denim-test-${Deno.pid}`]) {
    using inbox = new Inbox(path);
    const variables = environment({ NOTIFY_SOCKET: path, WATCHDOG_USEC: "1000000", HOME: "/" });
    const manager = new ServiceManager(variables, new RecordingLog());
    assert.deepEqual([...variables.values.keys()], ["HOME"]);
    manager.tell("not ready: it is starting", false);
    manager.tell("ready", true);
    manager.tell("not ready:\nwhy", false);
    manager.tell("ready", true);
    manager.stop("stopped");
    assert.deepEqual(inbox.read(), [
      "STATUS=not ready: it is starting",
      "READY=1\nSTATUS=ready",
      "STATUS=not ready: why",
      "STATUS=ready",
      "STOPPING=1\nSTATUS=stopped",
    ]);
  }
});

Deno.test("the agent tells systemd that it is alive twice in its watchdog's time", async () => {
  const path = `@denim-test-watchdog-${Deno.pid}`;
  using inbox = new Inbox(path);
  const clock = new FakeClock();
  const stopping = new AbortController();
  const variables = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "20000000" };
  const beat = (pid: number) =>
    new ServiceManager(environment({ ...variables, WATCHDOG_PID: `${pid}` }), new RecordingLog())
      .beat(() => "fine", clock, stopping.signal);
  await beat(Deno.pid + 1);
  const beating = beat(Deno.pid);
  await clock.advance(25_000);
  assert.deepEqual(inbox.read(), Array(3).fill("WATCHDOG=1\nSTATUS=fine"));
  stopping.abort();
  await beating;
});

Deno.test("a service manager that is gone ends nothing", () => {
  const log = new RecordingLog();
  const manager = new ServiceManager(environment({ NOTIFY_SOCKET: "/nowhere/notify" }), log);
  manager.tell("ready", true);
  assert.deepEqual(log.events, ["warn service-manager-lost"]);
});
