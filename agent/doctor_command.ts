/**
 * `denim doctor`: what is wrong with this host, and how to mend it.
 *
 * @module
 */

import { DEFAULT_SUBNET_FILE } from "@denim/core";
import { API_SOCKET_FLAG } from "./common_flags.ts";
import type { Finding } from "./doctor/check.ts";
import { ThisHost } from "./doctor/host.ts";
import { CHECKS } from "./doctor/mod.ts";
import { flag } from "./flag_table.ts";
import { text, toggle } from "./flag_types.ts";
import { readProcLink } from "@denim/core/linux/proc-files";
import { requireRoot } from "./privileges.ts";
import { runCommand } from "./run_command.ts";
import { Screen } from "./screen.ts";

const HELP = `Usage: denim doctor [flags]

Looks at this host for what keeps pods' packets from travelling: the kernel, firewalls, programs that
manage networks, the CNI configuration, the agent and its peers. Says of each finding what was seen and
what to do, and ends with exit code 1 if there is any. Changes nothing, and needs no agent.
`;

/** The namespace of a host's own processes (PROC_PID_INIT_INO of linux/proc_ns.h). */
const HOST_PROCESSES = "pid:[4026531836]";
const FROM_A_CONTAINER =
  "looked at from a container: the host's processes, packages, firewall programs and files in /etc cannot be seen; " +
  "denim doctor on the host itself sees them";

const FLAGS = [
  API_SOCKET_FLAG,
  flag("subnet-file", text("PATH"), "what the agent writes for the plugin", DEFAULT_SUBNET_FILE),
  flag("cni-conf-dir", text("PATH"), "where runtimes look for configurations", "/etc/cni/net.d"),
  flag("cni-bin-dir", text("PATH"), "where runtimes look for plugins", "/opt/cni/bin"),
  flag("json", toggle, "print the findings as JSON"),
] as const;

/** Runs `denim doctor`, and resolves to the exit code: 0 nothing is wrong, 1 something is, 2 wrong usage. */
export function runDoctor(args: readonly string[]): Promise<number> {
  return runCommand<typeof FLAGS[number]>({
    name: "denim doctor",
    help: HELP,
    flags: FLAGS,
    environment: Deno.env.toObject(),
    stopped: "stopped",
    async run({ values }) {
      requireRoot("denim doctor");
      const host = new ThisHost({
        subnetFile: values["subnet-file"],
        apiSocket: values["api-socket"],
        cniConfDir: values["cni-conf-dir"],
        cniBinDir: values["cni-bin-dir"],
      });
      const findings: Finding[] = [];
      for (const check of CHECKS) findings.push(...await check(host));
      const screen = new Screen(Deno.stdout, Deno.env.get("NO_COLOR") ?? "");
      screen.print(values.json ? JSON.stringify(findings) : formatFindings(findings, screen));
      const isContained = readProcLink("/proc/self/ns/pid") !== HOST_PROCESSES;
      if (isContained && !values.json) screen.print(FROM_A_CONTAINER);
      return findings.length === 0 ? 0 : 1;
    },
  }, args);
}

/** Findings as people read them. */
function formatFindings(findings: readonly Finding[], screen: Screen): string {
  if (findings.length === 0) {
    return screen.paint("good", "nothing is wrong that the doctor can see");
  }
  return findings.map(({ name, evidence, remedy }) =>
    `${screen.paint("bad", name)}\n  seen    ${evidence}\n  mend    ${remedy}`
  ).join("\n");
}
