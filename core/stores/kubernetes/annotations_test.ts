/** flannel's annotations: what is written is its own to the letter, and what it writes is understood. */

import assert from "node:assert/strict";
import { Cidr, ConfigError, IpAddress, type LeaseHalf, RuntimeError } from "../../mod.ts";
import { AnnotationNames, annotationsOf, leaseOf } from "./annotations.ts";

const PREFIX = "flannel.alpha.coreos.com";
const names = new AnnotationNames(PREFIX);

function half(subnet: string, publicIp: string, backendData?: unknown): LeaseHalf {
  return { subnet: Cidr.parse(subnet), publicIp: IpAddress.parse(publicIp), backendData };
}

const VTEP = { VNI: 1, VtepMAC: "86:3b:05:00:00:01" };
const VTEP_JSON = '{"VNI":1,"VtepMAC":"86:3b:05:00:00:01"}';
const four = (data?: unknown) => half("10.5.1.0/24", "10.99.0.1", data);
const six = (data?: unknown) => half("fc00:5:0:1::/64", "fd99::1", data);

/** A lease's halves, and its annotations without their prefix and `kube-subnet-manager`. */
const WRITTEN: Readonly<
  Record<
    string,
    readonly [type: string, halves: readonly LeaseHalf[], values: Readonly<Record<string, string>>]
  >
> = {
  "vxlan": ["vxlan", [four(VTEP)], {
    "backend-data": VTEP_JSON,
    "public-ip": "10.99.0.1",
  }],
  "vxlan, both": ["vxlan", [four(VTEP), six({ VNI: 2 })], {
    "backend-data": VTEP_JSON,
    "backend-v6-data": '{"VNI":2}',
    "public-ip": "10.99.0.1",
    "public-ipv6": "fd99::1",
  }],
  "vxlan, IPv6 alone": ["vxlan", [six(VTEP)], {
    "backend-v6-data": VTEP_JSON,
    "public-ipv6": "fd99::1",
  }],
  "host-gw": ["host-gw", [four()], { "backend-data": "null", "public-ip": "10.99.0.1" }],
  "host-gw, both": ["host-gw", [four(), six()], {
    "backend-data": "null",
    "backend-v6-data": "null",
    "public-ip": "10.99.0.1",
    "public-ipv6": "fd99::1",
  }],
  "host-gw, IPv6 alone": ["host-gw", [six()], {
    "backend-data": "null",
    "backend-v6-data": "null",
    "public-ip": "0.0.0.0",
    "public-ipv6": "fd99::1",
  }],
  "wireguard, both": ["wireguard", [four({ PublicKey: "a+/=" }), six({ PublicKey: "b" })], {
    "backend-data": '{"PublicKey":"a+/="}',
    "backend-v6-data": '{"PublicKey":"b"}',
    "public-ip": "10.99.0.1",
    "public-ipv6": "fd99::1",
  }],
  "udp and alloc, which say no type": ["", [four()], {
    "backend-data": "null",
    "public-ip": "10.99.0.1",
  }],
  "extension, as Go escapes it": ["extension", [four("a<b>&\u2028c")], {
    "backend-data": '"a\\u003cb\\u003e\\u0026\\u2028c"',
    "public-ip": "10.99.0.1",
  }],
  "extension, IPv6 alone": ["extension", [six("x")], {
    "backend-data": '"x"',
    "backend-v6-data": "null",
    "public-ip": "0.0.0.0",
    "public-ipv6": "fd99::1",
  }],
};

for (const [what, [backendType, halves, values]] of Object.entries(WRITTEN)) {
  Deno.test(`annotations of ${what} are flannel's, and read back are the same lease`, () => {
    const written = annotationsOf(names, { backendType, halves });
    const annotations = Object.fromEntries(
      Object.entries(written).flatMap(([name, value]) =>
        value === undefined ? [] : [[name, value]]
      ),
    );
    const wanted = { "kube-subnet-manager": "true", "backend-type": backendType, ...values };
    assert.deepEqual(
      annotations,
      Object.fromEntries(
        Object.entries(wanted).map(([name, value]) => [`${PREFIX}/${name}`, value]),
      ),
    );
    // The node may have podCIDRs of both families all the same.
    const podCidrs = ["10.5.1.0/24", "fc00:5:0:1::/64"];
    const lease = leaseOf(names, { name: "n", uid: "u", podCidrs, annotations });
    assert.equal(lease?.backendType, backendType);
    // flannel reads an extension's data of IPv6 from IPv4's name only if there is no IPv4 podCIDR.
    const told = what === "extension, IPv6 alone" ? [six()] : halves;
    assert.equal(JSON.stringify(lease?.halves), JSON.stringify(told));
  });
}

Deno.test("a node without a podCIDR, or that is not flannel's, holds no lease", () => {
  const managed = { [names.managed]: "true", [names.family[4].publicIp]: "10.99.0.1" };
  const node = { name: "n", uid: "u", podCidrs: ["10.5.1.0/24"], annotations: managed };
  assert.equal(leaseOf(names, node)?.key, "10.5.1.0-24");
  assert.equal(leaseOf(names, { ...node, podCidrs: [] }), undefined);
  const strange = { ...managed, [names.managed]: "false" };
  assert.equal(leaseOf(names, { ...node, annotations: strange }), undefined);
  assert.equal(leaseOf(names, { ...node, annotations: {} }), undefined);
});

Deno.test("podCIDRs that are no subnets, or two of one family, are said", () => {
  const annotations = { [names.managed]: "true", [names.family[4].publicIp]: "10.99.0.1" };
  const read = (...podCidrs: string[]) => () =>
    leaseOf(names, { name: "n", uid: "u", podCidrs, annotations });
  const says = (why: RegExp) => (error: Error) =>
    error instanceof RuntimeError && why.test(error.message);
  assert.throws(read("10.5.1.0"), says(/its podCIDR "10.5.1.0" is not a subnet/));
  assert.throws(read("10.5.1.0/24", "10.5.2.0/24"), says(/two podCIDRs of one family/));
  assert.throws(read("fc00::/64"), says(/it has no annotation \S+\/public-ipv6/));
});

Deno.test("prefixes are those that flannel takes", () => {
  const managed: Readonly<Record<string, string>> = {
    "flannel.alpha.coreos.com": "flannel.alpha.coreos.com/kube-subnet-manager",
    "a.b/": "a.b/kube-subnet-manager",
    "a.b/c": "a.b/c-kube-subnet-manager",
    "a.b/c-": "a.b/c-kube-subnet-manager",
  };
  for (const [prefix, name] of Object.entries(managed)) {
    assert.equal(new AnnotationNames(prefix).managed, name);
  }
  for (const prefix of ["", "flannel", "a.b/c/d", "A.B", "a.b/c d", "/x"]) {
    assert.throws(
      () => new AnnotationNames(prefix),
      (error: Error) =>
        error instanceof ConfigError && error.message.includes(JSON.stringify(prefix)),
    );
  }
});
