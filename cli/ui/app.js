// SPDX-License-Identifier: Apache-2.0
// app.js - the page: asks worker.js for what is to be seen, and draws it. Nothing here grows with the program.
"use strict";

const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js");
const ROW = 26;
const TABS = {
  channels: [["name", "name", "2fr"], ["kind", "kind", "1fr"], ["rate", "items/s", "1fr", "rate"], ["queue_size", "depth", "1fr", "n"],
    ["capacity", "capacity", "1fr", "capacity"], ["high_watermark", "highest", "1fr", "n"], ["waiting_senders", "senders wait", "1fr", "n"],
    ["waiting_receivers", "receivers wait", "1fr", "n"], ["oldest_age", "oldest", "1fr", "age"], ["spark", "depth", "120px", "spark"]],
  actors: [["name", "name", "2fr"], ["state", "state", "1fr"], ["rate", "handled/s", "1fr", "rate"], ["mailbox_size", "mailbox", "1fr", "n"],
    ["handled", "handled", "1fr", "n"], ["failed", "failed", "1fr", "n"], ["restarts", "restarts", "1fr", "n"], ["spark", "mailbox", "120px", "spark"]],
  fibers: [["name", "name", "2fr"], ["id", "id", "1fr", "n"], ["state", "state", "1fr"], ["waiting_on", "waits on", "1fr"], ["waiting_id", "which", "1fr", "n"],
    ["worker", "worker", "1fr", "n"], ["scope_id", "scope", "1fr", "n"]],
  tasks: [["name", "name", "2fr"], ["id", "id", "1fr", "n"], ["executor_id", "executor", "1fr", "n"], ["running", "running", "1fr"]],
  supervisions: [["name", "name", "2fr"], ["kind", "kind", "1fr"], ["state", "state", "1fr"], ["restarts", "restarts", "1fr", "n"],
    ["last_error", "last error", "1fr"], ["last_detail", "detail", "2fr"]],
};
const TITLES = { channels: "channels", actors: "actors", fibers: "fibers", tasks: "tasks", supervisions: "children" };
const view = { tab: "channels", sort: "rate", down: true, filter: "", from: 0, count: 30 };
let sample = null;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (v) => v >= 1e6 ? (v / 1e6).toFixed(1) + " M" : v >= 1e4 ? (v / 1e3).toFixed(1) + " k" : v >= 100 || Number.isInteger(v) ? Math.round(v).toString() : v.toFixed(1);
const age = (ns) => ns == null || ns < 0 ? "" : ns < 1e6 ? (ns / 1e3).toFixed(0) + " µs" : ns < 1e9 ? (ns / 1e6).toFixed(0) + " ms" : ns < 6e10 ? (ns / 1e9).toFixed(1) + " s" : (ns / 6e10).toFixed(0) + " min";

// A canvas of its box's width in device pixels; returns its context in CSS pixels.
function prepare(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  }
  canvas.style.height = height + "px";
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  return c;
}

function spark(canvas, values, width, height, colour) {
  const c = prepare(canvas, width, height);
  if (!values || values.length < 2) return;
  const top = Math.max(...values, 1);
  c.beginPath();
  values.forEach((v, i) => c.lineTo(i * width / (values.length - 1), height - 1 - v / top * (height - 3)));
  c.strokeStyle = colour; c.lineWidth = 1.5; c.stroke();
}

function text(c, s, x, y, width, align = "left") {
  let t = String(s);
  while (t.length > 1 && c.measureText(t).width > width) t = t.slice(0, -2) + "…";
  c.textAlign = align; c.fillText(t, x, y);
}

function box(c, x, y, w, h, border, fill) {
  c.beginPath(); c.roundRect(x, y, w, h, 5);
  if (fill) { c.fillStyle = fill; c.fill(); }
  c.strokeStyle = border; c.lineWidth = 1; c.stroke();
}

function drawTiles() {
  const { counts, totals } = sample, lastOf = (l) => l[l.length - 1] ?? 0;
  const tiles = [["channels", counts.channels], ["items/s sent", lastOf(totals.rate), totals.rate], ["items queued", lastOf(totals.queued), totals.queued],
    ["fibers", counts.fibers], ["tasks", counts.tasks], ["actors", counts.actors], ["in mailboxes", lastOf(totals.mail), totals.mail],
    ["restarts now", lastOf(totals.restarts), totals.restarts]];
  const holder = $("tiles");
  while (holder.children.length < tiles.length) {
    const d = document.createElement("div");
    d.className = "tile"; d.innerHTML = "<b></b><span></span><canvas></canvas>"; holder.append(d);
  }
  tiles.forEach(([name, value, values], i) => {
    const d = holder.children[i];
    d.children[0].textContent = short(value); d.children[1].textContent = name;
    d.children[2].hidden = !values;
    if (values) spark(d.children[2], values, d.clientWidth - 26, 24, css("--accent"));
  });
}

// Three columns: who sends, channels, who receives. Lines are as thick as the rate's logarithm.
function drawFlow() {
  const canvas = $("flow"), { channels, edges, total } = sample.flow, width = canvas.parentElement.clientWidth - 24;
  const names = (sends) => [...new Set(edges.filter((e) => e.sends === sends).map((e) => e.name))].slice(0, 40);
  const left = names(true), right = names(false), lines = Math.max(left.length, channels.length, right.length, 6), step = 24;
  const height = lines * step + 16, c = prepare(canvas, width, height), w = Math.min(220, width * 0.24);
  c.font = "12px system-ui, sans-serif"; c.textBaseline = "middle";
  const at = (i, n) => 8 + step / 2 + (n ? i * step + (lines - n) * step / 2 : 0);
  const column = (list) => new Map(list.map((x, i) => [x, at(i, list.length)]));
  const ys = column(left), yr = column(right), yc = new Map(channels.map((ch, i) => [ch.id, at(i, channels.length)]));
  const byId = new Map(channels.map((ch) => [ch.id, ch]));
  for (const e of edges) {
    const y1 = yc.get(e.channel), y0 = (e.sends ? ys : yr).get(e.name), ch = byId.get(e.channel);
    if (y0 === undefined || y1 === undefined) continue;
    const x0 = e.sends ? w : width - w, x1 = (width + (e.sends ? -w : w)) / 2, stuck = e.sends ? ch.waitingSenders : 0;
    c.beginPath(); c.moveTo(x0, y0); c.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
    c.strokeStyle = stuck ? css("--busy") : ch.rate ? css("--accent") : css("--line");
    c.lineWidth = 1 + Math.min(4, Math.log10(1 + ch.rate)); c.globalAlpha = .65; c.stroke(); c.globalAlpha = 1;
  }
  const node = (name, x, y, note) => {
    box(c, x + .5, y - 10, w - 1, 20, css("--line"), css("--back"));
    c.fillStyle = css("--text"); text(c, name, x + 8, y, w - 16 - (note ? 70 : 0));
    if (note) { c.fillStyle = css("--soft"); text(c, note, x + w - 8, y, 80, "right"); }
  };
  for (const [name, y] of ys) node(name, 0, y);
  for (const [name, y] of yr) node(name, width - w, y);
  for (const ch of channels) {
    const x = (width - w) / 2, y = yc.get(ch.id);
    node(ch.name, x, y, short(ch.rate) + "/s");
    if (ch.capacity > 0 && ch.depth > 0) { // how full it is
      c.fillStyle = ch.depth >= ch.capacity ? css("--busy") : css("--accent"); c.globalAlpha = .3;
      c.fillRect(x + 1, y + 6, (w - 2) * Math.min(1, ch.depth / ch.capacity), 3); c.globalAlpha = 1;
    }
  }
  $("flow-note").textContent = total > channels.length ? `the ${channels.length} busiest of ${total} channels` : total ? "" : "no channels yet";
}

const STATE = { running: "--good", starting: "--busy", stopping: "--busy", killing: "--bad", backoff: "--busy", abandoned: "--bad", stopped: "--soft" };

// Left to right: each leaf has a line of its own, a parent stands beside its first child.
function drawTree() {
  const nodes = [], canvas = $("tree"), step = 26, w = 150;
  let line = 0, deepest = 0;
  const place = (n, depth, parent) => {
    const me = { n, depth, y: line, parent };
    nodes.push(me); deepest = Math.max(deepest, depth);
    n.children.forEach((k, i) => { if (i) line++; place(k, depth + 1, me); });
    if (n.more) { line++; nodes.push({ n: { name: `and ${n.more} more`, kind: "", state: "stopped", restarts: 0 }, depth: depth + 1, y: line, parent: me }); }
  };
  sample.tree.forEach((root, i) => { if (i) line++; place(root, 0, null); });
  const width = Math.max($("tree-box").clientWidth - 4, (deepest + 1) * (w + 24)), height = Math.min(8000, (line + 1) * step + 12);
  canvas.style.width = width + "px";
  const c = prepare(canvas, width, height);
  c.font = "12px system-ui, sans-serif"; c.textBaseline = "middle";
  const pos = (m) => [m.depth * (w + 24) + 2, m.y * step + 16];
  for (const m of nodes) {
    const [x, y] = pos(m);
    if (m.parent) {
      const [px, py] = pos(m.parent);
      c.beginPath(); c.moveTo(px + w, py); c.lineTo(px + w + 12, py); c.lineTo(px + w + 12, y); c.lineTo(x, y);
      c.strokeStyle = css("--line"); c.lineWidth = 1; c.stroke();
    }
    box(c, x, y - 10, w, 20, css("--line"), css("--back"));
    c.fillStyle = css(STATE[m.n.state] ?? "--soft"); c.beginPath(); c.arc(x + 10, y, 4, 0, 7); c.fill();
    c.fillStyle = css("--text"); text(c, m.n.name, x + 20, y, w - 70);
    c.fillStyle = m.n.restarts ? css("--busy") : css("--soft"); text(c, m.n.restarts ? "↻ " + m.n.restarts : m.n.kind.replace("_for_", " for "), x + w - 6, y, 62, "right");
  }
  $("tree-note").textContent = nodes.length ? "" : "no supervisors";
}

function drawRestarts() {
  const canvas = $("restarts"), width = canvas.parentElement.clientWidth - 24, height = 280, span = 120000, c = prepare(canvas, width, height);
  const recent = sample.restarts.filter((r) => r.at > sample.at - span);
  const often = new Map();
  for (const r of recent) often.set(r.name, (often.get(r.name) ?? 0) + 1);
  const names = [...often.keys()].sort((a, b) => often.get(b) - often.get(a) || (a < b ? -1 : 1)).slice(0, 10);
  c.font = "12px system-ui, sans-serif"; c.textBaseline = "middle"; c.fillStyle = css("--soft");
  for (let s = 0; s <= 120; s += 30) {
    const x = 130 + (width - 160) * (1 - s / 120);
    c.fillStyle = css("--line"); c.fillRect(x, 8, 1, height - 32); c.fillStyle = css("--soft"); text(c, s ? `−${s} s` : "now", x, height - 10, 60, "center");
  }
  names.forEach((name, i) => {
    const y = 20 + i * 24;
    c.fillStyle = css("--text"); text(c, name, 0, y, 122);
    c.fillStyle = css("--bad");
    for (const r of recent) if (r.name === name) { c.beginPath(); c.arc(130 + (width - 160) * (1 - (sample.at - r.at) / span), y, 3.5, 0, 7); c.fill(); }
  });
  $("restarts-note").textContent = recent.length ? `${recent.length} in two minutes${often.size > 10 ? `, the ten most restarted of ${often.size}` : ""}` : "none in two minutes";
}

function cell(kind, value, row) {
  const d = document.createElement(kind === "spark" ? "canvas" : "span");
  if (kind === "spark") { spark(d, value, 110, 20, css("--accent")); return d; }
  if (kind) d.className = "n";
  d.textContent = value == null ? "" : kind === "rate" ? short(value) : kind === "age" ? age(value) : kind === "capacity" ? (value === -2 ? "∞" : value === -1 ? "rendezvous" : short(value)) : kind === "n" ? short(value) : value;
  if (row.state === "failed" || (value === "abandoned")) d.classList.add("bad");
  return d;
}

function drawHead() {
  const head = $("head"), columns = TABS[view.tab];
  head.style.gridTemplateColumns = columns.map((c) => c[2]).join(" ");
  head.replaceChildren(...columns.map(([key, title, , kind]) => {
    const b = document.createElement("button");
    b.textContent = title + (view.sort === key ? (view.down ? " ▾" : " ▴") : "");
    if (kind) b.className = "n";
    if (view.sort === key) b.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    b.onclick = () => { if (view.sort === key) view.down = !view.down; else { view.sort = key; view.down = Boolean(kind); } look(); };
    return b;
  }));
}

function drawRows(m) {
  if (m.tab !== view.tab) return;
  const columns = TABS[view.tab], grid = columns.map((c) => c[2]).join(" ");
  $("space").style.height = m.total * ROW + "px";
  $("visible").style.top = m.from * ROW + "px";
  $("visible").replaceChildren(...m.rows.map((r) => {
    const d = document.createElement("div");
    d.className = "row"; d.style.gridTemplateColumns = grid;
    d.append(...columns.map(([key, , , kind]) => cell(kind, r[key], r)));
    d.onclick = () => { const { spark: _, ...rest } = r; $("detail").textContent = JSON.stringify(rest, null, 2); $("detail").hidden = false; };
    return d;
  }));
  $("count").textContent = `${m.total}`;
}

function look() {
  const box = $("rows");
  view.from = Math.max(0, Math.floor(box.scrollTop / ROW) - 4);
  view.count = Math.ceil(box.clientHeight / ROW) + 8;
  drawHead();
  worker.postMessage({ kind: "view", view });
}

let drawing = false;
function draw() {
  if (drawing || !sample) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawTiles(); drawFlow(); drawTree(); drawRestarts(); });
}

worker.onmessage = (e) => {
  const m = e.data;
  if (m.kind === "sample") { sample = m; draw(); }
  else if (m.kind === "rows") drawRows(m);
  else if (m.kind === "status") {
    $("status").textContent = m.text + (m.state === "live" && sample ? ` · libklaw ${sample.version}${sample.truncated ? " · cut: too much to show" : ""}` : "");
    $("status").className = m.state;
  }
};

async function processes() {
  const list = await (await fetch("processes")).json(), select = $("process"), chosen = select.value;
  select.replaceChildren(...list.map((p) => new Option(`${p.program} (${p.pid})`, p.pid)));
  if (list.some((p) => String(p.pid) === chosen)) select.value = chosen;
  if (!list.length) { $("status").textContent = "no process offers its state: start one with KLAW_INSPECT=1"; $("status").className = "gone"; }
  return select.value !== chosen;
}
const connect = () => { if ($("process").value) worker.postMessage({ kind: "connect", pid: $("process").value, period: $("period").value }); };

$("process").onchange = $("period").onchange = connect;
$("pause").onclick = (e) => {
  const on = e.target.getAttribute("aria-pressed") !== "true";
  e.target.setAttribute("aria-pressed", on); worker.postMessage({ kind: "pause", paused: on });
};
$("filter").oninput = (e) => { view.filter = e.target.value; $("rows").scrollTop = 0; look(); };
$("rows").onscroll = look;
$("detail").onclick = () => { $("detail").hidden = true; };
addEventListener("resize", () => { draw(); look(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
$("tabs").replaceChildren(...Object.keys(TABS).map((tab) => {
  const b = document.createElement("button");
  b.textContent = TITLES[tab]; b.setAttribute("role", "tab"); b.setAttribute("aria-selected", tab === view.tab);
  b.onclick = () => {
    view.tab = tab; view.sort = TABS[tab].some((c) => c[0] === "rate") ? "rate" : TABS[tab][0][0]; view.down = view.sort === "rate";
    for (const other of $("tabs").children) other.setAttribute("aria-selected", other === b);
    $("rows").scrollTop = 0; look();
  };
  return b;
}));
look();
const refresh = async () => { if (await processes()) connect(); };
refresh();
setInterval(() => { if (!$("process").value) refresh(); else processes(); }, 5000);
