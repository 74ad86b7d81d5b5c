// SPDX-License-Identifier: Apache-2.0
// worker.js - receives snapshots, keeps the history, sorts and filters: all that grows with the program that is
// looked at happens here, so that the page draws a bounded amount however large that is.
"use strict";

const KEEP = 120; // samples of a sparkline
const SHOWN_CHANNELS = 24, SHOWN_HOSTS = 40, SHOWN_CHILDREN = 60, KEPT_RESTARTS = 2000;

let source = null, last = null, lastAt = 0, paused = false;
const history = new Map(); // "c<id>" or "a<id>" -> {rate, depth, total, values, seen}
const totals = { rate: [], queued: [], restarts: [], mail: [] };
const restartsSeen = new Map(), restarts = [];
let tick = 0;
let view = { tab: "channels", sort: "rate", down: true, filter: "", from: 0, count: 30 };
let rows = [];

const push = (list, v) => { list.push(v); if (list.length > KEEP) list.shift(); };

function remember(key, total, depth, seconds) {
  let h = history.get(key);
  if (!h) { h = { rate: 0, total, values: [], seen: 0 }; history.set(key, h); }
  h.rate = seconds > 0 ? Math.max(0, (total - h.total) / seconds) : 0;
  h.total = total;
  h.seen = tick;
  push(h.values, depth);
  return h;
}

function noteRestarts(key, name, count, at) {
  const before = restartsSeen.get(key);
  restartsSeen.set(key, count);
  const more = before === undefined ? 0 : count - before;
  for (let i = 0; i < Math.min(more, 50); i++) restarts.push({ at, name });
  if (restarts.length > KEPT_RESTARTS) restarts.splice(0, restarts.length - KEPT_RESTARTS);
  return more > 0 ? more : 0;
}

function take(snapshot, at) {
  const seconds = lastAt ? (at - lastAt) / 1000 : 0;
  tick++;
  let rate = 0, queued = 0, mail = 0, again = 0;
  for (const c of snapshot.channels) {
    const h = remember("c" + c.id, c.total_sent, c.queue_size, seconds);
    c.rate = h.rate; c.spark = h.values; rate += h.rate; queued += c.queue_size;
    c.waiting = c.waiting_senders + c.waiting_receivers;
  }
  for (const a of snapshot.actors) {
    const h = remember("a" + a.id, a.handled ?? 0, a.mailbox_size ?? a.mailbox ?? 0, seconds);
    a.rate = h.rate; a.spark = h.values; mail += h.values[h.values.length - 1];
    again += noteRestarts("a" + a.id, a.name, a.restarts ?? 0, at);
  }
  for (const s of snapshot.supervisions)
    again += noteRestarts("s" + s.supervisor_id + "/" + s.name, s.name, s.restarts ?? 0, at);
  if (tick % 30 === 0) for (const [key, h] of history) if (h.seen !== tick) history.delete(key);
  push(totals.rate, rate); push(totals.queued, queued); push(totals.mail, mail); push(totals.restarts, again);
  last = snapshot; lastAt = at;
}

// The tree: supervisors with their children, at most SHOWN_CHILDREN of each (the ones with restarts first).
function tree() {
  const children = new Map();
  for (const c of last.supervisions) {
    if (!children.has(c.supervisor_id)) children.set(c.supervisor_id, []);
    children.get(c.supervisor_id).push(c);
  }
  const byId = new Map(last.supervisors.map((s) => [s.id, s]));
  const build = (s, depth) => {
    const all = children.get(s.id) ?? [];
    const some = all.length > SHOWN_CHILDREN
      ? all.slice().sort((a, b) => (b.restarts - a.restarts) || (a.state === "running") - (b.state === "running")).slice(0, SHOWN_CHILDREN)
      : all;
    return {
      name: s.name, kind: s.strategy, state: s.stopping ? "stopping" : "running", restarts: s.restarts, more: all.length - some.length,
      children: depth > 12 ? [] : some.map((c) => c.kind === "supervisor" && byId.has(c.id)
        ? build(byId.get(c.id), depth + 1)
        : { name: c.name, kind: c.kind, state: c.abandoned ? "abandoned" : c.state, restarts: c.restarts, more: 0, children: [] }),
    };
  };
  return last.supervisors.filter((s) => !byId.has(s.parent_id)).slice(0, 20).map((s) => build(s, 0));
}

// The graph: hosts of one name are one node; an edge is a name that sends to, or receives from, a channel.
function flow() {
  const named = new Map();
  for (const f of last.fibers) named.set("fiber" + f.id, f.name);
  for (const a of last.actors) if (a.fiber_id) named.set("fiber" + a.fiber_id, a.name);
  const busiest = last.channels.slice().sort((a, b) => b.rate - a.rate || b.waiting - a.waiting || b.queue_size - a.queue_size).slice(0, SHOWN_CHANNELS);
  const shown = new Map(busiest.map((c) => [c.id, { id: c.id, name: c.name, rate: c.rate, depth: c.queue_size, capacity: c.capacity,
    waitingSenders: c.waiting_senders, waitingReceivers: c.waiting_receivers }]));
  const edges = new Map();
  const add = (channel, sends, host, id) => {
    if (!shown.has(channel)) return;
    // "counter 17" and "counter 18" are one node: counter *.
    const name = (named.get(host + id) ?? (id ? host + " " + id : host)).replace(/[ -]?\d+$/, "");
    const key = channel + (sends ? ">" : "<") + name;
    const e = edges.get(key);
    if (e) e.count++; else edges.set(key, { channel, sends, name, count: 1 });
  };
  for (const e of last.endpoints) if (e.used) add(e.channel_id, e.sender, e.host, e.host_id);
  for (const w of last.waits) if (w.channel_id) add(w.channel_id, w.sends, w.host, w.host_id);
  return { channels: [...shown.values()], edges: [...edges.values()].slice(0, SHOWN_HOSTS * 4), total: last.channels.length };
}

function choose() {
  if (!last) return;
  const text = view.filter.toLowerCase();
  const all = last[view.tab] ?? [];
  rows = text ? all.filter((r) => String(r.name ?? "").toLowerCase().includes(text)) : all.slice();
  const key = view.sort, sign = view.down ? -1 : 1;
  rows.sort((a, b) => {
    const x = a[key] ?? "", y = b[key] ?? "";
    return x < y ? -sign : x > y ? sign : (a.id ?? 0) - (b.id ?? 0);
  });
}

function sendRows() {
  if (!last) return;
  postMessage({ kind: "rows", total: rows.length, from: view.from, rows: rows.slice(view.from, view.from + view.count), tab: view.tab });
}

function sendAll() {
  choose();
  const count = (k) => last[k]?.length ?? 0;
  postMessage({
    kind: "sample", totals, at: lastAt, restarts, tree: tree(), flow: flow(), truncated: last.truncated, time: last.time, version: last.version,
    counts: { channels: count("channels"), fibers: count("fibers"), tasks: count("tasks"), actors: count("actors"), supervisors: count("supervisors") },
  });
  sendRows();
}

function connect(pid, period) {
  source?.close();
  last = null; lastAt = 0; history.clear(); restartsSeen.clear(); restarts.length = 0;
  for (const key of Object.keys(totals)) totals[key].length = 0;
  source = new EventSource(`events?pid=${pid}&period=${period}`);
  source.addEventListener("snapshot", (e) => {
    if (paused) return;
    const begun = performance.now();
    take(JSON.parse(e.data), Date.now());
    sendAll();
    postMessage({ kind: "status", text: "live", state: "live", cost: performance.now() - begun });
  });
  source.addEventListener("gone", (e) => {
    source.close();
    postMessage({ kind: "status", text: JSON.parse(e.data).why, state: "gone" });
  });
  source.onerror = () => postMessage({ kind: "status", text: "no connection to klaw ui", state: "gone" });
}

onmessage = (e) => {
  const m = e.data;
  if (m.kind === "connect") connect(m.pid, m.period);
  else if (m.kind === "pause") paused = m.paused;
  else if (m.kind === "view") {
    const again = m.view.tab !== view.tab || m.view.sort !== view.sort || m.view.down !== view.down || m.view.filter !== view.filter;
    view = m.view;
    if (again) choose();
    sendRows();
  }
};
