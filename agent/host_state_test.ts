import { Cidr } from "@denim/core";
import assert from "node:assert/strict";
import { hostState } from "./host_state.ts";

Deno.test("a node forwards by each device in IPv4, and as a whole in IPv6", () => {
  const state = hostState([{ family: 4 }, { family: 6 }], ["eth0", "flannel.1"]);
  assert.deepEqual(state, [
    { kind: "forwarding", family: 4, device: "all" },
    { kind: "forwarding", family: 4, device: "eth0" },
    { kind: "forwarding", family: 4, device: "flannel.1" },
    { kind: "forwarding", family: 6, device: "all" },
  ]);
});

Deno.test("the pods' bridge has the first address of each subnet", () => {
  const subnets = ["10.5.7.0/24", "fd05:0:0:7::/64"].map((text) => Cidr.parse(text));
  const addresses = hostState([], [], subnets).map((object) =>
    "address" in object && "prefixLength" in object && `${object.address}/${object.prefixLength}`
  );
  assert.deepEqual(addresses, ["10.5.7.1/24", "fd05:0:0:7::1/64"]);
});
