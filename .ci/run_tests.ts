/**
 * `deno task test [arguments of deno test]`: installs what the tests need and this machine lacks, runs
 * them, says what was skipped and what failed, and ends with a line `N passed, N failed`.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { closingLine, countTests } from "./junit.ts";
import { runSupervised } from "./run_supervised.ts";
import { ROOT } from "./source_files.ts";

/** A Debian package, and a command that shows whether it is there. */
interface Package {
  readonly name: string;
  readonly command: string;
}

/** What tests use beside Deno. */
const PACKAGES: readonly Package[] = [
  { name: "iproute2", command: "ip" },
  { name: "iputils-ping", command: "ping" },
  { name: "containernetworking-plugins", command: "/usr/lib/cni/bridge" },
  { name: "etcd-server", command: "etcd" },
  { name: "etcd-client", command: "etcdctl" },
  { name: "openssl", command: "openssl" },
  { name: "nftables", command: "nft" },
  { name: "iptables", command: "iptables-restore" },
  { name: "wireguard-go", command: "wireguard-go" },
  { name: "wireguard-tools", command: "wg" },
  { name: "ethtool", command: "ethtool" },
  { name: "chromium", command: "chromium" },
];

/** No test takes this long without a word; one that does hangs. */
const SILENCE_MS = 10 * 60_000;

const missing = PACKAGES.filter(({ command }) => !isInstalled(command));
if (missing.length > 0) install(missing);
Deno.exit(await test(Deno.args));

function isInstalled(command: string): boolean {
  const folders = `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`.split(":");
  const paths = command.startsWith("/")
    ? [command]
    : folders.map((folder) => `${folder}/${command}`);
  return paths.some((path) => existsSync(path));
}

function install(packages: readonly Package[]): void {
  const names = packages.map(({ name }) => name);
  if (Deno.uid() !== 0) {
    // What uses them needs root too, and says so itself.
    console.log(`tests: missing Debian packages, of use to root alone: ${names.join(" ")}`);
    return;
  }
  if (!isInstalled("apt-get")) {
    const wanted = packages.map(({ name, command }) => `${name} (${command})`).join(", ");
    console.error(
      "tests: there is no apt-get here to install what is missing. Install what has these names " +
        `in Debian, so that the commands are there, and run the tests again: ${wanted}`,
    );
    Deno.exit(1);
  }
  console.log(`tests: installing Debian packages: ${names.join(" ")}`);
  for (const args of [["update"], ["install", "-y", "--no-install-recommends", ...names]]) {
    const { success, stdout, stderr } = new Deno.Command("apt-get", {
      args: ["-q", ...args],
      env: { DEBIAN_FRONTEND: "noninteractive" },
      stdin: "null",
    }).outputSync();
    if (success) continue;
    const decoder = new TextDecoder();
    console.error(decoder.decode(stdout) + decoder.decode(stderr));
    console.error(`tests: apt-get ${args.join(" ")} failed; see above`);
    Deno.exit(1);
  }
}

/** Runs the tests and returns the exit code. */
async function test(args: readonly string[]): Promise<number> {
  const folder = Deno.makeTempDirSync({ prefix: "denim-tests-" });
  try {
    const junit = `${folder}/junit.xml`;
    const report = `${folder}/report.txt`;
    const { success, hungAt } = await runSupervised(Deno.execPath(), {
      args: ["test", "--quiet", "-A", `--junit-path=${junit}`, ...args],
      cwd: ROOT,
      env: { DENIM_TEST_REPORT: report },
      silenceMs: SILENCE_MS,
    });
    const { passed, failed, skipped } = countTests(
      existsSync(junit) ? Deno.readTextFileSync(junit) : "",
    );
    if (existsSync(report)) console.log(Deno.readTextFileSync(report).trimEnd());
    if (skipped.length > 0) console.log(`tests: skipped:\n${skipped.join("\n")}`);
    if (failed.length > 0) console.log(`tests: failed:\n${failed.join("\n")}`);
    if (hungAt !== undefined) {
      console.error(
        `tests: stopped after ${SILENCE_MS / 60_000} minutes without a word, at: ${hungAt}\n` +
          "tests: look for namespaces and processes that it left: ip netns list",
      );
    }
    const nothingRan = passed + failed.length === 0;
    if (success && nothingRan) console.error("tests: nothing ran");
    // A module that can't be loaded, or an error outside of every test, is in no report.
    const unreported = failed.length === 0 && (!success || nothingRan) ? 1 : 0;
    console.log(closingLine(passed, failed.length + unreported, skipped.length));
    return success && !nothingRan ? 0 : 1;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
