/**
 * What the plugin and the agent say to each other. A pod's start waits for the plugin, and most of that wait is the
 * start of a program; the agent has the plugin's modules loaded already. So what runtimes start is a shell script
 * (launcher.ts), which asks the agent, and starts the plugin only where no agent does the work.
 *
 * A shell has no sockets. It has named pipes (FIFOs), and the kernel says on them that the other side is gone, as on a
 * socket. They stand in a folder that its owner alone may open:
 *
 * | file      | what it is                                                                                         |
 * | --------- | -------------------------------------------------------------------------------------------------- |
 * | `agent`   | the agent that serves: its process, its thread, the number of its descriptor of `ask`, its build   |
 * | `ask`     | the FIFO to the agent, for lines of a word, a place's number and the asking process's              |
 * | `reply.N` | the FIFO from the agent for one call, of {@link PLACES} that there are                             |
 * | `call.N`  | what the runtime wrote to the plugin. Who makes this file has place N: two can't make the same one |
 * | `busy.X`  | a lock: the agent has a call of attachment X (call_order.ts)                                       |
 * | `lock`    | a lock: an agent serves here                                                                       |
 *
 * A call takes this way:
 *
 * 1. The script looks whether an agent serves that is of its build and in its own place: programs of two versions, or in
 *    different namespaces or roots, mean different things by the same path. `/proc/PID/fd/N` of a process that listens is
 *    the FIFO itself.
 * 2. It opens `reply.N`, makes `call.N`, and says `hello`. Each call has a FIFO of its own: the agent puts another one in
 *    its place before the place is the next one's.
 * 3. The agent says {@link GREETING}. If that does not come soon the script goes away: until then nothing was asked. It
 *    waits longer for an agent that is at work: the kernel takes 20 ms to remove a device, and on a busy machine a Deno
 *    more makes all slower.
 * 4. The script says `go`. The agent does the work, if the script is still there, and sends what {@link replyText} says.
 *    If the reply ends early the agent was killed, or left the call to the plugin; then the plugin does the work itself,
 *    as after a plugin that was killed.
 *
 * @module
 */

import config from "./deno.json" with { type: "json" };

/** Where the agent serves the plugin, unless it was told otherwise. */
export const DEFAULT_CALLS_FOLDER = "/run/denim/cni";

/** The commands that the agent takes: pods wait for them. */
export const SERVED_COMMANDS: readonly string[] = ["ADD", "DEL"];

/** How many calls can be under way. Whoever finds no place does the work itself. */
export const PLACES = 64;

/** The descriptor by which a script has its `reply.N` open: as long as it has, it waits for the agent. */
export const REPLY_FD = 4;

/** How the agent greets. */
export const GREETING = "ready";

/** What the agent tells its own thread on `ask`, to stop. */
export const STOP = "stop";

/** The files of a folder. */
export class CallFiles {
  /** The folder, without links in its path. */
  readonly folder: string;

  /** Names the files of a folder. */
  constructor(folder: string) {
    this.folder = folder;
  }

  /** Who serves. */
  get agent(): string {
    return `${this.folder}/agent`;
  }

  /** The FIFO to the agent. */
  get ask(): string {
    return `${this.folder}/ask`;
  }

  /** The lock of who serves. */
  get lock(): string {
    return `${this.folder}/lock`;
  }

  /** The FIFO that is about to take the place of an earlier one. */
  get next(): string {
    return `${this.folder}/next`;
  }

  /** The FIFO from the agent to a place. */
  reply(place: number): string {
    return `${this.folder}/reply.${place}`;
  }

  /** What a place's call is given. */
  call(place: number): string {
    return `${this.folder}/call.${place}`;
  }
}

/** How a build is named where the two compare theirs, given its commit if that is known. */
export function buildName(revision: string | null | undefined): string {
  return `denim ${config.version} ${revision ?? "checkout"}`;
}

/** What the agent sends of a call that it carried out: lines for standard output, those for standard error, the exit code. */
export function replyText(
  { output, errors, failed }: {
    readonly output: string;
    readonly errors: string;
    readonly failed: boolean;
  },
): string {
  const marked = (mark: string, text: string) =>
    text.replace(/^.*\n?/gm, (line) => {
      return line === "" ? "" : `${mark}${line.replace(/\n$/, "")}\n`;
    });
  return `${marked("o", output)}${marked("e", errors)}${failed ? 1 : 0}\n`;
}
