/**
 * The plugin's half of the talk with the agent: a script for any POSIX shell, as each pod's start waits for it. A shell
 * starts in a millisecond, a Deno in twenty. All that it runs beside the shell is sleep(1), to have a clock.
 *
 * @module
 */

import { buildName, GREETING, PLACES, REPLY_FD, SERVED_COMMANDS } from "./calls.ts";

/** What a script is made of. */
export interface LauncherOptions {
  /** The shell's words that start the plugin; the script adds the folder of calls. */
  readonly plugin: string;
  /** The commit of the plugin's build; see {@link buildName}. */
  readonly revision: string | null | undefined;
  /** Where the agent serves. */
  readonly calls: string;
}

/** How often a script looks for a greeting before it has a clock started: for as long as that takes, or less. */
const GLANCES = 200;
/** How long an agent may take to greet then, in seconds. */
const PATIENCE_S = "0.02";
/** How often a script waits once more for an agent that is at work. */
const MORE_ROUNDS = 25;

/** How many places a script tries to have. */
const TRIES = 8;

/**
 * The script: `plugin` and the rest of it run with the environment and the standard input that a runtime gives. It does
 * with what every POSIX shell has, and `test -ef` (POSIX.1-2024; dash and busybox had it before). A shell leaves out
 * zeros of its input, which JSON has none of.
 */
export function pluginScript({ plugin, revision, calls }: LauncherOptions): string {
  return `calls=${quoted(calls)}
newline='
'
alone() { exec ${plugin} "$calls"; }
# An agent of this build serves, is not stopped, and means by a path what this process does.
is_served() {
  read -r pid thread ask build <"$calls/agent" && [ "$build" = ${quoted(buildName(revision))} ] &&
    [ "$calls/ask" -ef "/proc/$pid/fd/$ask" ] && [ /proc/self/ns/pid -ef "/proc/$pid/ns/pid" ] &&
    [ /proc/self/ns/net -ef "/proc/$pid/ns/net" ] &&
    [ /proc/self/ns/mnt -ef "/proc/$pid/task/$thread/ns/mnt" ] &&
    [ /proc/self/root -ef "/proc/$pid/task/$thread/root" ] && ! is_in '[TtZX]'
}
# What the agent's thread does: R computes, or would; D waits for the kernel, S for others; T is stopped.
# It is on the third line: a shell reads octet by octet, and not more lines than it has to.
is_in() {
  { read -r name && read -r umask && read -r key state; } <"/proc/$pid/task/$thread/status"
  case $state in $1*) ;; *) return 1 ;; esac
}
# The agent has a call, or its thread computes. A plugin would wait for the same locks, or make a busy machine busier.
is_at_work() {
  for busy in "$calls"/busy.*; do [ ! -e "$busy" ] || return 0; done
  is_in '[RD]'
}
# A FIFO that is opened for both ways does not wait for the other side.
tell() { echo "$1 $place $$" 1<>"$calls/ask"; }
# A FIFO that nobody can write to is at its end at once. An agent that has nothing to do opens it sooner than sleep starts.
glance() {
  exec 3>&-
  glances=0
  until read -r greeting <&${REPLY_FD} || [ $glances -eq ${GLANCES} ]; do glances=$((glances + 1)); done
}
# The FIFO ends when the last of those is gone who can write to it: sleep, and then the agent.
listen() {
  sleep ${PATIENCE_S} >&3 3>&- ${REPLY_FD}<&- </dev/null &
  exec 3>&-
  read -r greeting <&${REPLY_FD}
  kill $!
  wait $!
}
# Takes a place, which is had by who makes its file, and sets what the agent said.
talk() {
  printf %s "$input" >"$calls/call.$place" || return
  taken=yes
  tell hello
  glance
  rounds=0
  while [ -z "$greeting" ] && [ $rounds -le ${MORE_ROUNDS} ] && { [ $rounds -eq 0 ] || is_at_work; }; do
    { listen; } 3>/proc/self/fd/${REPLY_FD}
    rounds=$((rounds + 1))
  done
  [ "$greeting" = ${GREETING} ] || return
  tell go
  while IFS= read -r line; do
    case $line in
      o*) output=$output\${line#o}$newline ;;
      e*) errors=$errors\${line#e}$newline ;;
      *) code=$line ;;
    esac
  done <&${REPLY_FD}
}
case \${CNI_COMMAND-} in ${SERVED_COMMANDS.join(" | ")}) ;; *) alone ;; esac
is_served 2>/dev/null || alone
# Those that a runtime has in its environment would be in the plugin's, however long they become.
unset input line output errors
input='' output='' errors='' code=''
while IFS= read -r line; do input=$input$line$newline; done
input=$input$line
set -C
tries=0
while [ $tries -lt ${TRIES} ]; do
  place=$((($$ + tries) % ${PLACES})) tries=$((tries + 1)) taken=''
  # Opened before it is taken, so that the FIFO is never the next one's.
  { talk; } 3<>"$calls/reply.$place" ${REPLY_FD}<"$calls/reply.$place" 2>/dev/null
  [ -z "$taken" ] || break
done
[ -n "$code" ] || alone <<end-of-input
$input
end-of-input
printf %s "$errors" >&2
printf %s "$output"
exit "$code"
`;
}

/** A text as one word of a shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
