/**
 * The page of an agent: it follows `/events`, and draws what is different.
 *
 * What it is told is text from leases and logs. It goes into the page as text alone, never as HTML.
 *
 * @module
 */

/** The sign of each health, in few letters; a colour is never the only sign. */
const SIGNS = {
  "ok": ["●", "answers, packets of every size"],
  "unknown": ["○", "not judged yet"],
  "mtu": ["mtu", "gets small packets, not the largest"],
  "checksum": ["sum", "refuses checksums that a device did"],
  "blocked": ["blk", "answers on the underlay, not over the data path"],
  "one-way": ["1way", "is heard, and does not hear"],
  "no-answer": ["✕", "does not answer, on the underlay neither"],
  "no-agent": ["agt", "carries packets, and its agent is gone or hangs"],
  "clone": ["2×", "two machines have what only one may have"],
};
/** What follows from all reports together. */
const CONCLUSIONS = { "node-down": "the node is down", "underlay-cut": "the underlay is cut" };
/** With more nodes than this the matrix is drawn, not written. */
const MAX_TABLE = 36;
/** With more nodes than this its cells have no room for words. */
const ROOMY = 12;
/** With more nodes than this the picture has no lines between those that are well, and no names. */
const MAX_LINES = 14;
/** So many rows are shown at once of a long table. */
const SOME_ROWS = 25;
/** So many findings are listed. */
const MAX_TROUBLES = 12;
/** With more lines of trouble than this each is drawn lightly; and no more than so many. */
const HEAVY_LINES = 60, MAX_TROUBLE_LINES = 400;
/** So many peers are offered in the list of ways. */
const MAX_OFFERED = 200;
/** For how many seconds rates are kept. */
const RATES_KEPT = 120;

/** The sign of a health; that of one that only a newer agent knows is its name. */
const signOf = (health) => SIGNS[health]?.[0] ?? health;
const meaningOf = (health) => SIGNS[health]?.[1] ?? health;

const byId = (id) => document.getElementById(id);

// ── What is known ───────────────────────────────────────────────────────────────────────────────────────────────────

const known = {
  atMs: 0,
  status: undefined,
  own: null,
  mesh: { report: null, error: null },
  devices: [],
  counters: [],
  values: [],
  /** By key: { key, backend, changedAtMs, halves, healths }. */
  peers: new Map(),
};
/** What follows from it: all nodes in order, and which does not reach which. */
let nodes = [];
let placeOf = new Map();
let placeOfSubnet = new Map();
/** By `from * nodes.length + to`: the health. */
let reported = new Map();
/** What is wrong, each thing once. */
let troubles = [];
/** The places of nodes that are down, of those with more trouble than they name, and of those that `troubles` names. */
let down = new Set(), overflowing = new Set(), named = new Set();
/** Bytes and counts a second of each device, the latest last. */
const rates = new Map();
/** Counters a second, in the order of `known.counters`. */
let counterRates = [];
let chosen = null;
let following = false;

/** Takes one message; says which parts of the page it concerns. */
function take(news) {
  const seconds = (news.atMs - known.atMs) / 1000;
  if (news.isAll) {
    known.peers.clear();
    rates.clear();
    counterRates = [];
  }
  if (news.devices !== undefined || !news.isAll) takeRates(news.devices ?? known.devices, seconds);
  if (news.counters !== undefined) counterRates = [];
  else if (news.values !== undefined) {
    counterRates = news.values.map((value, index) => (value - known.values[index]) / seconds);
  } else counterRates = counterRates.map(() => 0);
  for (const name of ["status", "own", "mesh", "devices", "counters", "values"]) {
    if (news[name] !== undefined) known[name] = news[name];
  }
  known.atMs = news.atMs;
  for (const [key, backend, changedAtMs, halves, healths] of news.peers ?? []) {
    known.peers.set(key, { key, backend, changedAtMs, halves, healths });
  }
  for (const [key, healths] of news.healths ?? []) {
    const peer = known.peers.get(key);
    if (peer !== undefined) peer.healths = healths;
  }
  for (const key of news.gone ?? []) known.peers.delete(key);
  const isOther = news.isAll || news.peers || news.gone || news.own !== undefined;
  if (isOther) orderNodes();
  if (isOther || news.mesh || news.healths) gatherReports();
}

function takeRates(devices, seconds) {
  const before = new Map(known.devices.map((device) => [device.name, device]));
  for (const device of devices) {
    const was = before.get(device.name);
    if (!rates.has(device.name)) rates.set(device.name, []);
    if (was === undefined || !(seconds > 0)) continue;
    const rate = (way, what) => Math.max(0, (device[way][what] - was[way][what]) / seconds);
    const list = rates.get(device.name);
    list.push({
      in: rate("received", "bytes"),
      out: rate("sent", "bytes"),
      packetsIn: rate("received", "packets"),
      packetsOut: rate("sent", "packets"),
    });
    if (list.length > RATES_KEPT) list.shift();
  }
}

/** A number by which subnets are in order. */
function orderOf(subnet) {
  const address = subnet.split("/")[0];
  if (!address.includes(":")) {
    return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  }
  const [head, tail = ""] = address.split("::");
  const groups = (text) => text === "" ? [] : text.split(":").map((group) => parseInt(group, 16));
  const [first, last] = [groups(head), groups(tail)];
  const all = [...first, ...Array(Math.max(0, 8 - first.length - last.length)).fill(0), ...last];
  return all.reduce((sum, group) => sum * 65536 + group, 0);
}

function orderNodes() {
  const own = known.status?.node;
  nodes = [...known.peers.values()].map((peer) => ({
    key: peer.key,
    subnets: peer.halves.map(([subnet]) => subnet),
    peer,
    isOwn: false,
    order: orderOf(peer.halves[0][0]),
  }));
  if (own && known.own !== null) {
    const { subnets } = own;
    nodes.push({ key: known.own, subnets, peer: null, isOwn: true, order: orderOf(subnets[0]) });
  }
  nodes.sort((a, b) => a.order - b.order);
  placeOf = new Map(nodes.map(({ key }, place) => [key, place]));
  placeOfSubnet = new Map(
    nodes.flatMap(({ subnets }, place) => subnets.map((subnet) => [subnet, place])),
  );
  nameNodes();
}

/** Short names: what nodes' subnets do not have in common. */
function nameNodes() {
  const parts = nodes.map(({ subnets }) => subnets[0].split("/")[0].split(/(?<=[.:])/));
  const [first = []] = parts;
  let common = 0;
  if (nodes.length > 1) {
    while (common < first.length - 1 && parts.every((part) => part[common] === first[common])) {
      common++;
    }
  }
  nodes.forEach((node, place) => {
    const rest = parts[place].slice(common).join("");
    node.name = nodes.length > 1 ? rest.replace(/(\.0+|:+)$/, "") || rest : node.subnets[0];
  });
}

/** The worst health of a peer's halves; "none" if it is not probed. */
function healthOf(peer) {
  const found = peer.healths.flatMap((row) => row === null ? [] : [row[0]]);
  return found.find(isTrouble) ?? found.find((health) => health === "unknown") ?? found[0] ??
    "none";
}

function isTrouble(health) {
  return !["ok", "unknown", "none"].includes(health);
}

/** Whether nothing of it comes back. */
function isSilent(health) {
  return ["no-answer", "blocked", "one-way"].includes(health);
}

/** One sign before a health that is named. */
function markOf(health) {
  return isTrouble(health) && health !== "no-answer" ? "◆" : SIGNS[health] ? signOf(health) : "–";
}

function gatherReports() {
  reported = new Map();
  down = new Set();
  overflowing = placesOf((known.mesh.report?.overflowing ?? []).map(({ from }) => from));
  const count = nodes.length;
  for (const { subnet, health, from, conclusion } of known.mesh.report?.troubles ?? []) {
    const to = placeOfSubnet.get(subnet);
    if (to === undefined) continue;
    if (conclusion === "node-down") down.add(to);
    for (const key of from) {
      const place = placeOf.get(key);
      // What this node finds itself is newer than what it told the others.
      if (place !== undefined && key !== known.own) reported.set(place * count + to, health);
    }
  }
  const own = placeOf.get(known.own);
  if (own !== undefined) {
    nodes.forEach(({ peer }, to) => {
      const health = peer === null ? "ok" : healthOf(peer);
      if (isTrouble(health)) reported.set(own * count + to, health);
    });
  }
  troubles = gatherTroubles();
  named = new Set(troubles.flatMap(({ subnet }) => placeOfSubnet.get(subnet) ?? []));
}

function placesOf(keys) {
  return new Set(keys.flatMap((key) => placeOf.get(key) ?? []));
}

/** What is known of the way from one node to another. */
function cellOf(from, to) {
  const { isOwn } = nodes[from];
  if (from === to) return { health: "self" };
  if (isOwn) {
    const { peer } = nodes[to];
    const row = peer.healths.find((row) => row !== null);
    return { health: healthOf(peer), roundTripMs: row?.[2] ?? null };
  }
  return { health: reported.get(from * nodes.length + to) ?? "unsaid" };
}

function cellText(from, to) {
  const { health, roundTripMs } = cellOf(from, to);
  const [a, b] = [nodeText(from), nodeText(to)];
  if (health === "self") return `${a}`;
  if (health === "unsaid") {
    return `From ${a} to ${b}: no trouble is reported` +
      (down.has(from) ? "; but the node is down" : "");
  }
  if (health === "none") return `From ${a} to ${b}: not probed`;
  const time = health === "ok" && roundTripMs !== null ? ` in ${formatMs(roundTripMs)}` : "";
  const then = isTrouble(health) && down.has(to) ? `: ${CONCLUSIONS["node-down"]}` : "";
  return `From ${a} to ${b}: ${meaningOf(health)}${time}${then}`;
}

function nodeText(place) {
  const { subnets, isOwn } = nodes[place];
  return isOwn ? `this node (${subnets[0]})` : subnets[0];
}

// ── Words ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const whole = new Intl.NumberFormat("en");
const clockTime = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function formatMs(ms) {
  return `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function formatAmount(amount, unit) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let step = 0;
  for (; amount >= 999.5 && step < prefixes.length - 1; step++) amount /= 1000;
  const digits = step === 0 || amount >= 99.5 ? 0 : 1;
  return `${amount.toFixed(digits)} ${prefixes[step]}${unit}`;
}

function formatTime(ms) {
  return clockTime.format(ms);
}

/** How long ago something was, in the largest unit that says something. */
function formatAge(ms) {
  const seconds = Math.max(0, Math.round((known.atMs - ms) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

function count(number, one, many = `${one}s`) {
  return `${whole.format(number)} ${number === 1 ? one : many}`;
}

// ── The document ────────────────────────────────────────────────────────────────────────────────────────────────────

/** Makes an element; what is undefined is left out. */
function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, value);
  }
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Sets a text, unless it is there: what stays keeps its selection, and is not read out again. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function setAttribute(target, name, value) {
  if (value === undefined || value === null) target.removeAttribute(name);
  else if (target.getAttribute(name) !== `${value}`) target.setAttribute(name, value);
}

/** Has a parent one child for each item: made once, filled each time, so that the focus stays where it is. */
function keepChildren(parent, items, make, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    let child = parent.children[index];
    if (child === undefined) parent.append(child = make());
    fill(child, item, index);
  });
}

/** Rows of cells. A cell is a text, or { text, class, sub, button, onPress, spark }. */
function keepRows(table, rows) {
  const body = table.tBodies[0];
  keepChildren(body, rows, () => element("tr"), (row, cells) => {
    keepChildren(row, cells, () => element("td"), (cell, content) => {
      const { text, class: kind, sub, onPress, spark } = typeof content === "string"
        ? { text: content }
        : content;
      setAttribute(cell, "class", kind);
      if (spark !== undefined) return keepSpark(cell, spark);
      if (onPress !== undefined) {
        let button = cell.querySelector("button");
        if (button === null) {
          cell.replaceChildren(button = element("button", { type: "button", class: "link" }));
        }
        setText(button, text);
        button.onclick = onPress;
        return;
      }
      if (sub === undefined) return setText(cell, text);
      if (cell.children.length !== 2) {
        cell.replaceChildren(element("span"), element("span", { class: "sub" }));
      }
      setText(cell.children[0], text);
      setText(cell.children[1], sub);
    });
  });
}

const SVG = "http://www.w3.org/2000/svg";

/** A line of the latest values. The number beside it says the same in words. */
function keepSpark(cell, values) {
  let line = cell.querySelector("polyline");
  if (line === null) {
    const picture = document.createElementNS(SVG, "svg");
    for (
      const [name, value] of Object.entries({
        class: "spark",
        viewBox: "0 0 120 24",
        preserveAspectRatio: "none",
        "aria-hidden": "true",
      })
    ) picture.setAttribute(name, value);
    picture.append(line = document.createElementNS(SVG, "polyline"));
    cell.replaceChildren(picture);
  }
  const max = Math.max(1, ...values);
  const points = values.map((value, index) =>
    `${120 - (values.length - 1 - index) * 120 / (RATES_KEPT - 1)},${22.5 - 21 * value / max}`
  );
  line.setAttribute("points", points.join(" "));
}

// ── The head ────────────────────────────────────────────────────────────────────────────────────────────────────────

function showHead() {
  const live = byId("live");
  live.classList.toggle("lost", !following);
  setText(
    live,
    following ? "live" : `no contact${known.atMs ? ` since ${formatTime(known.atMs)}` : ""}`,
  );
  const { status } = known;
  if (status === undefined) return;
  const { node } = status;
  const name = node === null ? "This node" : node.subnets.join("  ");
  setText(byId("who"), node === null ? name : `${name}  at  ${node.outer.publicIps.join("  ")}`);
  const { text, isBad } = verdict(status);
  const title = node === null ? "denim" : `${node.subnets[0]} – denim`;
  setText(document.querySelector("title"), isBad ? `✕ ${title}` : title);
  const line = byId("verdict");
  setText(line, text);
  line.classList.toggle("bad", isBad);
  setText(
    byId("footer"),
    `denim ${status.version}, since ${new Date(status.startedAt).toLocaleString("en-GB")}. ` +
      "This page shows what the agent’s API tells, and changes nothing.",
  );
}

function verdict({ ready, unready, store }) {
  if (!ready) return { text: `Not ready: ${unready}.`, isBad: true };
  const all = [...known.peers.values()];
  const ill = all.filter((peer) => isTrouble(healthOf(peer))).length;
  const others = all.length;
  if (ill > 0) {
    return {
      text: ill === others && others > 1
        ? `None of ${whole.format(others)} peers answers as it should.`
        : `${whole.format(ill)} of ${count(others, "peer")} ${
          ill === 1 ? "is" : "are"
        } in trouble.`,
      isBad: true,
    };
  }
  if (!store.reachable) {
    return { text: "Ready; but the store is out of reach.", isBad: true };
  }
  const elsewhere = reported.size;
  if (elsewhere > 0) {
    return {
      text: `Nothing is wrong from here. Other nodes report trouble on ${count(elsewhere, "way")}.`,
      isBad: true,
    };
  }
  if (others === 0) return { text: "Ready. There is no other node.", isBad: false };
  const unjudged = all.filter((peer) => healthOf(peer) !== "ok").length;
  if (unjudged === others) return { text: "Ready. Peers are being asked.", isBad: false };
  return {
    text: `Ready, and ${
      unjudged > 0
        ? `${whole.format(others - unjudged)} of ${whole.format(others)} peers answer so far`
        : others === 1
        ? "the other node answers"
        : `all ${whole.format(others)} peers answer`
    }.`,
    isBad: false,
  };
}

// ── Colours ─────────────────────────────────────────────────────────────────────────────────────────────────────────

let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["card", "ink", "soft", "line", "hair", "denim", "denim-soft", "copper"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`)]));
  colours.font = getComputedStyle(document.body).fontFamily;
}

/** A canvas's context, with as many pixels as the screen has; `undefined` while it has no room. */
function contextOf(canvas) {
  const size = Math.round(canvas.clientWidth);
  if (size === 0) return undefined;
  const pixels = Math.round(size * devicePixelRatio);
  if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, size, size);
  return { context, size };
}

// ── The picture ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Where nodes are in the picture. */
let spots = [];

function showPicture() {
  const canvas = byId("picture");
  const place = contextOf(canvas);
  if (place === undefined || nodes.length === 0) return;
  const { context, size } = place;
  const own = placeOf.get(known.own);
  const scale = ringScale();
  spots = layOut(size, own, scale);
  drawRings(context, size, scale);
  drawLines(context, own, size);
  spots.forEach((_, place) => drawNode(context, place, size));
  drawRingNames(context, size, scale);
  setText(byId("picture-text"), pictureText());
}

/** Round trips become radii by their logarithm: the decades that there are. */
function ringScale() {
  const times = [...known.peers.values()].flatMap(({ healths }) =>
    healths.flatMap((row) => row?.[2] && !isSilent(row[0]) ? [row[2]] : [])
  ).sort((a, b) => a - b);
  const [low, high] = [times[0] ?? 0.1, times.at(-1) ?? 1];
  const first = Math.floor(Math.log10(Math.max(low, 0.01)));
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(high, 0.01))));
  return { first, last, times };
}

/** The radius of a round trip, as a share of the room: not too near the middle, and the rim is for silence. */
function radiusOf(ms, { first, last }) {
  const share = (Math.log10(Math.max(ms, 0.01)) - first) / (last - first);
  return 0.2 + 0.68 * Math.min(1, Math.max(0, share));
}

/** The radius that there is, with names around it or without. */
function roomOf(size) {
  return size / 2 - (nodes.length <= MAX_TABLE ? 26 : 10);
}

function layOut(size, own, scale) {
  const middle = size / 2, room = roomOf(size);
  const others = nodes.length - (own === undefined ? 0 : 1);
  let turn = 0;
  return nodes.map(({ peer }, place) => {
    if (place === own) return { x: middle, y: middle };
    const angle = 2 * Math.PI * turn++ / Math.max(1, others) - Math.PI / 2;
    const ms = peer?.healths.find((row) => row?.[2])?.[2];
    const isFar = ms === undefined || isSilent(healthOf(peer));
    const radius = room * (isFar ? 0.97 : radiusOf(ms, scale));
    return { x: middle + radius * Math.cos(angle), y: middle + radius * Math.sin(angle) };
  });
}

function drawRings(context, size, scale) {
  const middle = size / 2, room = roomOf(size);
  context.lineWidth = 1;
  context.strokeStyle = colours.line;
  for (let decade = scale.first; decade <= scale.last; decade++) {
    context.beginPath();
    context.arc(middle, middle, room * radiusOf(10 ** decade, scale), 0, 2 * Math.PI);
    context.stroke();
  }
}

function drawRingNames(context, size, scale) {
  const middle = size / 2, room = roomOf(size);
  context.font = `11px ${colours.font}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let decade = scale.first; decade <= scale.last; decade++) {
    const radius = room * radiusOf(10 ** decade, scale);
    const text = `${10 ** decade >= 1 ? 10 ** decade : (10 ** decade).toFixed(-decade)} ms`;
    // Between the first two nodes, where no line is.
    const angle = -Math.PI / 2 + Math.PI / Math.max(2, nodes.length - 1);
    const [x, y] = [middle + radius * Math.cos(angle), middle + radius * Math.sin(angle)];
    const width = context.measureText(text).width + 8;
    context.globalAlpha = 0.85;
    context.fillStyle = colours.card;
    context.fillRect(x - width / 2, y - 8, width, 16);
    context.globalAlpha = 1;
    context.fillStyle = colours.soft;
    context.fillText(text, x, y);
  }
}

function drawLines(context, own, size) {
  const few = nodes.length <= MAX_LINES;
  if (few) {
    context.lineWidth = 1;
    for (let from = 0; from < nodes.length; from++) {
      for (let to = from + 1; to < nodes.length; to++) {
        if (isBad(from, to) || isBad(to, from) || down.has(from) || down.has(to)) continue;
        context.strokeStyle = from === own || to === own ? colours.denim : colours.line;
        context.lineWidth = from === own || to === own ? 2 : 1;
        line(context, from, to, size, 0);
      }
    }
  }
  context.strokeStyle = colours.copper;
  const isHeavy = reported.size > HEAVY_LINES;
  context.lineWidth = isHeavy ? 0.75 : 1.5;
  context.globalAlpha = isHeavy ? 0.5 : 1;
  context.setLineDash([6, 4]);
  let drawn = 0;
  for (const [key] of reported) {
    const [from, to] = [Math.floor(key / nodes.length), key % nodes.length];
    // Many lines say no more than some.
    if (drawn++ > MAX_TROUBLE_LINES) break;
    const isMutual = isBad(to, from);
    if (isMutual && to < from) continue;
    line(context, from, to, size, isHeavy || isMutual ? 0 : 1);
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function isBad(from, to) {
  return reported.has(from * nodes.length + to);
}

/** A line; one that is bad in one direction alone has an arrow's head near its end. */
function line(context, from, to, size, heads) {
  const [a, b] = [spots[from], spots[to]];
  context.beginPath();
  context.moveTo(a.x, a.y);
  // Towards the middle, so that lines along the rim can be told from it.
  const pull = 0.25;
  const [x, y] = [
    (a.x + b.x) / 2 * (1 - pull) + size / 2 * pull,
    (a.y + b.y) / 2 * (1 - pull) + size / 2 * pull,
  ];
  context.quadraticCurveTo(x, y, b.x, b.y);
  context.stroke();
  if (heads === 0) return;
  const angle = Math.atan2(b.y - y, b.x - x), back = 16;
  const [tipX, tipY] = [b.x - 9 * Math.cos(angle), b.y - 9 * Math.sin(angle)];
  context.save();
  context.setLineDash([]);
  context.fillStyle = colours.copper;
  context.beginPath();
  context.moveTo(tipX, tipY);
  for (const side of [-0.4, 0.4]) {
    context.lineTo(b.x - back * Math.cos(angle + side), b.y - back * Math.sin(angle + side));
  }
  context.fill();
  context.restore();
}

function drawNode(context, place, size) {
  const { x, y } = spots[place];
  const { peer, name, isOwn } = nodes[place];
  const many = nodes.length > 400;
  const health = isOwn ? "ok" : peer === null ? "none" : healthOf(peer);
  const radius = isOwn ? 8 : nodes.length <= MAX_TABLE ? 7 : many ? 2 : 4;
  const isIll = isTrouble(health) || named.has(place);
  context.fillStyle = isIll ? colours.copper : colours.denim;
  context.strokeStyle = context.fillStyle;
  context.lineWidth = 2;
  context.beginPath();
  if (isIll) {
    // A diamond, so that the shape says it too.
    const side = Math.max(radius, 4) * 1.35;
    context.moveTo(x, y - side);
    context.lineTo(x + side, y);
    context.lineTo(x, y + side);
    context.lineTo(x - side, y);
    context.closePath();
    if (health === "no-answer" || !isTrouble(health)) {
      context.fillStyle = colours.card;
      context.fill();
      context.stroke();
    } else context.fill();
  } else {
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (health === "ok") context.fill();
    else {
      context.fillStyle = colours.card;
      context.fill();
      context.stroke();
    }
  }
  if (isOwn) {
    context.beginPath();
    context.arc(x, y, radius + 4, 0, 2 * Math.PI);
    context.stroke();
  }
  if (nodes.length > MAX_TABLE) return;
  context.font = `${isOwn ? 600 : 400} 12px ${colours.font}`;
  context.fillStyle = isIll ? colours.copper : colours.ink;
  const isLow = y > size / 2 + 1;
  const offset = isOwn ? 26 : isLow ? 20 : -20;
  const text = isOwn
    ? "this node"
    : isIll
    ? `${name}  ${isTrouble(health) ? signOf(health) : "◆"}`
    : name;
  const half = context.measureText(text).width / 2 + 4;
  const at = Math.min(Math.max(x, half), size - half);
  context.textAlign = "center";
  context.textBaseline = "middle";
  const wanted = Math.min(Math.max(y + offset, 8), size - 8);
  context.save();
  context.globalAlpha = 0.85;
  context.fillStyle = colours.card;
  context.fillRect(at - half, wanted - 8, 2 * half, 16);
  context.restore();
  context.fillStyle = isIll ? colours.copper : colours.ink;
  context.fillText(text, at, wanted);
}

function pictureText() {
  const { times } = ringScale();
  const ill = [...known.peers.values()].filter((peer) => isTrouble(healthOf(peer)));
  const half = times[Math.floor(times.length / 2)];
  const trips = times.length === 0
    ? "No peer has answered yet."
    : `Round trips from ${formatMs(times[0])} to ${formatMs(times.at(-1))}, half of them below ${
      formatMs(half)
    }.`;
  const named = ill.slice(0, 3).map((peer) => `${peer.halves[0][0]} (${healthOf(peer)})`);
  const trouble = ill.length === 0
    ? ""
    : ` In trouble: ${named.join(", ")}${ill.length > 3 ? ` and ${ill.length - 3} more` : ""}.`;
  return `This node is in the middle, the others as far away as their answers take, those without one on the rim. ${trips}${trouble}`;
}

/** The node of the picture next to a point, if it is near. */
function nodeAt(event) {
  let found, least = 14 * 14;
  spots.forEach(({ x, y }, place) => {
    const distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
    if (distance < least) [found, least] = [place, distance];
  });
  return found;
}

// ── The matrix ──────────────────────────────────────────────────────────────────────────────────────────────────────

let builtFor = "";
/** The part of the large matrix that is seen: the first row and column, and how many of each. */
const view = { row: 0, column: 0, span: 0 };
/** The cell that the keyboard is at. */
const at = { row: 0, column: 0 };

function showMatrix() {
  const isSmall = nodes.length <= MAX_TABLE;
  const text = `${isSmall} ${nodes.map(({ key }) => key).join(" ")}`;
  if (text !== builtFor) {
    builtFor = text;
    if (isSmall) buildTable();
    else buildCanvas();
  }
  if (isSmall) fillTable();
  else drawMatrix();
  const ways = nodes.length * (nodes.length - 1);
  const { report } = known.mesh;
  const bad = reported.size;
  setText(
    byId("matrix-text"),
    nodes.length < 2
      ? "There is nobody to reach yet."
      : `Rows send, columns receive: ${count(ways, "way")}, ` +
        `${bad === 0 ? "none" : whole.format(bad)} in trouble. ` +
        (report?.shared === false
          ? "This store takes no reports: only this node’s row is known."
          : "This node’s row is measured; others speak up only when something is wrong."),
  );
}

function buildTable() {
  const box = byId("matrix");
  box.classList.toggle("many", nodes.length > ROOMY);
  const head = element(
    "tr",
    { role: "row" },
    element("td", { class: "self", role: "presentation" }),
  );
  for (const { name, isOwn, subnets } of nodes) {
    head.append(
      element("th", {
        scope: "col",
        role: "columnheader",
        text: name,
        title: subnets.join(" "),
        class: isOwn ? "own" : undefined,
      }),
    );
  }
  const body = element("tbody", { role: "rowgroup" });
  nodes.forEach(({ name, isOwn, subnets }, from) => {
    const row = element("tr", { role: "row" });
    row.append(element("th", {
      scope: "row",
      role: "rowheader",
      text: isOwn && nodes.length <= ROOMY ? `${name} ◂` : name,
      title: isOwn ? `${subnets.join(" ")}: this node` : subnets.join(" "),
      class: isOwn ? "own" : undefined,
    }));
    nodes.forEach((_, to) => {
      row.append(element("td", {
        role: "gridcell",
        tabindex: from === 0 && to === 0 ? 0 : -1,
        "data-from": from,
        "data-to": to,
      }));
    });
    body.append(row);
  });
  const table = element(
    "table",
    { role: "grid", "aria-labelledby": "matrix-title", "aria-describedby": "matrix-text" },
    element("thead", { role: "rowgroup" }, head),
    body,
  );
  table.addEventListener("keydown", onTableKey);
  box.replaceChildren(table);
}

function fillTable() {
  const roomy = nodes.length <= ROOMY;
  for (const cell of byId("matrix").querySelectorAll("tbody td")) {
    const [from, to] = [Number(cell.dataset.from), Number(cell.dataset.to)];
    const { health, roundTripMs } = cellOf(from, to);
    const isIll = isTrouble(health) && health !== "self" && health !== "unsaid";
    const sign = health === "self"
      ? ""
      : health === "unsaid"
      ? "·"
      : health === "none"
      ? "–"
      : health === "ok" && roomy && roundTripMs !== null
      ? roundTripMs < 100 ? roundTripMs.toFixed(2) : `${Math.round(roundTripMs)}`
      : isIll && !roomy
      ? "✕"
      : signOf(health);
    setText(cell, sign);
    setAttribute(cell, "class", health === "self" ? "self" : isIll ? "bad" : health);
    setAttribute(cell, "aria-label", cellText(from, to));
  }
}

function onTableKey(event) {
  const cell = event.target.closest("td");
  if (cell === null) return;
  const last = nodes.length - 1;
  let [from, to] = [Number(cell.dataset.from), Number(cell.dataset.to)];
  const moves = {
    ArrowUp: () => from = Math.max(0, from - 1),
    ArrowDown: () => from = Math.min(last, from + 1),
    ArrowLeft: () => to = Math.max(0, to - 1),
    ArrowRight: () => to = Math.min(last, to + 1),
    Home: () => to = 0,
    End: () => to = last,
    Enter: () => choose(to),
    " ": () => choose(to),
  };
  if (!Object.hasOwn(moves, event.key)) return;
  event.preventDefault();
  moves[event.key]();
  const next = byId("matrix").querySelector(`td[data-from="${from}"][data-to="${to}"]`);
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function buildCanvas() {
  const box = byId("matrix");
  box.classList.remove("many");
  const canvas = element("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "matrix",
    "aria-labelledby": "matrix-title",
    "aria-describedby": "matrix-text matrix-keys",
  });
  const press = (text, label, onPress) => {
    const button = element("button", { type: "button", text, "aria-label": label });
    button.onclick = onPress;
    return button;
  };
  box.replaceChildren(
    canvas,
    element(
      "div",
      { class: "zoom" },
      press("+", "Look closer", () => zoom(0.5)),
      press("−", "Look from farther away", () => zoom(2)),
      press("Next trouble", undefined, nextTrouble),
    ),
    element("p", {
      id: "matrix-keys",
      class: "unseen",
      text:
        "Arrow keys move, plus and minus zoom, N goes to the next trouble, Enter shows the way.",
    }),
  );
  Object.assign(view, { row: 0, column: 0, span: nodes.length });
  const own = placeOf.get(known.own) ?? 0;
  Object.assign(at, { row: own, column: own });
  canvas.addEventListener("keydown", onCanvasKey);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, cellUnder(canvas, event));
  }, { passive: false });
  let dragged;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    dragged = { x: event.offsetX, y: event.offsetY, row: view.row, column: view.column };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (dragged === undefined) return point(cellUnder(canvas, event));
    const cell = canvas.clientWidth / view.span;
    view.row = dragged.row - (event.offsetY - dragged.y) / cell;
    view.column = dragged.column - (event.offsetX - dragged.x) / cell;
    keepInside();
    drawMatrix();
  });
  const stop = (event) => {
    const isPress = dragged !== undefined &&
      Math.hypot(event.offsetX - dragged.x, event.offsetY - dragged.y) < 3;
    dragged = undefined;
    if (isPress) choose(cellUnder(canvas, event).column);
  };
  canvas.addEventListener("pointerup", stop);
  canvas.addEventListener("pointercancel", () => dragged = undefined);
  canvas.addEventListener("focus", () => drawMatrix());
  canvas.addEventListener("blur", () => drawMatrix());
}

function cellUnder(canvas, event) {
  const cell = canvas.clientWidth / view.span;
  const inside = (place) => Math.min(nodes.length - 1, Math.max(0, Math.floor(place)));
  return {
    row: inside(view.row + event.offsetY / cell),
    column: inside(view.column + event.offsetX / cell),
  };
}

function keepInside() {
  view.span = Math.min(nodes.length, Math.max(12, view.span));
  const last = nodes.length - view.span;
  view.row = Math.min(last, Math.max(0, view.row));
  view.column = Math.min(last, Math.max(0, view.column));
}

function zoom(factor, around = at) {
  const share = (place, first) => Math.min(1, Math.max(0, (place + 0.5 - first) / view.span));
  const [y, x] = [share(around.row, view.row), share(around.column, view.column)];
  const span = Math.min(nodes.length, Math.max(12, view.span * factor));
  view.row = around.row + 0.5 - y * span;
  view.column = around.column + 0.5 - x * span;
  view.span = span;
  keepInside();
  drawMatrix();
}

function point({ row, column }) {
  setText(byId("pointed"), cellText(row, column));
}

function goTo(row, column) {
  Object.assign(at, { row, column });
  const isSeen = (place, first) => place >= first && place + 1 <= first + view.span;
  if (!isSeen(row, view.row)) view.row = row - view.span / 2;
  if (!isSeen(column, view.column)) view.column = column - view.span / 2;
  keepInside();
  drawMatrix();
  point(at);
}

function nextTrouble() {
  const here = at.row * nodes.length + at.column;
  let [next, first] = [Infinity, Infinity];
  for (const key of reported.keys()) {
    first = Math.min(first, key);
    if (key > here) next = Math.min(next, key);
  }
  const key = next === Infinity ? first : next;
  if (key === Infinity) return setText(byId("pointed"), "There is no trouble.");
  view.span = Math.min(view.span, Math.max(40, nodes.length / 20));
  goTo(Math.floor(key / nodes.length), key % nodes.length);
}

function onCanvasKey(event) {
  // One step is what can be seen.
  const step = Math.max(1, Math.round(view.span / 60));
  const last = nodes.length - 1;
  const to = (row, column) =>
    goTo(Math.min(last, Math.max(0, row)), Math.min(last, Math.max(0, column)));
  const moves = {
    ArrowUp: () => to(at.row - step, at.column),
    ArrowDown: () => to(at.row + step, at.column),
    ArrowLeft: () => to(at.row, at.column - step),
    ArrowRight: () => to(at.row, at.column + step),
    Home: () => to(at.row, 0),
    End: () => to(at.row, last),
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "-": () => zoom(2),
    n: nextTrouble,
    N: nextTrouble,
    Enter: () => choose(at.column),
  };
  if (event.ctrlKey || event.metaKey || !Object.hasOwn(moves, event.key)) return;
  event.preventDefault();
  moves[event.key]();
}

function drawMatrix() {
  const canvas = byId("matrix").querySelector("canvas");
  const place = canvas && contextOf(canvas);
  if (!place) return;
  const { context, size } = place;
  const cell = size / view.span;
  const total = nodes.length;
  const x = (column) => (column - view.column) * cell;
  const y = (row) => (row - view.row) * cell;
  // Nobody says a word: well.
  context.fillStyle = colours.hair;
  context.fillRect(0, 0, size, size);
  const own = placeOf.get(known.own);
  if (own !== undefined) {
    const thick = Math.max(cell, 3);
    context.fillStyle = cell < 3 ? colours.denim : colours["denim-soft"];
    // The last row has to be seen, too.
    context.fillRect(0, cell < 3 ? Math.min(y(own), size - thick) : y(own), size, thick);
  }
  if (cell >= 8) drawGrid(context, size, cell);
  context.fillStyle = colours.card;
  for (
    let place = Math.floor(Math.max(view.row, view.column));
    place < Math.min(view.row, view.column) + view.span + 1;
    place++
  ) {
    context.fillRect(x(place), y(place), Math.max(cell, 1), Math.max(cell, 1));
  }
  context.fillStyle = colours.copper;
  context.globalAlpha = 0.35;
  for (const place of down) context.fillRect(x(place), 0, Math.max(cell, 2), size);
  for (const place of overflowing) context.fillRect(0, y(place), size, Math.max(cell, 2));
  context.globalAlpha = 1;
  const mark = Math.max(cell * 0.8, Math.min(5, 3 + 40 / total));
  context.font = `600 ${Math.min(12, cell * 0.42)}px ${colours.font}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [key, health] of reported) {
    const [left, top] = [x(key % total) + cell / 2, y(Math.floor(key / total)) + cell / 2];
    if (left < -cell || top < -cell || left > size + cell || top > size + cell) continue;
    context.fillStyle = colours.copper;
    context.fillRect(left - mark / 2, top - mark / 2, mark, mark);
    if (cell < 18) continue;
    context.fillStyle = colours.card;
    context.fillText(signOf(health), left, top);
  }
  if (document.activeElement !== canvas) return;
  context.strokeStyle = colours.ink;
  context.lineWidth = 2;
  const room = Math.max(cell, 8);
  context.strokeRect(
    x(at.column) + cell / 2 - room / 2,
    y(at.row) + cell / 2 - room / 2,
    room,
    room,
  );
}

function drawGrid(context, size, cell) {
  context.strokeStyle = colours.card;
  context.lineWidth = 1;
  context.beginPath();
  for (let step = -(view.column % 1) * cell; step < size; step += cell) {
    context.moveTo(step, 0);
    context.lineTo(step, size);
  }
  for (let step = -(view.row % 1) * cell; step < size; step += cell) {
    context.moveTo(0, step);
    context.lineTo(size, step);
  }
  context.stroke();
}

// ── Trouble ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Each finding once: of two sides that find the same of each other, the one that more nodes find. */
function gatherTroubles() {
  const { report } = known.mesh;
  const ownSubnet = nodes[placeOf.get(known.own)]?.subnets[0];
  const told = (report?.troubles ?? []).map(({ subnet, health, since, from, conclusion }) => ({
    subnet,
    health,
    sinceMs: Date.parse(since),
    from: from.map((key) => key === known.own ? "this node" : subnetOf(key)),
    conclusion,
  }));
  const isTold = new Set(told.map(({ subnet, health }) => `${subnet} ${health}`));
  // What this node has just found is not in the store yet.
  const fresh = [...known.peers.values()].flatMap(({ halves, healths }) =>
    halves.flatMap(([subnet], half) => {
      const row = healths[half];
      if (!row || !isTrouble(row[0]) || isTold.has(`${subnet} ${row[0]}`)) return [];
      return [{ subnet, health: row[0], sinceMs: row[1], from: ["this node"], conclusion: null }];
    })
  );
  const all = [...told, ...fresh];
  const shown = new Map(
    all.map((one) => [`${one.subnet} ${one.health}`, { ...one, mirrored: 0 }]),
  );
  for (const one of all) {
    const others = one.from.map((name) =>
      shown.get(`${name === "this node" ? ownSubnet : name} ${one.health}`)
    );
    const isMirror = others.every((other) =>
      other !== undefined &&
      (other.from.length > one.from.length ||
        other.from.length === one.from.length && other.subnet < one.subnet)
    );
    if (!isMirror) continue;
    for (const other of others) other.mirrored++;
    shown.delete(`${one.subnet} ${one.health}`);
  }
  return [...shown.values()];
}

function showTroubles() {
  const { report, error } = known.mesh;
  const all = troubles;
  const more = (report?.overflowing ?? []).map(({ from, peers }) =>
    ` ${subnetOf(from)} finds trouble with ${whole.format(peers)} peers in all.`
  ).join("");
  setText(
    byId("mesh-note"),
    (error !== null ? `The store does not tell what other nodes find: ${error}. ` : "") +
      (all.length === 0
        ? error === null ? "Nobody reports any." : "From here there is none."
        : all.length > MAX_TROUBLES
        ? `${
          whole.format(all.length)
        } findings, of which the ${MAX_TROUBLES} that most nodes share are listed.`
        : "") +
      more,
  );
  byId("mesh-note").classList.toggle("bad", error !== null);
  byId("troubles").hidden = all.length === 0;
  keepRows(
    byId("troubles"),
    all.slice(0, MAX_TROUBLES).map(({ subnet, health, sinceMs, from, conclusion, mirrored }) => [
      { text: subnet, class: "address" },
      { text: health, class: "bad", sub: meaningOf(health) },
      conclusion === null ? "" : { text: CONCLUSIONS[conclusion] ?? conclusion, class: "bad" },
      { text: formatTime(sinceMs), sub: `for ${formatAge(sinceMs)}` },
      {
        text: someOf(from),
        class: "address",
        sub: mirrored === 0 ? "" : `and it finds the same of ${count(mirrored, "node")}`,
      },
    ]),
  );
}

function someOf(names) {
  return names.length > 3
    ? `${names.slice(0, 3).join(" ")} and ${names.length - 3} more`
    : names.join(" ");
}

function subnetOf(key) {
  const place = placeOf.get(key);
  return place === undefined ? key : nodes[place].subnets[0];
}

// ── One packet's way ────────────────────────────────────────────────────────────────────────────────────────────────

let offered = "";
let wayAsked = 0;
/** How the peer was when its way was asked for. */
let wayHealth;

/** Shows the way to a node by its place in the matrix. */
function choose(place) {
  const { key, isOwn } = nodes[place];
  if (isOwn) return;
  chosen = key;
  showChoice();
  askWay();
  byId("way").scrollIntoView({ block: "start" });
}

function showChoice() {
  const select = byId("way-peer");
  const all = nodes.filter(({ isOwn }) => !isOwn);
  if (all.length === 0) {
    select.replaceChildren();
    byId("ways").replaceChildren(element("p", { class: "note", text: "There is no other node." }));
    return;
  }
  if (chosen === null || !placeOf.has(chosen)) {
    chosen = (all.find(({ peer }) => isTrouble(healthOf(peer))) ?? all[0]).key;
    askWay();
  }
  const some = all.length <= MAX_OFFERED ? all : [
    ...new Set([
      nodes[placeOf.get(chosen)],
      ...all.filter(({ peer }) => isTrouble(healthOf(peer))).slice(0, MAX_OFFERED / 2),
      ...all.slice(0, MAX_OFFERED / 2),
    ]),
  ];
  const text = some.map(({ key }) => key).join(" ");
  if (text !== offered) {
    offered = text;
    select.replaceChildren(
      ...some.map(({ key, peer }) =>
        element("option", { value: key, text: `${peer.halves[0][0]}  at  ${peer.halves[0][1]}` })
      ),
    );
  }
  select.value = chosen;
  // What the way says of the peer is not to differ from what the rest of the page says.
  if (healthOf(nodes[placeOf.get(chosen)].peer) !== wayHealth) askWay();
}

/** Asks the agent, which asks the kernel. */
async function askWay() {
  const own = ++wayAsked;
  const key = chosen, peer = known.peers.get(key);
  if (peer === undefined) return;
  wayHealth = healthOf(peer);
  let ways;
  try {
    const response = await fetch(`/way?peer=${encodeURIComponent(key)}`);
    if (!response.ok) return;
    ways = await response.json();
  } catch {
    return;
  }
  if (own === wayAsked) showWays(key, ways);
}

function showWays(key, ways) {
  const peer = known.peers.get(key);
  if (peer === undefined) return;
  const made = ways.map((way) => {
    const half = peer.halves.findIndex(([subnet]) => subnet === way.toSubnet);
    return wayBlock(way, peer.healths[half] ?? null, peer);
  });
  const text = made.map(({ textContent }) => textContent).join();
  // Drawn anew only if it is another, so that a selection stays.
  if (byId("ways").dataset.text === text && byId("ways").dataset.key === key) return;
  Object.assign(byId("ways").dataset, { text, key });
  byId("ways").replaceChildren(...made);
}

function wayBlock(way, row, peer) {
  const { bridge, device, outer, isDirect } = way;
  const health = row?.[0] ?? "none";
  const isIll = isTrouble(health);
  const mtu = (found) => found === null ? "" : `MTU ${found.mtuBytes}`;
  const lines = (...texts) => texts.filter((text) => text).join("\n");
  const stations = [
    { what: "Pod", name: "eth0", lines: `in ${way.fromSubnet}` },
    bridge === null
      ? { what: "Bridge", name: "none yet", lines: "made with the first pod" }
      : { what: "Bridge", name: bridge.name, lines: lines(bridge.address, mtu(bridge)) },
    device === null
      ? { what: "Route", name: "none", lines: "the kernel has no route there", isBad: true }
      : {
        what: "Route",
        name: way.toSubnet,
        lines: lines(way.via && `via ${way.via}`, `dev ${device.name}`),
      },
    ...device === null || isDirect ? [] : [{
      what: device.type === null ? "Device" : `Device, ${device.type}`,
      name: device.name,
      lines: lines(
        device.vxlan && `VNI ${device.vxlan.vni}, UDP ${device.vxlan.port}`,
        way.peerMac && `to ${way.peerMac}`,
        mtu(device),
      ),
      isInside: true,
    }],
    outer === null
      ? { what: "Underlay", name: "no route", lines: `to ${way.publicIp}`, isBad: true }
      : {
        what: "Outer interface",
        name: outer.name,
        lines: isIll
          ? meaningOf(health)
          : lines(outer.address, way.router && `router ${way.router}`, mtu(outer)),
        isInside: !isDirect,
        isBad: isIll,
      },
    {
      what: "Peer",
      name: way.publicIp,
      lines: isSilent(health)
        ? "does not answer"
        : row?.[2]
        ? `answers in ${formatMs(row[2])}`
        : health === "none"
        ? "not probed"
        : "",
      isInside: !isDirect,
    },
    { what: "Pod there", name: way.to, lines: `in ${way.toSubnet}` },
  ];
  const list = element("ol", { class: "way", "aria-label": `Stations to ${way.toSubnet}` });
  for (const { what, name, lines, isInside, isBad } of stations) {
    list.append(element(
      "li",
      { class: isBad ? "bad" : isInside ? "inside" : undefined },
      element("span", { class: "what", text: what }),
      element("span", { class: "name", text: name }),
      element("span", { class: "lines", text: lines }),
    ));
  }
  const block = element("div", {}, list);
  if (device !== null && outer !== null) block.append(packetList(way, row, peer));
  return block;
}

/** What stands between the outer and the inner IP, by backend; VXLAN has more to say. */
const CARRIERS = { udp: "UDP", wireguard: "UDP, encrypted by WireGuard", ipip: "IP in IP" };

/** What one packet is on the underlay, from the outside inwards. */
function packetList({ device, outer, publicIp, isDirect, to, fromSubnet, peerMac }, row, peer) {
  const inner = [[`IP ${fromSubnet.split("/")[0].replace(/\.0$/, ".…")} → ${to}`, false]];
  const overhead = outer.mtuBytes - device.mtuBytes;
  const outerIp = [`IP ${outer.address ?? "…"} → ${publicIp}`, true];
  const layers = isDirect ? inner : device.vxlan !== null
    ? [
      outerIp,
      [`UDP → ${device.vxlan.port}`, true],
      [`VXLAN ${device.vxlan.vni}`, true],
      [`Ethernet → ${peerMac ?? "…"}`, true],
      ...inner,
    ]
    : [outerIp, [CARRIERS[peer.backend] ?? device.name, true], ...inner];
  const list = element("ul", { class: "packet", "aria-label": "The packet on the underlay" });
  for (const [text, isOuter] of layers) {
    list.append(element("li", { text, class: isOuter ? "outer" : undefined }));
  }
  const note = [
    isDirect
      ? "It leaves as it is."
      : `Of ${outer.mtuBytes} bytes ${overhead} are left to the outer headers.`,
    `Pods send at most ${known.status.node.mtuBytes}.`,
    row?.[4] ? `The largest packet that gets through has ${row[4]} bytes.` : "",
    row?.[3] ? `${Math.round(row[3] * 100)} % of the latest probes were lost.` : "",
  ];
  return element("div", {}, list, element("p", { class: "note", text: note.join(" ") }));
}

// ── This node ───────────────────────────────────────────────────────────────────────────────────────────────────────

function mean(list, what) {
  return list.length === 0 ? 0 : list.reduce((sum, one) => sum + one[what], 0) / list.length;
}

function showNode() {
  const { status } = known;
  if (status === undefined) return;
  const { node, store } = status;
  const facts = node === null ? [] : [
    [
      "Backend",
      `${node.backend}${node.devices.length ? ` by ${node.devices.join(" ")}` : ""}` +
      (node.formerBackends.length ? `, changing from ${node.formerBackends.join(" ")}` : ""),
    ],
    ...node.wireguard.length === 0 ? [] : [[
      "WireGuard",
      node.wireguard.map(({ device, by, listenPort }) => `${device} by ${by}, port ${listenPort}`)
        .join("; "),
    ]],
    ["MTU for pods", `${node.mtuBytes} bytes`],
    ["Pods’ subnet", node.subnets.join(" ")],
    ["Cluster’s network", node.networks.join(" ")],
    [
      "Outer interface",
      `${node.outer.name}, ${node.outer.publicIps.join(" ")}, MTU ${node.outer.mtuBytes}`,
    ],
    [
      "Peers",
      `${whole.format(node.peers.followed)} followed` +
      (node.peers.refused ? `, ${node.peers.refused} refused` : "") +
      (node.peers.troubled ? `, ${node.peers.troubled} in trouble` : ""),
    ],
    ["Lease until", node.leaseEndsAt ? new Date(node.leaseEndsAt).toLocaleString("en-GB") : "ever"],
  ];
  facts.push([
    "Store",
    `${store.description ?? "being opened"}${
      store.reachable ? "" : `, out of reach for ${Math.round(store.outageSeconds)} s`
    }`,
  ]);
  keepChildren(
    byId("facts"),
    facts,
    () => element("div", {}, element("dt"), element("dd")),
    (pair, [name, value]) => {
      setText(pair.children[0], name);
      setText(pair.children[1], value);
    },
  );
  keepRows(
    byId("devices"),
    known.devices.map(({ name, received, sent }) => {
      const kept = rates.get(name) ?? [];
      const smooth = (what) =>
        kept.map((_, index) => mean(kept.slice(Math.max(0, index - 4), index + 1), what));
      const last = (what) => mean(kept.slice(-5), what);
      const errors = received.errors + sent.errors, dropped = received.dropped + sent.dropped;
      return [
        { text: name, class: "address" },
        {
          text: formatAmount(last("in") * 8, "bit/s"),
          sub: formatAmount(received.bytes, "B"),
          class: "number",
        },
        { spark: smooth("in") },
        {
          text: formatAmount(last("out") * 8, "bit/s"),
          sub: formatAmount(sent.bytes, "B"),
          class: "number",
        },
        { spark: smooth("out") },
        {
          text: `${formatAmount(last("packetsIn"), "/s")}, ${
            formatAmount(last("packetsOut"), "/s")
          }`,
          class: "number",
        },
        { text: whole.format(errors), class: errors > 0 ? "number bad" : "number" },
        { text: whole.format(dropped), class: dropped > 0 ? "number doubt" : "number" },
      ];
    }),
  );
  if (byId("counted").open) showCounters();
}

function showCounters() {
  keepRows(
    byId("counters"),
    known.counters.map(([name, labels, help], index) => {
      const words = Object.entries(labels).map(([label, value]) => `${label} ${value}`).join(", ");
      const rate = counterRates[index] ?? 0;
      return [
        { text: help + (words ? ` ${words}.` : ""), sub: name },
        {
          text: whole.format(Math.round(known.values[index] * 1000) / 1000),
          class: "number",
        },
        {
          text: name.endsWith("_total") && rate > 0 ? rate.toFixed(rate < 10 ? 1 : 0) : "",
          class: "number",
        },
      ];
    }),
  );
}

// ── Doctor, lately ──────────────────────────────────────────────────────────────────────────────────────────────────

async function askDoctor() {
  const button = byId("ask-doctor"), said = byId("doctor-said");
  button.disabled = true;
  setText(said, "Looking…");
  try {
    const response = await fetch("/doctor", { method: "POST" });
    if (!response.ok) throw new Error(await response.text());
    const { atMs, findings } = await response.json();
    setText(
      said,
      `${formatTime(atMs)}: ` +
        (findings.length === 0
          ? "nothing is wrong that the doctor can see."
          : `${count(findings.length, "finding")}.`),
    );
    byId("findings").replaceChildren(
      ...findings.map(({ name, evidence, remedy }) =>
        element(
          "li",
          {},
          element("code", { text: name, class: "bad" }),
          element("p", { text: `Seen: ${evidence}.`, class: "sub" }),
          element("p", { text: `Mend: ${remedy}.`, class: "sub" }),
        )
      ),
    );
  } catch (error) {
    setText(said, `The doctor cannot be asked: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

function showLately() {
  const { status } = known;
  if (status === undefined) return;
  const repairs = Object.entries(status.node?.repairs ?? {});
  setText(
    byId("mended"),
    repairs.length === 0
      ? "Nobody has changed what denim keeps in the kernel."
      : `What others changed in the kernel and denim put right: ${
        repairs.map(([kind, times]) => `${kind} ${times} ${times === 1 ? "time" : "times"}`)
          .join(", ")
      }.`,
  );
  const lines = status.lately.toReversed();
  keepChildren(
    byId("said"),
    lines,
    () =>
      element(
        "li",
        {},
        element("time", { class: "when" }),
        element("p", {}, element("code"), document.createTextNode(" "), element("span")),
      ),
    (item, { at, level, event, message, times }) => {
      const [time, text] = item.children;
      setAttribute(time, "datetime", at);
      setText(time, formatTime(Date.parse(at)));
      setText(text.children[0], `${level === "error" ? "✕" : "!"} ${event}`);
      setAttribute(text.children[0], "class", level === "error" ? "bad" : "doubt");
      setText(text.children[1], times === 1 ? message : `${message} (${times} times)`);
    },
  );
}

// ── Peers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

let rowsShown = SOME_ROWS;

function showPeers() {
  const wanted = byId("find").value.trim().toLowerCase();
  const rows = nodes.flatMap(({ peer, key }) =>
    peer === null ? [] : peer.halves.map((half, index) => ({
      key,
      half,
      backend: peer.backend,
      changedAtMs: peer.changedAtMs,
      row: peer.healths[index] ?? null,
    }))
  ).filter(({ half: [subnet, publicIp], row }) =>
    wanted === "" || subnet.includes(wanted) || publicIp.includes(wanted) ||
    (row?.[0] ?? "not probed").includes(wanted)
  );
  const [ill, others] = [
    rows.filter(({ row }) => row !== null && isTrouble(row[0])),
    rows.filter(({ row }) => row === null || !isTrouble(row[0])),
  ];
  const sorted = [...ill, ...others];
  setText(
    byId("found"),
    `${whole.format(sorted.length)}${
      wanted === "" ? "" : ` of ${whole.format(known.peers.size)}`
    }` +
      (ill.length > 0 ? `, ${whole.format(ill.length)} in trouble` : ""),
  );
  byId("more").hidden = sorted.length <= rowsShown;
  keepRows(
    byId("peer-table"),
    sorted.slice(0, rowsShown).map(({ key, half, backend, changedAtMs, row }) => {
      const [subnet, publicIp, device, isDirect] = half;
      const [health, sinceMs, roundTripMs, loss, mtu] = row ?? ["not probed", changedAtMs];
      const kind = row === null
        ? ""
        : isTrouble(health)
        ? "bad"
        : health === "ok"
        ? "good"
        : "doubt";
      const way = device === null ? "" : ` ${isDirect ? "direct by" : "by"} ${device}`;
      return [
        { text: subnet, onPress: () => choose(placeOf.get(key)) },
        { text: publicIp, class: "address" },
        { text: `${markOf(health)} ${health}`, class: kind },
        {
          text: roundTripMs == null || isSilent(health) ? "–" : formatMs(roundTripMs),
          class: "number",
        },
        { text: loss == null ? "–" : `${Math.round(loss * 100)} %`, class: "number" },
        { text: mtu == null ? "–" : `${mtu}`, class: "number" },
        `${backend}${way}`,
        { text: formatTime(sinceMs), sub: `for ${formatAge(sinceMs)}` },
      ];
    }),
  );
}

// ── All together ────────────────────────────────────────────────────────────────────────────────────────────────────

function showLegend() {
  const items = [
    ["ok", SIGNS.ok[0], `${SIGNS.ok[1]} (a number: in so many ms)`],
    ["none", "·", "no trouble is reported"],
    ["none", SIGNS.unknown[0], SIGNS.unknown[1]],
    ...Object.entries(SIGNS).filter(([health]) => isTrouble(health))
      .map(([, [sign, meaning]]) => ["", sign, meaning]),
  ];
  byId("legend").replaceChildren(
    ...items.map(([kind, sign, meaning]) =>
      element(
        "li",
        { class: kind || undefined },
        element("b", { text: sign }),
        document.createTextNode(` ${meaning}`),
      )
    ),
  );
}

let isDue = false;

/** Draws before the next frame, once for all that came since the last one. */
function show() {
  // Nobody sees it, and a hidden page has no frames; but its title is seen.
  if (document.hidden) showHead();
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    showHead();
    if (known.status === undefined) return;
    showPicture();
    showMatrix();
    showTroubles();
    showChoice();
    showNode();
    showLately();
    showPeers();
    document.documentElement.dataset.shown = "true";
    performance.mark("shown");
  });
}

function follow() {
  const events = new EventSource("/events");
  events.onopen = () => {
    following = true;
    show();
  };
  events.onerror = () => {
    following = false;
    show();
    // Refused, as when too many look: a browser does not try again by itself.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  };
  events.onmessage = ({ data }) => {
    following = true;
    take(JSON.parse(data));
    show();
  };
}

function begin() {
  readColours();
  showLegend();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    show();
  });
  new ResizeObserver(show).observe(byId("mesh"));
  byId("picture").addEventListener("pointermove", (event) => {
    const place = nodeAt(event);
    event.currentTarget.style.cursor = place === undefined ? "default" : "pointer";
    if (place === undefined) return;
    const own = placeOf.get(known.own);
    setText(byId("pointed"), own === undefined ? nodeText(place) : cellText(own, place));
  });
  byId("picture").addEventListener("click", (event) => {
    const place = nodeAt(event);
    if (place !== undefined) choose(place);
  });
  for (const kind of ["pointerover", "focusin"]) {
    byId("matrix").addEventListener(kind, ({ target }) => {
      const cell = target.closest("td[data-from]");
      if (cell !== null) point({ row: Number(cell.dataset.from), column: Number(cell.dataset.to) });
    });
  }
  byId("matrix").addEventListener("click", ({ target }) => {
    const cell = target.closest("td[data-to]");
    if (cell !== null) choose(Number(cell.dataset.to));
  });
  byId("way-peer").addEventListener("change", ({ target }) => {
    chosen = target.value;
    askWay();
  });
  byId("ask-doctor").addEventListener("click", askDoctor);
  byId("counted").addEventListener("toggle", show);
  byId("find").addEventListener("input", () => {
    rowsShown = SOME_ROWS;
    show();
  });
  byId("more").addEventListener("click", () => {
    rowsShown += SOME_ROWS;
    show();
  });
  // The kernel's way may change without any news.
  setInterval(() => following && !document.hidden && askWay(), 5000);
  follow();
}

begin();
