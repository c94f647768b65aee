import { NetworkNamespace } from "@denim/core/linux/namespace";
import assert from "node:assert/strict";
import { rootTest } from "../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../tests/support/scratch_namespace.ts";
import { overlayDevices } from "./packet_path.ts";

rootTest("overlayDevices() leaves out a tunnel that is down, as the kernel's own tunl0 is", () => {
  using ns = new ScratchNamespace();
  ns.ip("tuntap add flannel0 mode tun");
  ns.ip("tuntap add tunl0 mode tun");
  ns.ip("link set flannel0 up");
  using namespace = NetworkNamespace.open(ns.path);
  assert.deepEqual(overlayDevices(namespace), ["flannel0"]);
});
