/**
 * The page, in a real browser: what it shows of a cluster, by which keys it is used, in which colours, and what becomes
 * of it when a wire is cut.
 */

import type { LabNode } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { PageGate } from "../agent/page/page_gate.ts";
import { Browser, CHROMIUM, type Tab, type TabOptions } from "./support/browser.ts";
import { iproute } from "./support/iproute.ts";
import { labTest } from "./support/lab_test.ts";
import { report } from "./support/report.ts";
import { eventually, NEVER } from "./support/wait.ts";

const NET_CONF = { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } };

/** The text of an element. */
const textOf = (id: string) => `document.getElementById("${id}").textContent`;
const CELLS = `[...document.querySelectorAll("#matrix tbody td")]`;

/** Opens the page of a node, and waits until it shows the whole mesh. */
async function openPage(browser: Browser, url: string, options?: TabOptions): Promise<Tab> {
  const tab = await browser.open(options);
  await tab.toFront();
  await tab.go(url);
  await tab.until(
    "all answer",
    `${textOf("verdict")} === "Ready, and all 2 peers answer."`,
    30_000,
  );
  return tab;
}

labTest("the page shows the mesh, by keys too, asks for nothing elsewhere, and follows trouble", {
  nodes: 3,
  netConf: NET_CONF,
  program: CHROMIUM,
}, async (lab, t) => {
  const [first, second] = lab.nodes as [LabNode, LabNode];
  await lab.startAgents(NEVER);
  await first.addPod("pod1");
  await using gates = new AsyncDisposableStack();
  const [url, , thirdUrl] = lab.nodes.map(({ apiSocket }) =>
    gates.use(new PageGate(apiSocket)).url
  );
  await using browser = await Browser.start();
  const tab = await openPage(browser, url!);
  const own = `${first.subnet()}`;

  await t.step("three nodes, this one's row measured, a packet's way by real names", async () => {
    assert.equal(await tab.read(`${CELLS}.length`), 9);
    assert.match(await tab.read(textOf("who")), new RegExp(`^${own} +at +${first.publicIp}$`));
    const measured = await tab.read<string[]>(`${CELLS}.filter((cell) =>
        cell.className === "ok").map((cell) => cell.getAttribute("aria-label"))`);
    assert.equal(measured.length, 2);
    for (const text of measured) {
      assert.match(text, /^From this node .* answers, .* in [\d.]+ ms$/);
    }
    await tab.until("the way", `document.querySelectorAll(".way li").length === 7`);
    const stations = await tab.read<string[]>(`[...document.querySelectorAll(".way .name")].map(
        ({ textContent }) => textContent)`);
    assert.deepEqual(stations.slice(0, 5).toSpliced(2, 1), ["eth0", "cni0", "flannel.1", "eth0"]);
    assert.match(await tab.read(textOf("facts")), /vxlan by flannel\.1.*1450 bytes/);
    assert.match(await tab.read(textOf("devices")), /flannel\.1.*bit\/s/);
  });

  await t.step("arrow keys go through the matrix, Enter shows the way there", async () => {
    await tab.read(`${CELLS}[0].focus()`);
    await tab.press("ArrowDown");
    await tab.press("ArrowRight");
    await tab.press("ArrowRight");
    const at = await tab.read(
      "[document.activeElement.dataset.from, document.activeElement.dataset.to]",
    );
    assert.deepEqual(at, ["1", "2"]);
    // The cell may have been measured again since: the time is left out.
    const [pointed, label] = await tab.read<string[]>(
      `[${textOf("pointed")}, document.activeElement.getAttribute("aria-label")]
        .map((text) => text.replace(/ in [\\d.]+ ms$/, ""))`,
    );
    assert.equal(pointed, label);
    assert.equal(await tab.read(`${CELLS}.filter(({ tabIndex }) => tabIndex === 0).length`), 1);
    const column = own === await tab.read("document.querySelectorAll('#matrix tbody th')[2].title")
      ? "ArrowLeft"
      : undefined;
    if (column !== undefined) await tab.press(column);
    const wanted = await tab.read(`document.querySelectorAll("#matrix thead th")[
        document.activeElement.dataset.to].title`);
    await tab.press("Enter");
    const chosen = "document.getElementById('way-peer').selectedOptions[0].textContent";
    if (wanted !== own) assert.ok((await tab.read<string>(chosen)).startsWith(`${wanted}`));
    // What can be pressed can be reached, and has a name.
    assert.deepEqual(
      await tab.read(`[...document.querySelectorAll("button, select, input, summary, a")].filter(
          (one) => one.tabIndex < 0 || !(one.textContent || one.labels?.length)).length`),
      0,
    );
  });

  await t.step("the doctor is asked on request", async () => {
    await tab.read("document.getElementById('ask-doctor').click()");
    await tab.until(
      "an answer",
      `/finding|nothing is wrong/.test(${textOf("doctor-said")})`,
      30_000,
    );
  });

  await t.step(
    "light and dark by the reader's wish, and no wider than a narrow window",
    async () => {
      const paper = "getComputedStyle(document.documentElement).backgroundColor";
      const brightness = async (tab: Tab) => Number(/\d+/.exec(await tab.read<string>(paper))![0]);
      assert.ok(await brightness(tab) > 200);
      await using dark = await openPage(browser, url!, {
        scheme: "dark",
        width: 360,
        height: 700,
      });
      assert.ok(await brightness(dark) < 60);
      assert.equal(await dark.read("document.documentElement.scrollWidth"), 360);
      assert.deepEqual(dark.errors, []);
    },
  );

  await t.step(
    "a node that is cut off is shown on another's page, and its return too",
    async () => {
      const other = await openPage(browser, thirdUrl!);
      const way = (says: string) =>
        `document.getElementById("ways").textContent.includes("${says}")`;
      await other.read(`(() => {
        const select = document.getElementById("way-peer");
        select.value = [...select.options].find(({ textContent }) =>
          textContent.startsWith("${second.subnet()}")).value;
        select.dispatchEvent(new Event("change"));
      })()`);
      await other.until("the way of the second", way(`in ${second.subnet()}`));
      // Every 5 s the way is asked for anyway: not here.
      await other.read("for (let timer = 1; timer < 100; timer++) clearInterval(timer)");
      const net = `${lab.prefix}-net`;
      iproute("ip", net, "link set node2 down");
      const shown = await other.until(
        "the trouble",
        `[...document.querySelectorAll("#matrix td.bad")].length >= 2 &&
          ${textOf("troubles")}.includes("${second.subnet()}")`,
        20_000,
      );
      // The others' reports may come before this node has seen it itself.
      await other.until("the verdict", `${textOf("verdict")} === "1 of 2 peers is in trouble."`);
      await other.until("the way says the same", way("does not answer"));
      iproute("ip", net, "link set node2 up");
      const quiet = await other.until(
        "all quiet",
        `document.querySelector("#matrix td.bad") === null &&
          document.getElementById("troubles").hidden &&
          ${textOf("verdict")} === "Ready, and all 2 peers answer."`,
        30_000,
      );
      report(
        `the page shows a cut wire after ${(shown / 1000).toFixed(1)} s on another node's, ` +
          `and that all is well ${(quiet / 1000).toFixed(1)} s after it is mended`,
      );
      assert.deepEqual(other.errors, []);
    },
  );

  await t.step("an agent that ends and starts again is followed", async () => {
    await tab.toFront();
    await first.stopAgent();
    await tab.until("no contact", `${textOf("live")}.startsWith("no contact")`);
    await first.startAgent(NEVER);
    await tab.until("contact", `${textOf("live")} === "live"`, 30_000);
    await tab.until(
      "all answer",
      `${textOf("verdict")} === "Ready, and all 2 peers answer."`,
      30_000,
    );
  });

  await t.step("no request went elsewhere, and nothing was wrong but the agent's absence", () => {
    assert.deepEqual(tab.requests.filter((request) => !request.startsWith(url!)), []);
    // The browser says of each request to the agent while it was gone that it failed.
    const others = tab.errors.filter((error) => !/Failed to load resource/.test(error));
    assert.deepEqual(others, []);
  });
});

labTest("an agent with an open page stops at once", {
  nodes: 1,
  netConf: NET_CONF,
}, async (lab) => {
  const [node] = lab.nodes as [LabNode];
  await lab.startAgents(NEVER);
  await using gate = new PageGate(node.apiSocket);
  const response = await fetch(`${gate.url}events`);
  const reader = response.body!.getReader();
  await reader.read();
  const status = await node.stopAgent();
  assert.equal(status?.code, 0, "not killed");
  await eventually("the stream ends", async () => {
    try {
      return (await reader.read()).done;
    } catch {
      return true;
    }
  });
});
