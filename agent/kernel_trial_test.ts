import { Cidr, type KernelState } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { rootTest } from "../tests/support/root_test.ts";
import { vxlanLink } from "../tests/support/vxlan_link.ts";
import { tryInKernel } from "./kernel_trial.ts";
import { masqueradeState } from "./host_state.ts";

const network = Cidr.parse("10.5.0.0/16");
const MASQUERADE = masqueradeState(
  { families: [{ family: 4, network }], enableNFTables: undefined },
  [Cidr.parse("10.5.1.0/24")],
  {
    fullyRandom: true,
  },
);

function vxlan(mtuBytes: number): KernelState {
  return [vxlanLink({ local: network.at(1n) }, { mtuBytes })];
}

const tun = {
  kind: "link",
  name: "flannel0",
  mtuBytes: 1400,
  info: { type: "tun", queueLength: 9 },
} as const;

function devices(): string[] | null {
  return Deno.readTextFileSync("/proc/net/dev").match(/^\s*\S+:/gm);
}

function namespaces(): string[] {
  return [...Deno.readDirSync("/run/netns")].map(({ name }) => name)
    .filter((name) => name.startsWith("denim-check-"));
}

rootTest("what the kernel can do is tried elsewhere, and nothing of it is left", () => {
  const before = [devices(), namespaces()];
  const log = new RecordingLog();
  for (
    const [outer, state, failure] of [
      ["eth0", [...vxlan(1450), tun, ...MASQUERADE], undefined],
      // The loopback is there already.
      ["lo", [tun], undefined],
      ["eth0", vxlan(70_000), /make device flannel\.1: .*EINVAL/],
    ] as const
  ) {
    const failures = tryInKernel(state, outer, log);
    assert.equal(failures.length, failure === undefined ? 0 : 1, failures.join());
    if (failure !== undefined) assert.match(failures[0]!, failure);
  }
  assert.deepEqual([devices(), namespaces()], before);
});
