// Live calls: one row a call, moving.
import { LiveSocket } from "../api.js";
import { at, clock, dialled, h, icon, modeBadge, nameOf, party, perFrame, sideOf } from "../dom.js";
import { listKeys } from "../frame.js";
import { LiveStrip } from "../strip.js";

/** @type {Map<string, any>} */
const calls = new Map();
/** @type {Map<string, {row: HTMLElement, parts: Record<string, HTMLElement>, strip: LiveStrip}>} */
const rows = new Map();
const list = at("calls");
let ahead = 0; // how far the server's clock is ahead of ours, seconds
let known = false;

function makeRow(call) {
  const parts = {
    dot: h("i.dot"), who: h("span.who"), sub: h("div.sub"), last: h("div.last"), counts: h("div.counts"), clock: h("output.clock"),
  };
  const canvas = h("canvas", { "aria-hidden": "true" });
  const link = h("a.row", { href: `/live/${call.id}`, "data-item": true },
    h("div", {}, parts.who, parts.sub), h("div.lastcell", {}, parts.last), h("div.stripcell", {}, canvas), parts.counts, parts.clock);
  const row = h("li", {}, link);
  rows.set(call.id, { row, parts, strip: new LiveStrip(/** @type {any} */ (canvas), 3) });
  return row;
}

function fill(call) {
  const { parts, strip } = rows.get(call.id);
  parts.who.replaceChildren(party(call.from));
  parts.who.title = `${call.from} → ${call.to}`;
  parts.dot.className = `dot ${call.started_at ? "" : "ringing"}`;
  parts.sub.replaceChildren(parts.dot, modeBadge(call.mode), `${call.bridge} → ${dialled(call.to)}`);
  const said = call.saying ? { participant: "voice_agent", text: call.saying.text, final: true } : call.last_words;
  parts.last.className = `last ${said ? `by-${sideOf(said.participant)}` : ""}${said && !said.final ? " partial" : ""}`;
  parts.last.replaceChildren(...(said ? [h("b", {}, nameOf(said.participant)), said.text] : [call.started_at ? "Listening" : "Ringing"]));
  const counts = [];
  if (call.hints) counts.push(h("span.count.warm", { title: "hints" }, icon("bulb"), call.hints));
  if (call.answers) counts.push(h("span.count", { title: "answers" }, icon("voice"), call.answers));
  if (call.notices) counts.push(h("span.count", { title: "notices" }, icon("warn"), call.notices));
  parts.counts.replaceChildren(...counts);
  strip.lanes = ["caller", "agent"].map((side) => {
    const found = Object.entries(call.strips).find(([who]) => sideOf(who) === side);
    return new Map((found?.[1].cells || []).map(([choice, score], index) => [found[1].first + index, { choice, score, late: false }]));
  });
  strip.draw();
}

function tick() {
  for (const call of calls.values()) {
    const s = call.started_at ? Date.now() / 1000 + ahead - Date.parse(call.started_at) / 1000 : null;
    rows.get(call.id)?.parts.clock.replaceChildren(s === null ? "ringing" : clock(s));
  }
}

const draw = perFrame(() => {
  const newestFirst = [...calls.values()].sort((a, b) => (a.offered_at < b.offered_at ? 1 : -1));
  for (const id of rows.keys()) {
    if (!calls.has(id)) {
      rows.get(id).row.remove();
      rows.delete(id);
    }
  }
  newestFirst.forEach((call, index) => {
    const row = rows.get(call.id)?.row || makeRow(call);
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] || null);
    fill(call);
  });
  tick();
  at("empty").hidden = !known || calls.size > 0;
  const by = (mode) => newestFirst.filter((call) => call.mode === mode).length;
  const figures = [["answer", "answering"], ["assist", "assisting"], ["transcribe", "transcribing"]].filter(([mode]) => by(mode));
  at("figures").replaceChildren(...figures.map(([mode, label]) => h("span", {}, h("b", {}, by(mode)), ` ${label}`)));
  document.title = calls.size ? `(${calls.size}) Live calls · offhook` : "Live calls · offhook";
});

new LiveSocket("/live", (message) => {
  if (message.now) ahead = message.now - Date.now() / 1000;
  if (message.type === "calls") {
    known = true;
    calls.clear();
    for (const call of message.calls) calls.set(call.id, call);
  } else if (message.type === "call") calls.set(message.call.id, message.call);
  else if (message.type === "gone") calls.delete(message.id);
  draw();
}, (state) => {
  at("link").dataset.state = state;
  at("link").querySelector("span").textContent = { live: "live", connecting: "connecting", lost: "connection lost, trying again" }[state] || state;
});

setInterval(tick, 1000);
addEventListener("themechange", draw);
addEventListener("resize", draw);
listKeys(() => [...list.querySelectorAll("[data-item]")], "call");
