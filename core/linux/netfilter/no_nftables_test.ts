import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { Cidr } from "../../ip.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { Reconciler } from "../reconciler/reconciler.ts";
import { EINVAL, EPERM, EPROTONOSUPPORT, LinuxError } from "../sys/linux_error.ts";
import { NetfilterTables } from "./netfilter_tables.ts";
import { nftablesIfThere } from "./no_nftables.ts";

const MASQUERADE: Masquerade = {
  kind: "masquerade",
  family: 4,
  networks: [Cidr.parse("10.5.0.0/16")],
  subnets: [Cidr.parse("10.5.3.0/24")],
  fullyRandom: true,
};

/** A kernel without nftables can't be had: this stands for one. */
function kernelWithout(errno: number): never {
  throw new LinuxError(errno, "ask for nftables");
}

for (const errno of [EINVAL, EPROTONOSUPPORT]) {
  rootTest(`a kernel without nftables (error ${errno}): iptables-legacy masquerades`, () => {
    using namespace = new ScratchNamespace();
    const reconciler = namespace.run(() =>
      new Reconciler<Masquerade>({
        log: new RecordingLog(),
        open: (desired) =>
          new NetfilterTables({
            desired,
            log: new RecordingLog(),
            inCluster: () => true,
            iptablesResyncMs: 5_000,
            openNftables: () => kernelWithout(errno),
          }),
      })
    );
    using _ = reconciler;
    const rules = () => namespace.run(() => sh("iptables-legacy-save")).match(/-A .*/g) ?? [];
    assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
    reconciler.set("host", [{ ...MASQUERADE, engine: "nftables" }]);
    assert.match(
      reconciler.apply().failures[0]!,
      /no nftables.* load its module nf_tables.* without --ip-masq/,
    );
    reconciler.set("host", [MASQUERADE]);
    assert.deepEqual(reconciler.apply(), { changes: 1, failures: [] });
    assert.equal(rules().length, 7);
    reconciler.delete("host");
    assert.deepEqual(reconciler.apply(), { changes: 1, failures: [] });
    assert.deepEqual(rules(), []);
  });
}

Deno.test("other errors are no sign of a kernel without nftables", () => {
  assert.throws(() => nftablesIfThere(() => kernelWithout(EPERM)), {
    name: "LinuxError",
    errno: EPERM,
  });
});
