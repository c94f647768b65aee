import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { TempFolder } from "../../../tests/support/temp_folder.ts";
import { eventfd, inputOn, notify, pollInput } from "./poll.ts";

Deno.test("a signal to the thread that waits for input does not end the wait", async () => {
  const libc = Deno.dlopen("libc.so.6", {
    tgkill: { parameters: ["i32", "i32", "i32"], result: "i32" },
  });
  const caught = Promise.withResolvers<void>();
  const listener = () => caught.resolve();
  Deno.addSignalListener("SIGUSR1", listener);
  using descriptor = eventfd();
  const stop = new AbortController();
  const ended = inputOn(descriptor, stop.signal);
  const inPoll = (thread: string) => {
    try {
      return Deno.readTextFileSync(`/proc/self/task/${thread}/syscall`).startsWith(POLL);
    } catch {
      // It has ended since it was listed.
      return false;
    }
  };
  const threads = () => [...Deno.readDirSync("/proc/self/task")].map(({ name }) => name);
  while (!threads().some(inPoll)) await new Promise((resolve) => setTimeout(resolve, 1));
  for (const thread of threads().filter(inPoll)) {
    assert.equal(libc.symbols.tgkill(Deno.pid, Number(thread), SIGUSR1), 0);
  }
  await caught.promise;
  const early = await Promise.race([
    ended,
    new Promise((resolve) => setTimeout(resolve, 50, "on")),
  ]);
  assert.equal(early, "on");
  notify(descriptor);
  assert.equal(await ended, true);
  Deno.removeSignalListener("SIGUSR1", listener);
  libc.close();
});

Deno.test("a signal to a thread that waits for input does not cut its wait short", async () => {
  const caught = Promise.withResolvers<void>();
  const listener = () => caught.resolve();
  Deno.addSignalListener("SIGUSR1", listener);
  const thread = Deno.readLinkSync("/proc/thread-self").split("/").at(-1);
  const code = `
    const libc = Deno.dlopen("libc.so.6", {
      tgkill: { parameters: ["i32", "i32", "i32"], result: "i32" },
    });
    const inPoll = () =>
      Deno.readTextFileSync("/proc/${Deno.pid}/task/${thread}/syscall").startsWith("${POLL}");
    while (!inPoll()) await new Promise((resolve) => setTimeout(resolve, 1));
    const result = libc.symbols.tgkill(${Deno.pid}, ${thread}, ${SIGUSR1});
    Deno.writeTextFileSync(Deno.args[0], \`\${result}\`);`;
  using temp = new TempFolder();
  const sent = `${temp.path}/sent`;
  const sender = new Deno.Command(Deno.execPath(), { args: ["eval", code, sent] }).spawn();
  using descriptor = eventfd();
  // The other process takes a while to start, and longer on a busy machine.
  while (!existsSync(sent)) {
    const startMs = performance.now();
    assert.equal(pollInput(descriptor, WAIT_MS), false);
    assert.ok(performance.now() - startMs >= WAIT_MS, "the wait lasts its time");
  }
  assert.equal((await sender.status).code, 0);
  assert.equal(Deno.readTextFileSync(sent), "0");
  await caught.promise;
  Deno.removeSignalListener("SIGUSR1", listener);
});

/** Long enough to be seen by another process, which sends a signal then. */
const WAIT_MS = 200;
const SIGUSR1 = 10;
/** The number of poll(2), or of ppoll(2) where there is no other. */
const POLL = Deno.build.arch === "x86_64" ? "7 " : "73 ";
