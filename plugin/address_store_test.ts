import assert from "node:assert/strict";
import { Cidr, IpAddress } from "@denim/core/ip";
import { dirname } from "node:path";
import { AddressStore } from "./address_store.ts";
import { rangeOf } from "./host_local_conf.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

const SMALL = rangeOf(Cidr.parse("10.5.3.0/29")); // pods: .2 to .6
const IPV6 = rangeOf(Cidr.parse("fc00:5:0:e::/64"));

function withFolder(fn: (folder: string) => void): void {
  using temp = new TempFolder();
  const parent = temp.path;
  fn(`${parent}/net`);
}

function reserve(
  folder: string,
  containerId: string,
  options: { ranges?: typeof SMALL[]; requested?: string[]; ifName?: string; attached?: boolean } =
    {},
): string[] {
  const { ranges = [SMALL], ifName = "eth0", attached = false } = options;
  const requested = (options.requested ?? []).map(IpAddress.parse);
  using store = AddressStore.open(folder);
  return store.reserve({ containerId, ifName }, { ranges, requested }, attached)
    .map(({ address }) => `${address}`);
}

function release(folder: string, containerId: string, ifName = "eth0"): boolean {
  using store = AddressStore.open(folder);
  return store.release({ containerId, ifName });
}

function addressFiles(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name)
    .filter((name) => name !== "lock" && !name.startsWith("last_")).sort();
}

Deno.test("addresses are given in turn; network, gateway and broadcast never", () => {
  withFolder((folder) => {
    const given = ["a", "b", "c", "d", "e"].flatMap((id) => reserve(folder, id));
    assert.deepEqual(given, ["10.5.3.2", "10.5.3.3", "10.5.3.4", "10.5.3.5", "10.5.3.6"]);
    assert.throws(() => reserve(folder, "f"), {
      code: 100,
      message: /no address is free in 10\.5\.3\.0\/29 \(10\.5\.3\.1 to 10\.5\.3\.6\)/,
    });
    release(folder, "b");
    assert.deepEqual(reserve(folder, "f"), ["10.5.3.3"]);
  });
});

Deno.test("an address that was given back comes last", () => {
  withFolder((folder) => {
    reserve(folder, "a");
    release(folder, "a");
    assert.deepEqual(reserve(folder, "a"), ["10.5.3.3"]);
    for (const id of ["b", "c", "d"]) reserve(folder, id);
    assert.deepEqual(reserve(folder, "e"), ["10.5.3.2"]);
  });
});

Deno.test("files say what host-local's say", () => {
  withFolder((folder) => {
    assert.deepEqual(reserve(folder, "c1", { ranges: [SMALL, IPV6] }), [
      "10.5.3.2",
      "fc00:5:0:e::2",
    ]);
    const read = (name: string) => Deno.readTextFileSync(`${folder}/${name}`);
    assert.equal(read("10.5.3.2"), "c1\r\neth0");
    assert.equal(read("fc00:5:0:e::2"), "c1\r\neth0");
    assert.equal(read("last_reserved_ip.0"), "10.5.3.2");
    assert.equal(read("last_reserved_ip.1"), "fc00:5:0:e::2");
    assert.deepEqual(addressFiles(folder), ["10.5.3.2", "fc00:5:0:e::2"]);
    assert.equal(Deno.statSync(`${folder}/10.5.3.2`).mode! & 0o777, 0o600);
  });
});

Deno.test("a second address for the same interface is refused, for another one given", () => {
  withFolder((folder) => {
    reserve(folder, "a");
    assert.throws(() => reserve(folder, "a", { attached: true }), {
      code: 101,
      message: /a eth0 has 10\.5\.3\.2 already/,
    });
    assert.deepEqual(reserve(folder, "a", { ifName: "net1" }), ["10.5.3.3"]);
    // Where it is not attached, a plugin was killed.
    assert.deepEqual(reserve(folder, "a", { requested: ["10.5.3.2"] }), ["10.5.3.2"]);
    assert.deepEqual(reserve(folder, "a", { ranges: [SMALL, IPV6] }), [
      "10.5.3.4",
      "fc00:5:0:e::2",
    ]);
    assert.deepEqual(addressFiles(folder), ["10.5.3.3", "10.5.3.4", "fc00:5:0:e::2"]);
  });
});

Deno.test("release gives back one interface's addresses, and tells of the container's others", () => {
  withFolder((folder) => {
    reserve(folder, "a", { ranges: [SMALL, IPV6] });
    reserve(folder, "a", { ifName: "net1" });
    reserve(folder, "ab");
    assert.equal(release(folder, "a"), true);
    assert.deepEqual(addressFiles(folder), ["10.5.3.3", "10.5.3.4"]);
    assert.equal(release(folder, "a"), true);
    assert.equal(release(folder, "a", "net1"), false);
    assert.deepEqual(addressFiles(folder), ["10.5.3.4"]);
  });
});

Deno.test("release finds files of an older host-local, and no one else's", () => {
  withFolder((folder) => {
    Deno.mkdirSync(folder);
    for (const [name, content] of [["10.5.3.2", "a"], ["10.5.3.3", "ab"], ["10.5.3.4", ""]]) {
      Deno.writeTextFileSync(`${folder}/${name}`, content!);
    }
    release(folder, "a");
    assert.deepEqual(addressFiles(folder), ["10.5.3.3", "10.5.3.4"]);
  });
});

Deno.test("a requested address is given if it is free, else nothing is", () => {
  withFolder((folder) => {
    assert.deepEqual(reserve(folder, "a", { requested: ["10.5.3.5"] }), ["10.5.3.5"]);
    const refused = (requested: string[], message: RegExp) =>
      assert.throws(() => reserve(folder, "b", { ranges: [IPV6, SMALL], requested }), {
        code: 100,
        message,
      });
    refused(["10.5.3.5"], /10\.5\.3\.5 can't be given as asked: it is taken/);
    refused(["10.5.3.1"], /it is the gateway/);
    refused(["10.5.4.1"], /10\.5\.4\.1 can't be given as asked: the node's ranges are/);
    refused(["10.5.3.2", "10.5.3.3"], /10\.5\.3\.3 can't be given/);
    assert.deepEqual(addressFiles(folder), ["10.5.3.5"]);
    assert.deepEqual(
      reserve(folder, "b", { ranges: [SMALL, IPV6], requested: ["fc00:5:0:e::9"] }),
      ["10.5.3.6", "fc00:5:0:e::9"],
    );
  });
});

Deno.test("what a crash left behind is in nobody's way", () => {
  withFolder((folder) => {
    Deno.mkdirSync(folder);
    Deno.writeTextFileSync(`${folder}/.draft`, "z\r\neth0");
    Deno.writeTextFileSync(`${folder}/last_reserved_ip.0`, "10.5");
    assert.deepEqual(reserve(folder, "a"), ["10.5.3.2"]);
    assert.deepEqual(addressFiles(folder), ["10.5.3.2"]);
  });
});

Deno.test("if one range is full, the other gives nothing", () => {
  withFolder((folder) => {
    for (const id of ["a", "b", "c", "d", "e"]) reserve(folder, id);
    const before = addressFiles(folder);
    assert.throws(() => reserve(folder, "f", { ranges: [IPV6, SMALL] }), { code: 100 });
    assert.deepEqual(addressFiles(folder), before);
  });
});

Deno.test("if the second address can't be kept, the first is given back", () => {
  withFolder((folder) => {
    Deno.mkdirSync(folder);
    Deno.symlinkSync("/nowhere/file", `${folder}/last_reserved_ip.1`);
    assert.throws(() => reserve(folder, "a", { ranges: [SMALL, IPV6] }), Deno.errors.NotFound);
    assert.deepEqual(addressFiles(folder), []);
  });
});

/** What may have an address's name and is not a file, and how it is made. */
const STRANGE: readonly [string, (path: string) => void][] = [
  ["a folder", (path) => Deno.mkdirSync(path)],
  ["a folder with a file", (path) => Deno.mkdirSync(`${path}/x`, { recursive: true })],
  ["a link to nowhere", (path) => Deno.symlinkSync("/nowhere/file", path)],
  ["a link to another's address", (path) => Deno.symlinkSync("10.5.3.6", path)],
  [
    "a pipe that nobody writes to",
    (path) => assert.ok(new Deno.Command("mkfifo", { args: [path] }).outputSync().success),
  ],
];
for (const [what, make] of STRANGE) {
  Deno.test(`an address whose name ${what} has is stepped over`, () => {
    withFolder((folder) => {
      Deno.mkdirSync(folder);
      for (const name of ["10.5.3.2", "10.5.3.4", "fc00:5:0:e::2"]) make(`${folder}/${name}`);
      Deno.writeTextFileSync(`${folder}/10.5.3.6`, "z\r\neth0");
      assert.deepEqual(reserve(folder, "a", { ranges: [SMALL, IPV6] }), [
        "10.5.3.3",
        "fc00:5:0:e::3",
      ]);
      assert.deepEqual(reserve(folder, "b"), ["10.5.3.5"]);
      assert.throws(() => reserve(folder, "c", { requested: ["10.5.3.4"] }), {
        code: 100,
        message: `10.5.3.4 can't be given as asked: it is taken (${folder}/10.5.3.4)`,
      });
      assert.throws(() => reserve(folder, "c"), { code: 100, message: /no address is free/ });
      {
        using store = AddressStore.open(folder);
        assert.deepEqual(store.holders().map(({ address }) => `${address}`).sort(), [
          "10.5.3.3",
          "10.5.3.5",
          "10.5.3.6",
          "fc00:5:0:e::3",
        ]);
      }
      for (const id of ["a", "b", "z"]) release(folder, id);
      assert.deepEqual(addressFiles(folder), ["10.5.3.2", "10.5.3.4", "fc00:5:0:e::2"]);
    });
  });
}

for (const name of ["lock", ".draft", "last_reserved_ip.0"]) {
  Deno.test(`a folder in the place of ${name} is in nobody's way`, () => {
    withFolder((folder) => {
      Deno.mkdirSync(`${folder}/${name}`, { recursive: true });
      assert.deepEqual(reserve(folder, "a"), ["10.5.3.2"]);
      assert.deepEqual(reserve(folder, "b"), ["10.5.3.3"]);
      release(folder, "a");
      release(folder, "b");
      assert.deepEqual(addressFiles(folder), []);
    });
  });
}

for (
  const [what, content] of [["is empty", ""], ["holds zeros", "\0\0\0"], ["holds junk", "%\xff"]]
) {
  Deno.test(`a file that ${what} is taken until the machine is started again`, () => {
    withFolder((folder) => {
      Deno.mkdirSync(folder);
      Deno.writeTextFileSync(`${folder}/10.5.3.2`, content!);
      assert.deepEqual(reserve(folder, "a"), ["10.5.3.3"]);
      assert.throws(() => reserve(folder, "b", { requested: ["10.5.3.2"] }), { code: 100 });
      Deno.utimeSync(`${folder}/10.5.3.2`, 0, 0);
      // A file that names somebody is taken however old it is.
      Deno.utimeSync(`${folder}/10.5.3.3`, 0, 0);
      for (const id of ["c", "d", "e"]) reserve(folder, id);
      assert.deepEqual(reserve(folder, "f"), ["10.5.3.2"]);
      assert.equal(Deno.readTextFileSync(`${folder}/10.5.3.2`), "f\r\neth0");
      assert.throws(() => reserve(folder, "g"), { code: 100 });
    });
  });
}

Deno.test("an address that a pod of another network holds is not given, but one from before the last start", () => {
  withFolder((folder) => {
    const beside = `${dirname(folder)}/cbr0`;
    Deno.mkdirSync(`${beside}/10.5.3.4`, { recursive: true });
    for (const name of ["10.5.3.2", "10.5.3.3", "10.5.9.5", "last_reserved_ip.0", "lock"]) {
      Deno.writeTextFileSync(`${beside}/${name}`, "of-flannel\r\neth0");
    }
    Deno.writeTextFileSync(`${dirname(folder)}/10.5.3.5`, "a file among the folders");
    Deno.utimeSync(`${beside}/10.5.3.3`, 0, 0);
    assert.throws(() => reserve(folder, "a", { requested: ["10.5.3.2"] }), {
      code: 100,
      message: /it is taken \(.*\/cbr0\/10\.5\.3\.2\)/,
    });
    const given = ["a", "b", "c", "d"].flatMap((id) => reserve(folder, id));
    assert.deepEqual(given, ["10.5.3.3", "10.5.3.4", "10.5.3.5", "10.5.3.6"]);
    assert.throws(() => reserve(folder, "e"), { message: /or a folder beside it, has a file/ });
    // Its own DEL gives it back.
    Deno.removeSync(`${beside}/10.5.3.2`);
    assert.deepEqual(reserve(folder, "e"), ["10.5.3.2"]);
  });
});
