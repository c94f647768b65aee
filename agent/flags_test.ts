import { ConfigError, IpAddress } from "@denim/core";
import assert from "node:assert/strict";
import { type AgentFlags, agentHelp, parseAgentFlags, parseStoreFlags } from "./flags.ts";

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

Deno.test("any --etcd flag means etcd, with flannel's defaults for the others", () => {
  const etcd = (...args: string[]) => {
    const { store } = parse(args);
    assert.ok(store.kind === "etcd");
    return store;
  };
  const defaults = {
    kind: "etcd",
    endpoints: ["http://127.0.0.1:4001", "http://127.0.0.1:2379"],
    prefix: "/coreos.com/network",
    username: undefined,
    password: undefined,
    certFile: undefined,
    keyFile: undefined,
    caFile: undefined,
  };
  assert.deepEqual(etcd("--store", "etcd"), defaults);
  assert.deepEqual(etcd("--etcd-prefix=/other"), { ...defaults, prefix: "/other" });
  assert.deepEqual(
    etcd("--etcd-endpoints", "https://etcd-1:2379, 10.0.0.1,http://[fd00::1]:80,").endpoints,
    ["https://etcd-1:2379", "http://10.0.0.1:2379", "http://[fd00::1]:80"],
  );
  const tls = etcd("--etcd-cafile=/ca", "--etcd-certfile=/cert", "--etcd-keyfile=/key");
  assert.deepEqual([tls.caFile, tls.certFile, tls.keyFile], ["/ca", "/cert", "/key"]);
});

Deno.test("etcd's password may come from the environment", () => {
  const { store } = parse(["--etcd-username", "flannel"], { FLANNELD_ETCD_PASSWORD: "hunter2" });
  assert.ok(store.kind === "etcd");
  assert.equal(store.password, "hunter2");
});

Deno.test("a command's own flags and operands stand beside the store's", () => {
  const own = { json: "boolean", "public-ip": "string" } as const;
  const args = ["reserve", "--json", "10.5.1.0/24", "--public-ip=10.0.0.1", "--store", "etcd"];
  const flags = parseStoreFlags("denim leases", own, args, {});
  assert.ok(flags !== "help");
  assert.equal(flags.store.kind, "etcd");
  assert.deepEqual(flags.operands, ["reserve", "10.5.1.0/24"]);
  assert.deepEqual([...flags.own], [["json", "true"], ["public-ip", "10.0.0.1"]]);
  assert.equal(parseStoreFlags("denim leases", own, ["--help"], {}), "help");
  assert.throws(() => parseStoreFlags("denim leases", own, ["--iface", "eth0"], {}), {
    name: "ConfigError",
    message: "--iface: no such flag of denim leases; see denim leases --help",
  });
});

Deno.test("what is wrong is named with its flag", async (t) => {
  const cases: readonly (readonly [args: readonly string[], says: RegExp])[] = [
    [["--nonsense"], /^--nonsense: no such flag/],
    [["stray"], /^stray: no such flag/],
    [["--kube-subnet-mgr"], /^--kube-subnet-mgr: denim does not do this yet/],
    [["--store", "postgres:x"], /^--store postgres:x/],
    [["--store", "sqlite:/x", "--etcd-prefix", "/y"], /^--store sqlite:\/x and --etcd-prefix/],
    [["--etcd-password=hunter2"], /^--etcd-password needs --etcd-username/],
    [["--etcd-pasword", "hunter2"], /^--etcd-pasword: no such flag/],
    [["--etcd-endpoints", "http://me:hunter2@10.0.0.1:2379"], /give --etcd-username/],
    [["--etcd-endpoints", "ftp://10.0.0.1"], /^--etcd-endpoints ftp:\/\/10.0.0.1: is no URL/],
    [["--etcd-endpoints", "http://10.0.0.1:2379/v3"], /is no URL such as/],
    [["--etcd-endpoints", ","], /names none/],
    [["--etcd-certfile", "/a"], /--etcd-certfile and --etcd-keyfile go together/],
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
