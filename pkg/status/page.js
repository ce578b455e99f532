"use strict";
// Shows what /api/events tells, once a second. What comes in is only ever made
// text, never markup, and what did not change is left alone: the keyboard and
// the screen reader keep their places.

const $ = (id) => document.getElementById(id);

const make = (tag, kind, ...inside) => {
  const e = document.createElement(tag);
  if (kind) e.className = kind;
  e.append(...inside);
  return e;
};

const draw = (tag, attributes, text) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  if (text) e.textContent = text;
  return e;
};

const write = (e, text) => { if (e.textContent !== text) e.textContent = text; };

const shown = {};
const changed = (what, value) => {
  const text = JSON.stringify(value);
  if (shown[what] === text) return false;
  shown[what] = text;
  return true;
};

const bytes = (n) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1000 && i < 4; i++) n /= 1024;
  return (i && n < 10 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
};
const lasting = (s) => s < 60 ? Math.floor(s) + " s" : s < 3600 ? Math.floor(s / 60) + " min" : Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
const clock = (time) => {
  const t = new Date(time), today = t.toDateString() === new Date().toDateString();
  return today ? t.toLocaleTimeString() : t.toLocaleString();
};

// Calls

const query = new URLSearchParams(location.search);
const token = query.get("token") || sessionStorage.getItem("token") || "";
if (query.get("token")) {
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", "/"); // not into the history, nor over a shoulder
}

let program = "vmess-local";

async function call(path, more) {
  try {
    return await fetch(path, { headers: { Authorization: "Bearer " + token }, ...more });
  } catch (e) {
    throw new Error(program + " does not answer: it has ended, or is being started again");
  }
}

async function asked(path, more) {
  const r = await call(path, more);
  if (!r.ok) throw new Error((await r.text()).trim());
  return r;
}

const act = (what, which) => asked("/api/act?what=" + what + "&which=" + encodeURIComponent(which || ""), { method: "POST" });

// each calls back with every part of a stream that ends with the mark.
async function each(stream, mark, back) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split(mark);
    rest = parts.pop();
    parts.forEach(back);
  }
}

// A button that is busy stays where the keyboard is.
function press(b, work) {
  b.onclick = async () => {
    if (b.ariaDisabled === "true") return;
    b.ariaDisabled = "true";
    write($("told"), "");
    try { await work(b); } catch (e) { write($("told"), e.message); }
    b.ariaDisabled = "false";
  };
}

function button(text, what, which, work, name) {
  const b = make("button", "", text);
  b.type = "button";
  b.dataset.act = what + ":" + which;
  b.setAttribute("aria-label", text + ": " + (name || which));
  press(b, work || (() => act(what, which)));
  return b;
}

// refill puts new children in, and the keyboard back on the button it was on,
// or on another of the same thing.
function refill(e, children) {
  const focus = e.contains(document.activeElement) && document.activeElement.dataset.act;
  e.replaceChildren(...children);
  if (!focus) return;
  const all = [...e.querySelectorAll("[data-act]")], which = focus.slice(focus.indexOf(":"));
  const b = all.find((b) => b.dataset.act === focus) || all.find((b) => b.dataset.act.endsWith(which));
  if (b) b.focus();
}

// State

function state(kind, words, advice) {
  write($("words"), words);
  $("words").className = "words " + kind;
  write($("advice"), advice || "");
  document.title = (kind === "bad" ? "✗ " : "") + program;
}

function facts(s) {
  const t = s.totals, all = [];
  const using = s.servers && s.servers.find((v) => v.using);
  if (using) all.push(["Server", using.name], ["Protection", protection(using)], ["Round trip", trip(using) || "not measured yet"]);
  all.push(["Connections", t.open + " open, " + t.opened + " in all" + (t.failed ? ", " + t.failed + " failed" : "")],
    ["Down", bytes(t.down)], ["Up", bytes(t.up)], ["Running for", lasting(t.seconds)]);
  if (s.warm) all.push(["Ready tunnels", s.warm.ready + " (" + s.warm.used + " used, " + s.warm.wasted + " wasted)"]);
  if (s.udp && (s.udp.opened || s.udp.refused)) all.push(...datagrams(s.udp));
  if (changed("facts", all)) $("facts").replaceChildren(...all.map(([k, v]) => make("div", "", make("dt", "", k), make("dd", "", v))));
}

// datagrams says how UDP travels, how much of it, and what was lost.
function datagrams(u) {
  const lost = Object.entries(u.dropped).map(([why, n]) => n + " " + why).join(", ");
  return [["UDP", u.open + " open, by " + u.form + ": " + u.nat],
    ["Datagrams", u.up + " up (" + bytes(u.upBytes) + "), " + u.down + " down (" + bytes(u.downBytes) + ")" + (lost ? "; dropped: " + lost : "")]];
}

const protection = (v) => [v.mode, v.cipher === "none" ? "no cipher" : v.cipher, v.tls ? "TLS" : "no TLS"].join(", ");
const trip = (v) => v.rttMs ? (v.rttMs < 10 ? v.rttMs.toFixed(1) : Math.round(v.rttMs)) + " ms" : "";

// Throughput

const plotTime = 120e3;
let past = [], last = null;

function measure(t) {
  const now = performance.now();
  if (last) {
    const seconds = Math.max((now - last.at) / 1000, .1);
    const rate = (key) => Math.max(0, t[key] - last[key]) / seconds;
    past.push({ at: now, up: rate("up"), down: rate("down") });
    past = past.filter((p) => now - p.at <= plotTime);
  }
  last = { at: now, up: t.up, down: t.down };
  plot(now);
}

// above returns a round number of bytes that is no less than n.
function above(n) {
  for (let unit = 1024; ; unit *= 1024)
    for (const k of [1, 2, 5, 10, 20, 50, 100, 200, 500]) if (k * unit >= n) return k * unit;
}

function plot(now) {
  const svg = $("plot"), width = svg.clientWidth, height = svg.clientHeight;
  if (!width) return;
  const left = 74, right = width - 4, bottom = height - 22, most = (key) => Math.max(0, ...past.map((p) => p[key]));
  const top = above(Math.max(most("up"), most("down")));
  const x = (at) => right - (now - at) / plotTime * (right - left), y = (n) => bottom - n / top * (bottom - 8);
  const at = (p, key) => x(p.at).toFixed(1) + " " + y(p[key]).toFixed(1);
  const line = (key) => past.length ? "M" + past.map((p) => at(p, key)).join("L") : "";
  const parts = [];
  for (const n of [0, top / 2, top]) {
    parts.push(draw("line", { class: "rule", x1: left, x2: right, y1: y(n), y2: y(n) }));
    parts.push(draw("text", { x: left - 6, y: y(n) + 4, "text-anchor": "end" }, bytes(n) + "/s"));
  }
  for (const [ago, text, anchor] of [[plotTime, "2 min ago", "start"], [plotTime / 2, "1 min ago", "middle"], [0, "now", "end"]])
    parts.push(draw("text", { x: x(now - ago), y: height - 5, "text-anchor": anchor }, text));
  if (past.length) parts.push(draw("path", { class: "under", d: line("down") + "V" + bottom + "H" + x(past[0].at).toFixed(1) + "Z" }));
  parts.push(draw("path", { class: "down", d: line("down") }), draw("path", { class: "up", d: line("up") }));
  svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  svg.replaceChildren(...parts);
  const latest = past[past.length - 1] || { up: 0, down: 0 };
  write($("down-now"), bytes(latest.down) + "/s");
  write($("up-now"), bytes(latest.up) + "/s");
  svg.setAttribute("aria-label", "Throughput of the last two minutes: down " + bytes(latest.down) + "/s now, " + bytes(most("down")) +
    "/s at most; up " + bytes(latest.up) + "/s now, " + bytes(most("up")) + "/s at most");
}
new ResizeObserver(() => plot(performance.now())).observe($("plot"));

// Servers

const phones = new Map(); // what is shown for a phone, by the server's id

function servers(list) {
  const seen = list.map((v) => ({ ...v, rttMs: trip(v) }));
  if (!changed("servers", seen)) return;
  refill($("servers"), seen.map((v) => {
    const li = make("li", ""), buttons = make("div", "buttons");
    const [kind, words] = v.using ? ["good", "in use"] : v.down ? ["bad", "failed, left alone for a while"] : ["soft", "ready"];
    li.append(make("p", "", make("b", "", v.name), " ", make("span", kind, words)),
      make("p", "soft", [v.address, protection(v), v.rttMs].filter(Boolean).join(" · ")));
    const name = v.name + (seen.some((o) => o.name === v.name && o.id !== v.id) ? ", " + v.address : "");
    if (!v.using) buttons.append(button("Use this one", "prefer", v.id, null, name));
    const b = button("QR code for a phone", "phone", v.id, (b) => phone(b, name), name);
    b.setAttribute("aria-expanded", String(phones.has(v.id)));
    buttons.append(b);
    li.append(buttons);
    if (phones.has(v.id)) li.append(phones.get(v.id));
    return li;
  }));
}

async function phone(b, name) {
  const id = b.dataset.act.slice("phone:".length), li = b.closest("li");
  if (phones.has(id)) {
    phones.get(id).remove();
    phones.delete(id);
    b.ariaExpanded = "false";
    return;
  }
  const { link, qr } = await (await asked("/api/link?server=" + encodeURIComponent(id))).json();
  const copy = button("Copy the link", "copy", id, async () => {
    await navigator.clipboard.writeText(link);
    copy.textContent = "Copied";
  }, name);
  const box = make("div", "qr", make("p", "bad", "Whoever has this can use the server as you do."), code(qr, "QR code of the link to " + name), make("code", "", link), copy);
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "For a phone: " + name);
  phones.set(id, box);
  li.append(box);
  b.ariaExpanded = "true";
}

// code draws rows of 1 (dark) and 0, with the quiet zone that readers need.
function code(rows, label) {
  const quiet = 4, size = rows.length + 2 * quiet;
  const svg = draw("svg", { viewBox: "0 0 " + size + " " + size, role: "img", "aria-label": label, "shape-rendering": "crispEdges" });
  let dark = "";
  rows.forEach((row, y) => [...row].forEach((c, x) => { if (c === "1") dark += "M" + (x + quiet) + " " + (y + quiet) + "h1v1h-1z"; }));
  svg.append(draw("path", { d: dark, fill: "#000" }));
  return svg;
}

// Failures, and what was put right

function events(id, list, words, none) {
  if (!changed(id, list)) return;
  refill($(id), list.length ? list.map((f) => {
    const times = f.count > 1 ? ", " + f.count + " times" : "";
    const li = make("li", "", make("div", "head", make("span", "soft", clock(f.time) + times + " · " + f.server), make("code", "", f.cause)), make("p", words, f.sentence));
    if (f.fix) li.append(make("p", "fix", make("b", "", "Fix: "), f.fix));
    return li;
  }) : [make("li", "soft", none)]);
}

const healing = { clock: "a wrong clock", aead: "a server that refuses MD5", earlyData: "lost early data", refused: "requests refused by mistake" };

function heal(on) {
  const list = (want) => Object.keys(healing).filter((k) => on[k] === want).map((k) => healing[k]).join(", ");
  write($("heal"), (list(true) ? "Watched for: " + list(true) + "." : "") + (list(false) ? " Turned off in “heal”: " + list(false) + "." : ""));
}

// Connections

const rows = new Map();

function row(c) {
  const end = button("End", "cut", String(c.id));
  end.setAttribute("aria-label", "End the connection to " + c.to);
  return make("tr", "", make("td", "to", c.to, make("span", "tight soft")), make("td", "roomy", c.by), make("td", "number"), make("td", "number"), make("td", "number roomy"), make("td", "", end));
}

function open(list, total) {
  write($("open-count"), list.length < total ? "the newest " + list.length + " of " + total : String(total));
  $("open-none").hidden = list.length > 0;
  $("open-table").hidden = list.length === 0;
  const seen = new Set();
  list.forEach((c, i) => {
    seen.add(c.id);
    if (!rows.has(c.id)) rows.set(c.id, row(c));
    const r = rows.get(c.id), cell = r.children;
    write(cell[0].firstChild, c.to);
    write(cell[0].lastChild, c.by + ", " + lasting(c.seconds));
    write(cell[2], bytes(c.up));
    write(cell[3], bytes(c.down));
    write(cell[4], lasting(c.seconds));
    if ($("open").children[i] !== r) $("open").insertBefore(r, $("open").children[i] || null);
  });
  for (const [id, r] of rows) if (!seen.has(id)) {
    const held = r.contains(document.activeElement), next = r.nextSibling || r.previousSibling;
    r.remove();
    rows.delete(id);
    if (held) (next ? next.querySelector("button") : $("open-region")).focus();
  }
}

function users(list) {
  if (changed("users", list)) $("users").replaceChildren(...list.map((u) => make("tr", "", make("td", "", u.name),
    ...[u.open, u.opened, bytes(u.up), bytes(u.down)].map((v) => make("td", "number", String(v))))));
}

// The whole

function show(s) {
  const failing = s.state === "failing";
  if (s.users) program = "vmess-server";
  write($("program"), program);
  write($("listens"), s.users ? "listens on " + s.listen : "SOCKS5, SOCKS4a and HTTP proxy on " + s.listen);
  const ours = (s.failures || []).filter((f) => !f.site), sites = (s.failures || []).filter((f) => f.site);
  state(failing ? "bad" : s.state === "well" ? "good" : "", s.words, failing && ours.length ? "Fix: " + ours[0].fix : "");
  facts(s);
  measure(s.totals);
  open(s.open, s.totals.open);
  for (const e of document.querySelectorAll(".client")) e.hidden = !!s.users;
  $("s-users").hidden = !s.users;
  if (s.users) { users(s.users); return; }
  servers(s.servers);
  events("failures", ours, "", "None since the start.");
  events("sites", sites, "", "");
  $("s-sites").hidden = sites.length === 0;
  events("healed", s.healed, "good", "Nothing had to be.");
  heal(s.heal);
  write($("pac"), location.origin + "/proxy.pac");
  write($("shell"), s.shell);
}

const marks = { pass: ["✓", "good"], fail: ["✗", "bad"], heal: ["↻", "good"], skip: ["–", "soft"] };

function step(v) {
  const [mark, kind] = marks[v.status];
  const sign = make("span", kind, mark);
  sign.ariaHidden = "true";
  const li = make("li", "", sign, make("span", "", make("b", "", v.name), ": ", make("span", kind, v.status), v.ms ? ", " + v.ms + " ms" : ""));
  if (v.detail) li.append(make("p", "soft", v.detail));
  return li;
}

function verdict(words, ok, fix) {
  const p = make("p", ok ? "good" : "bad", make("b", "", words)), li = make("li", "", p);
  if (fix) li.append(make("p", "fix", fix));
  return li;
}

press($("check"), async () => {
  const list = $("steps");
  list.replaceChildren();
  list.ariaBusy = "true";
  try {
    await each((await asked("/api/check", { method: "POST" })).body, "\n", (text) => {
      const v = JSON.parse(text);
      list.append(v.error ? verdict(v.error, false) : v.verdict ? verdict(v.verdict, v.ok, v.fix) : step(v));
    });
  } catch (e) {
    list.append(verdict(e.message, false));
  }
  list.ariaBusy = "false";
});

press($("reload"), async () => {
  const said = $("reloaded");
  write(said, "reading…");
  said.className = "";
  try {
    await act("reload");
    write(said, "The configuration was read again at " + clock(Date.now()) + "; open connections go on as they were.");
    said.className = "good";
  } catch (e) {
    write(said, e.message);
    said.className = "bad";
  }
});

const silence = 10e3; // without an event: the program hangs, or the computer slept
const sleep = (ms) => new Promise((ok) => setTimeout(ok, ms));

// watch shows the events of one connection, and returns why it could not go on.
async function watch() {
  const stop = new AbortController();
  let timer;
  const alive = () => { clearTimeout(timer); timer = setTimeout(() => stop.abort(), silence); };
  alive();
  try {
    const r = await call("/api/events", { signal: stop.signal });
    if (!r.ok) return { status: r.status, text: (await r.text()).trim() };
    await each(r.body, "\n\n", (text) => { alive(); queueMicrotask(() => show(JSON.parse(text.slice("data: ".length)))); });
  } catch (e) { /* the connection ended: told by what follows */ }
  clearTimeout(timer);
  return {};
}

// away says why nothing is known, and what to do.
function away({ status, text }) {
  const since = last ? " What stands below is from before." : "";
  last = null;
  past = [];
  plot(performance.now());
  if (status === 401) state("bad", "this page has no key to " + program, "Open the address that was printed at start, “status: http://…/?token=…”.");
  else if (status === 503) state("bad", text, "Close other windows that show this page; this one tries again by itself.");
  else if (status) state("bad", program + " answers " + status, text);
  else state("bad", program + " is not running", "It has ended, or is being started again. Start it with “" + program + " run”: this page comes back by itself." + since);
}

(async () => {
  for (; ;) {
    away(await watch());
    await sleep(2000);
  }
})();
