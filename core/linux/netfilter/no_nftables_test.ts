import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { Cidr } from "../../ip.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { Reconciler } from "../reconciler/reconciler.ts";
import { EINVAL, EPERM, EPROTONOSUPPORT, LinuxError } from "../sys/linux_error.ts";
import { Masquerading } from "./masquerading.ts";
import { nftablesIfThere } from "./no_nftables.ts";

const MASQUERADE: Masquerade = {
  kind: "masquerade",
  family: 4,
  networks: [Cidr.parse("10.5.0.0/16")],
  subnets: [Cidr.parse("10.5.3.0/24")],
  fullyRandom: true,
};

/** A kernel without nftables can't be had: this stands for one. */
function kernelWithout(errno: number) {
  return nftablesIfThere(() => {
    throw new LinuxError(errno, "ask for nftables");
  });
}

for (const errno of [EINVAL, EPROTONOSUPPORT]) {
  Deno.test(`a kernel without nftables (error ${errno}) hinders only those who masquerade`, () => {
    const nftTable = kernelWithout(errno);
    const log = new RecordingLog();
    using reconciler = new Reconciler<Masquerade>({
      log,
      open: () => ({
        tables: { nftTable },
        derivations: { masquerade: new Masquerading({ nftables: nftTable, log }) },
        [Symbol.dispose]: () => {},
      }),
    });
    assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
    reconciler.set("host", [MASQUERADE]);
    const { failures: [failure] } = reconciler.apply();
    assert.match(
      failure!,
      /no nftables.* load its module nf_tables, or start .* without --ip-masq/,
    );
    reconciler.delete("host");
    assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
  });
}

Deno.test("other errors are no sign of a kernel without nftables", () => {
  assert.throws(() => kernelWithout(EPERM), { name: "LinuxError", errno: EPERM });
});
