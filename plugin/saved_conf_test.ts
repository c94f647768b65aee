import assert from "node:assert/strict";
import { ConfObject } from "./conf_object.ts";
import {
  awaitRecord,
  hasRecords,
  listSavedConfs,
  lockRecords,
  readOwnConf,
  readSavedConf,
  removeDraft,
  removeDrafts,
  removeSavedConf,
  renewSavedConf,
  saveConf,
} from "./saved_conf.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

const POD = { containerId: "pod1", ifName: "eth0" };
const CONF = new ConfObject({ name: "cbr0", type: "bridge" }, "delegate");

/** A folder of records that is gone when its scope ends. */
class Records implements Disposable {
  readonly #parent = new TempFolder();
  readonly dataDir = `${this.#parent.path}/flannel`;

  constructor() {
    lockRecords(this.dataDir, "shared")[Symbol.dispose]();
  }

  write(name: string, text: string): void {
    Deno.writeTextFileSync(`${this.dataDir}/${name}`, text);
  }

  names(): string[] {
    return [...Deno.readDirSync(this.dataDir)].map(({ name }) => name).sort();
  }

  [Symbol.dispose](): void {
    this.#parent[Symbol.dispose]();
  }
}

Deno.test("saveConf() writes what readSavedConf() reads, for root alone", () => {
  using records = new Records();
  const { dataDir } = records;
  assert.equal(readSavedConf(dataDir, POD), undefined);
  saveConf(dataDir, POD, CONF);
  assert.deepEqual(readSavedConf(dataDir, POD)?.json, CONF.json);
  assert.equal(Deno.statSync(`${dataDir}/pod1`).mode! & 0o777, 0o600);
  assert.deepEqual(records.names(), [".lock", "pod1"]);
  removeSavedConf(dataDir, POD);
  removeSavedConf(dataDir, POD);
  assert.deepEqual(records.names(), [".lock"]);
});

for (const text of ["", "{", '{"name":"cb', "[]", "null", "\0\0\0"]) {
  Deno.test(`readSavedConf() takes ${JSON.stringify(text)} for no record`, () => {
    using records = new Records();
    records.write("pod1", text);
    assert.equal(readSavedConf(records.dataDir, POD), undefined);
  });
}

Deno.test("readSavedConf() throws what the file system says of a record that it can't read", () => {
  using records = new Records();
  Deno.mkdirSync(`${records.dataDir}/pod1`);
  assert.throws(() => readSavedConf(records.dataDir, POD), { code: "EISDIR" });
});

Deno.test("readOwnConf() passes another network's record by", () => {
  using records = new Records();
  const { dataDir } = records;
  saveConf(dataDir, POD, CONF);
  assert.deepEqual(readOwnConf({ dataDir, name: "cbr0" }, POD)?.json, CONF.json);
  assert.equal(readOwnConf({ dataDir, name: "other" }, POD), undefined);
});

Deno.test("listSavedConfs() finds all records, and nothing else", () => {
  using records = new Records();
  const { dataDir } = records;
  saveConf(dataDir, POD, CONF);
  saveConf(dataDir, { containerId: "pod2", ifName: "eth0" }, CONF);
  const other = new ConfObject({ name: "other" }, "delegate");
  saveConf(dataDir, { containerId: "pod3", ifName: "eth0" }, other);
  records.write("cut", '{"name":"cbr0"');
  records.write(".hidden", JSON.stringify(CONF.json));
  records.write("pod4:eth0", JSON.stringify(CONF.json));
  Deno.mkdirSync(`${dataDir}/folder`);
  Deno.utimeSync(`${dataDir}/pod2`, 5, 5);
  const found = listSavedConfs(dataDir).toSorted((a, b) => a.containerId < b.containerId ? -1 : 1);
  assert.deepEqual(
    found.map(({ containerId, conf }) => [containerId, conf.get("name")]),
    [["pod1", "cbr0"], ["pod2", "cbr0"], ["pod3", "other"]],
  );
  assert.equal(found[1]!.writtenMs, 5000);
  renewSavedConf(dataDir, { containerId: "pod2", ifName: "eth0" });
  assert.ok(listSavedConfs(dataDir).every(({ writtenMs }) => writtenMs > 5000));
});

Deno.test("hasRecords() looks for records alone", () => {
  using records = new Records();
  records.write("pod1:eth0", "{");
  Deno.mkdirSync(`${records.dataDir}/folder`);
  assert.equal(hasRecords(records.dataDir), false);
  assert.equal(hasRecords(`${records.dataDir}/none`), false);
  saveConf(records.dataDir, POD, CONF);
  assert.equal(hasRecords(records.dataDir), true);
});

Deno.test("removeDraft() and removeDrafts() take away what a killed ADD left", () => {
  using records = new Records();
  const { dataDir } = records;
  saveConf(dataDir, POD, CONF);
  for (const name of ["pod1:eth0", "pod1:eth1", "pod2:eth0"]) records.write(name, "{");
  removeDraft(dataDir, POD);
  assert.deepEqual(records.names(), [".lock", "pod1", "pod1:eth1", "pod2:eth0"]);
  removeDrafts(dataDir);
  assert.deepEqual(records.names(), [".lock", "pod1"]);
});

Deno.test("awaitRecord() does not wait for a record that is not there, or that nobody holds", () => {
  using records = new Records();
  awaitRecord(records.dataDir, POD);
  saveConf(records.dataDir, POD, CONF);
  awaitRecord(records.dataDir, POD);
});
