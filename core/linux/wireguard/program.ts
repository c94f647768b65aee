/**
 * Programs that are WireGuard where the kernel has none. A program goes on when the agent ends, so that pods talk on;
 * when it dies its device goes, of which the kernel tells the reconciler, which makes the device again.
 *
 * @module
 */

import { messageOf, RuntimeError, throwDefect } from "../../errors.ts";
import { hasProgram, UapiSocket } from "./uapi_socket.ts";

/** How long a program may take to notice something, in milliseconds, and how often it is asked. */
const PATIENCE_MS = 2_000, LOOK_MS = 1;

/**
 * Starts a program that makes a device, in this thread's network namespace, and returns when the device is there.
 * Throws a RuntimeError that says what to do where there is no such program.
 */
export function startProgram(program: string, device: string): void {
  const remedy = "load the kernel's WireGuard (modprobe wireguard), or install wireguard-go";
  const without = `make device ${device}: the kernel has no WireGuard, and`;
  let result: Deno.CommandOutput;
  try {
    result = new Deno.Command(program, {
      args: [device],
      // What secrets this process was told are none of its business, and if it logged it would keep the pipes open.
      clearEnv: true,
      env: { PATH: Deno.env.get("PATH") ?? "" },
      stdin: "null",
    }).outputSync();
  } catch (error) {
    throwDefect(error);
    throw new RuntimeError(
      `${without} the program ${program} can't be started (${messageOf(error)}); ${remedy}`,
      { cause: error },
    );
  }
  if (result.success && until(() => hasProgram(device))) return;
  const said = complaintIn(result);
  throw new RuntimeError(
    `${without} the program ${program} did not make it${said ? `: ${said}` : ""}; ${remedy}`,
  );
}

/** What a program says went wrong. wireguard-go says that on standard output, and where it need not run a word on standard error. */
function complaintIn({ stdout, stderr }: Deno.CommandOutput): string | undefined {
  const lines = [stderr, stdout].flatMap((bytes) => new TextDecoder().decode(bytes).split("\n"))
    .filter((line) => /\w/.test(line));
  return (lines.findLast((line) => line.startsWith("ERROR")) ?? lines.at(-1))?.trim();
}

/** Waits until a program has noticed that its device is up: it has a port then, and speaks to peers. */
export function awaitUp(device: string): void {
  until(() => {
    using socket = new UapiSocket(device);
    return socket.ask("get=1\n").some(([key, value]) => key === "listen_port" && value !== "0");
  });
}

/** Waits until a program has ended, whose device is gone: it takes its socket with it, even if a next one has made its own. */
export function awaitEnd(device: string): void {
  until(() => !hasProgram(device));
}

/** Waits on this thread until something holds; false if it does not in time. */
function until(condition: () => boolean): boolean {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const endMs = performance.now() + PATIENCE_MS;
  for (;;) {
    if (condition()) return true;
    if (performance.now() > endMs) return false;
    Atomics.wait(clock, 0, 0, LOOK_MS);
  }
}
