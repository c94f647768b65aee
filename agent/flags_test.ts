import { ConfigError, IpAddress } from "@denim/core";
import assert from "node:assert/strict";
import { type AgentFlags, agentHelp, parseAgentFlags } from "./flags.ts";

function parse(args: readonly string[], environment: Record<string, string> = {}): AgentFlags {
  const flags = parseAgentFlags(args, environment);
  assert.ok(flags !== "help");
  return flags;
}

Deno.test("defaults are flannel's", () => {
  const flags = parse([]);
  assert.deepEqual(flags.store, { kind: "sqlite", path: "/var/lib/denim/denim.db" });
  assert.equal(flags.subnetFile, "/run/flannel/subnet.env");
  assert.equal(flags.renewMarginMs, 60 * 60_000);
  assert.deepEqual([flags.iface, flags.ifaceRegex, flags.ifaceCanReach], [[], [], undefined]);
  assert.equal(flags.healthz, undefined);
});

Deno.test("a flag may have one dash or two, its value behind = or a space", () => {
  for (
    const args of [
      ["-public-ip=192.0.2.1"],
      ["--public-ip=192.0.2.1"],
      ["-public-ip", "192.0.2.1"],
      ["--public-ip", "192.0.2.1"],
    ]
  ) assert.equal(`${parse(args).publicIps.get(4)}`, "192.0.2.1");
});

Deno.test("interfaces may be named several times, and keep their order", () => {
  const flags = parse(["--iface", "eth1", "--iface=10.0.0.1", "--iface-regex", "^ens"]);
  assert.deepEqual(flags.iface, ["eth1", "10.0.0.1"]);
  assert.deepEqual(flags.ifaceRegex, [/^ens/]);
});

Deno.test("the environment gives what the arguments leave out", () => {
  const environment = { FLANNELD_PUBLIC_IPV6: "fd99::1", FLANNELD_IFACE: "eth7" };
  const flags = parse([], environment);
  assert.deepEqual(flags.publicIps.get(6), IpAddress.parse("fd99::1"));
  assert.deepEqual(flags.iface, ["eth7"]);
  assert.deepEqual(parse(["--iface", "eth0"], environment).iface, ["eth0"]);
  assert.equal(parse([], { FLANNELD_DEBUG: "true" }).debug, true);
});

Deno.test("help is asked for and names every flag", () => {
  assert.equal(parseAgentFlags(["--help"], {}), "help");
  for (const name of ["store", "iface", "public-ip", "subnet-file", "log-format"]) {
    assert.match(agentHelp(), new RegExp(`--${name} `));
  }
});

Deno.test("what is wrong is named with its flag", async (t) => {
  const cases: readonly (readonly [args: readonly string[], says: RegExp])[] = [
    [["--nonsense"], /^--nonsense: no such flag/],
    [["stray"], /^stray: no such flag/],
    [["--etcd-password=hunter2"], /^--etcd-password: denim does not do this yet/],
    [["--store", "postgres:x"], /^--store postgres:x/],
    [["--iface-regex", "("], /^--iface-regex \(: is no regular expression/],
    [["--iface-can-reach", "eth0"], /^--iface-can-reach eth0: is no IP address/],
    [["--public-ip", "fd99::1"], /^--public-ip fd99::1: is no IPv4 address/],
    [["--public-ipv6", "10.0.0.1"], /^--public-ipv6 10.0.0.1: is no IPv6 address/],
    [["--subnet-lease-renew-margin", "1440"], /from 1 to 1439/],
    [["--subnet-lease-renew-margin", "1.5"], /whole number/],
    [["--healthz-port", "70000"], /from 0 to 65535/],
    [["--log-format", "xml"], /must be text or json/],
    [["--subnet-file="], /^--subnet-file needs a value/],
  ];
  for (const [args, says] of cases) {
    await t.step(args.join(" "), () => {
      assert.throws(() => parseAgentFlags(args, {}), (error) => {
        assert.ok(error instanceof ConfigError);
        assert.match(error.message, says);
        assert.doesNotMatch(error.message, /hunter2/);
        return true;
      });
    });
  }
});
