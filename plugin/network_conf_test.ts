import assert from "node:assert/strict";
import { ConfObject } from "./conf_object.ts";
import { atLeast, CNI_VERSIONS, readNetworkConf, requireVersion } from "./network_conf.ts";

function read(json: Readonly<Record<string, unknown>>) {
  return readNetworkConf(new ConfObject({ name: "cbr0", type: "denim", ...json }, ""));
}

for (
  const [said, spoken] of [
    // As the files of CNI's first years have it, and old kube-flannel.yml (cri-o#2410).
    [{}, "0.1.0"],
    [{ cniVersion: "" }, "0.1.0"],
    [{ cniVersion: null }, "0.1.0"],
    [{ CNIVersion: "0.2.0" }, "0.2.0"],
    ...CNI_VERSIONS.map((cniVersion) => [{ cniVersion }, cniVersion] as const),
  ] as const
) {
  Deno.test(`readNetworkConf() takes ${JSON.stringify(said)} for version ${spoken}`, () => {
    assert.equal(read(said).cniVersion, spoken);
  });
}

for (const cniVersion of ["9.9.9", "0.3", "1.0", "v1.0.0", "1.1.0 ", 1, ["1.0.0"], {}, false]) {
  Deno.test(`readNetworkConf() refuses the version ${JSON.stringify(cniVersion)}`, () => {
    assert.throws(() => read({ cniVersion }), (error: { code?: number; message?: string }) => {
      assert.equal(error.code, 1);
      assert.equal(
        error.message,
        `denim does not speak cniVersion ${JSON.stringify(cniVersion)}; set it to one of ` +
          "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
      );
      return true;
    });
  });
}

Deno.test("readNetworkConf() has flannel's defaults, also for what is empty", () => {
  for (const json of [{}, { subnetFile: "", dataDir: null }]) {
    const { name, subnetFile, dataDir } = read(json);
    assert.deepEqual(
      [name, subnetFile, dataDir],
      ["cbr0", "/run/flannel/subnet.env", "/var/lib/cni/flannel"],
    );
  }
});

Deno.test("versions are in order, and a command needs the one that it came with", () => {
  assert.deepEqual([atLeast("0.3.0", "0.3.1"), atLeast("1.0.0", "0.4.0")], [false, true]);
  requireVersion(read({ cniVersion: "0.4.0" }), "CHECK", "0.4.0");
  assert.throws(() => requireVersion(read({}), "CHECK", "0.4.0"), {
    code: 1,
    message: 'cniVersion "0.1.0" has no CHECK, which came with 0.4.0',
  });
});
