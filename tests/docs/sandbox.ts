/**
 * A machine for a page's commands: a network, processes and folders of its own, so that they may do to it what they do
 * to a node.
 *
 * @module
 */

import { ROOT } from "../../.ci/source_files.ts";
import type { CommandBlock } from "./pages.ts";

/** Folders in which a node's files are, and the checkout; what is written there is gone at the end. */
const LAYERED = ["/etc", "/opt", "/var/lib", "/usr/local", ROOT];

/** What a page may call beside what Debian has. `npx` stands in for npm's, which would fetch Deno. */
const PROGRAMS: Readonly<Record<string, string>> = {
  deno: `exec ${Deno.execPath()} "$@"`,
  denim: `exec ${Deno.execPath()} task --quiet --cwd ${ROOT} denim "$@"`,
  npx: `shift 2; exec ${Deno.execPath()} "$@"`,
};

/** How long a program that runs until it is stopped may take to start. */
const START_SECONDS = 60;

/**
 * Runs the blocks one after another in one shell, in a checkout that has the files of `folder` beside the sources. The
 * machine's device `eth0` has 10.0.0.1/24 and the default route.
 *
 * @param before commands of the test's own, which run first; they may use the functions below
 */
export async function sandboxed(
  blocks: readonly CommandBlock[],
  folder: string,
  before: string,
): Promise<{ readonly code: number; readonly output: string }> {
  Deno.mkdirSync(`${folder}/bin`);
  for (const [name, script] of Object.entries(PROGRAMS)) {
    Deno.writeTextFileSync(`${folder}/bin/${name}`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  const script = [
    "set -eu",
    `layers=${folder}/layers; mkdir $layers; mount -t tmpfs tmpfs $layers`,
    ...LAYERED.flatMap((path, index) => [
      `mkdir -p ${path} $layers/${index}/upper $layers/${index}/work`,
      `mount -t overlay overlay -o lowerdir=${path},upperdir=$layers/${index}/upper,workdir=$layers/${index}/work ${path}`,
    ]),
    "mount -t tmpfs tmpfs /run; mkdir /run/netns",
    "ip link set lo up; ip link add eth0 type veth peer name wire; ip link set eth0 up; ip link set wire up",
    "ip address add 10.0.0.1/24 dev eth0; ip route add default via 10.0.0.254",
    `cd ${ROOT}; cp ${folder}/*.pem .; export PATH=${folder}/bin:$PATH`,
    FUNCTIONS,
    before,
    ...blocks.map(inScript),
  ].join("\n");
  const { code, stdout, stderr } = await new Deno.Command("unshare", {
    args: [
      ...["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation"],
      ...["private", "sh", "-c", script],
    ],
    env: { INIT_CWD: ROOT },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** `started EVENT LOG` waits until the log of the last program that was started has the event. */
const FUNCTIONS = `started() {
  for tenth in $(seq ${START_SECONDS * 10}); do
    ! grep -qs "$1" "$2" || return 0
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  cat "$2"
  exit 1
}
serve_etcd() {
  etcd --data-dir /run/etcd "$@" >/run/etcd.log 2>&1 &
  started "ready to serve client" /run/etcd.log
}`;

function inScript({ line, commands, startsWith }: CommandBlock): string {
  const said = `echo "line ${line}:" >&2`;
  if (startsWith === undefined) return `${said}\n${commands}`;
  const log = `/run/line-${line}.log`;
  return `${said}\n(\n${commands}) >${log} 2>&1 &\nstarted "event=${startsWith}" ${log}`;
}
