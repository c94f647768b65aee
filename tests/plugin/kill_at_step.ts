/**
 * Has a program kill itself before the Nth thing that it does to the disk, the kernel or another process, N being its
 * first argument, or before the first thing of that name. A file's text is two things: half of it is there in between.
 * What it was about to do it leaves in the file that its second argument names.
 *
 * @module
 */

import { NetlinkSocket } from "@denim/core/linux/attach";
import { libc } from "../../core/linux/sys/libc.ts";
import { O_WRONLY } from "../../core/linux/uapi/socket.ts";

const [at, log] = Deno.args;
let done = 0;

/** Puts a function in a function's place. */
function replace<T, K extends keyof T>(object: T, name: K, by: (real: T[K]) => T[K]): void {
  object[name] = by(object[name]);
}

const realWrite = Deno.writeTextFileSync;
function step(what: string): void {
  if (++done !== Number(at) && what !== at) return;
  realWrite(log!, what);
  Deno.kill(Deno.pid, "SIGKILL");
}

for (const name of ["mkdirSync", "renameSync", "removeSync", "utimeSync"] as const) {
  // deno-lint-ignore no-explicit-any -- four signatures in one
  replace(Deno as any, name, (real) => (...args: unknown[]) => {
    step(`${name} ${args[0]}`);
    return real(...args);
  });
}
replace(Deno, "openSync", (real) => (path, options) => {
  if (options?.write) step(`openSync ${path}`);
  return real(path, options);
});
replace(Deno, "writeTextFileSync", (real) => (path, text, options) => {
  step(`writeTextFileSync ${path}`);
  const half = `${text}`.slice(0, `${text}`.length / 2);
  real(path, half, options);
  step(`writeTextFileSync ${path}, the second half`);
  real(path, text, options);
});
const realOpen = libc.open;
// A setting of the kernel's: it is written in one go.
Object.defineProperty(libc, "open", {
  value: (...args: Parameters<typeof realOpen>) => {
    if ((args[1] & O_WRONLY) !== 0) step("write a setting of the kernel");
    return realOpen(...args);
  },
});
replace(NetlinkSocket.prototype, "send", (real) =>
  function (this: NetlinkSocket, batch) {
    step("send to the kernel");
    return real.call(this, batch);
  });
replace(NetlinkSocket.prototype, "transact", (real) =>
  function (this: NetlinkSocket, batch) {
    step("change nftables");
    const failures = real.call(this, batch);
    step("go on after nftables");
    return failures;
  });
replace(Deno.Command.prototype, "spawn", (real) =>
  function (this: Deno.Command) {
    step("run a plugin");
    return real.call(this);
  });
replace(Deno, "exit", (real) => (code) => {
  step("exit");
  return real(code);
});
