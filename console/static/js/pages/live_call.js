// One live call: transcript, decision strip, hints with verdicts.
import { ApiError, LiveSocket, api } from "../api.js";
import { CallState } from "../call_state.js";
import { announce, at, clock, dialled, h, icon, modeBadge, party, perFrame, sideOf, toast } from "../dom.js";
import { shortcut } from "../frame.js";
import { LiveStrip } from "../strip.js";
import { Talk } from "../talk.js";

const id = at("call").dataset.call;
const path = encodeURIComponent(id);
const call = new CallState();
const talk = new Talk(at("talk"), at("jump"), call);
const strip = new LiveStrip(at("strip"));
let link = "connecting";
let current = ""; // the hint that a and d judge: the newest one, until the reader chooses another
let chosen = false;
let began = performance.now();

const drawStrip = perFrame(() => {
  strip.lanes = ["caller", "agent"].map((side) => Object.entries(call.decisions).find(([who]) => sideOf(who) === side)?.[1] || new Map());
  strip.spoken = [...call.answers.values()].filter((a) => a.at < Infinity).map((a) => ({ from: a.at, to: a.end ?? Infinity, cut: a.interrupted }));
  strip.draw();
  const c = call.counts;
  at("strip").setAttribute("aria-label", `${c.chunks} decisions: ${c.silent} silent, ${c.transcribe} transcribe, ${c.assist} assist, ${c.answer} answer`);
});

const LINKS = { live: "live", connecting: "connecting", lost: "connection lost, trying again", over: "ended", unknown: "not live" };

const drawHead = perFrame(() => {
  const a = call.about;
  const head = at("callhead");
  const title = h("h1", {}, party(a.from), icon("arrow"), dialled(a.to));
  const facts = h("div.facts", {}, modeBadge(a.mode), h("span", {}, a.state), a.bridge && h("span", {}, `by ${a.bridge}`), a.model && h("span", {}, `${a.model} on ${a.worker}`), h("span.mono", {}, id));
  const pill = h("span.pill", { "data-state": link, id: "link" }, h("i"), h("span", {}, LINKS[link]));
  const parts = [title, facts, pill, h("output.big", { id: "clock" })];
  if (call.over) parts.push(h("div.banner", {}, `The call has ended: ${a.reason || a.state}.`, h("a.button.strong", { href: `/calls/${path}` }, "Review it")));
  if (link === "unknown") parts.push(h("div.banner", {}, "This call is not live any more, or never was.", h("a.button", { href: `/calls/${path}` }, "Look among past calls")));
  head.replaceChildren(...parts);
  at("side-title").textContent = a.mode === "answer" ? "Answers" : "Hints";
  at("lane-agent").textContent = a.mode === "answer" ? "offhook" : "Agent";
  document.title = `${party(a.from)} · offhook`;
  tick();
});

function tick() {
  const output = at("clock");
  if (!output) return;
  const a = call.about;
  const s = a.duration ?? (a.startedAt ? Date.now() / 1000 - a.startedAt : null);
  output.textContent = s === null ? "ringing" : clock(s);
}

async function judge(hint, verdict) {
  if (call.over) return;
  try {
    await api(`/calls/${path}/hints/${encodeURIComponent(hint)}/verdict`, { method: "POST", body: JSON.stringify({ verdict }) });
    call.onHintJudged({ hint_id: hint, verdict });
    drawHints();
  } catch (error) {
    toast(error.message, error instanceof ApiError ? error.hint : "");
  }
}

const shown = new Set();
const drawHints = perFrame(() => {
  const hints = [...call.hints.values()].sort((a, b) => b.at_s - a.at_s);
  if (!chosen || !hints.some((hint) => hint.id === current && !hint.verdict)) {
    current = hints.find((hint) => !hint.verdict)?.id || "";
    chosen = false;
  }
  const cards = hints.map((hint) => {
    const fresh = !shown.has(hint.id);
    if (fresh && performance.now() - began > 1500) announce(`Hint: ${hint.title}. ${hint.text}`);
    shown.add(hint.id);
    return hintCard(hint, fresh);
  });
  if (call.about.mode === "answer") cards.push(...answerCards());
  if (!cards.length) {
    const text = call.about.mode === "answer" ? "Nothing was said yet." : "Nothing to add yet. Hints appear here within a second of the words that call for them.";
    cards.push(h("li.card", {}, h("p.quiet", {}, text)));
  }
  const focused = document.activeElement?.closest?.(".hint")?.dataset.hint;
  at("hints").replaceChildren(...cards);
  if (focused) at("hints").querySelector(`[data-hint="${CSS.escape(focused)}"]`)?.focus();
});

/** What the voice agent said, newest first: how fast, standing on what, and whether it was heard to its end. */
function answerCards() {
  const answers = [...call.answers.values()].filter((a) => a.text).sort((a, b) => b.at - a.at);
  return answers.map((a) => h(`li.hint.spoken${a.state === "playing" ? ".current" : ""}${a.interrupted ? ".cutshort" : ""}`, {},
    h("header", {}, h("h3", {}, { waiting: "About to say", playing: "Saying now", paused: "Paused: the caller speaks", over: a.interrupted ? "Interrupted" : "Said" }[a.state]),
      a.responseMs !== null && h("span.scored", { title: "end of the caller's speech to the first sound" }, icon("clock"), `${a.responseMs} ms`),
      h("time", {}, a.at < Infinity ? clock(a.at) : "")),
    h("p.brief", {}, a.state === "over" ? a.heard || "(not heard)" : a.text),
    a.sources.length > 0 && h("footer", {}, h("span.source", {}, icon("book"), h("span", {}, a.sources.join(", "))))));
}

function hintCard(hint, fresh) {
  const bar = h("i");
  bar.style.width = `${Math.round(hint.score * 100)}%`;
  const keys = hint.id === current;
  const verdict = hint.verdict
    ? [h("span.verdict", {}, icon(hint.verdict === "accepted" ? "check" : "x"), hint.verdict)]
    : [
        h("button.small.yes", { type: "button", onclick: () => judge(hint.id, "accepted") }, icon("check"), "Accept", keys && h("kbd", {}, "a")),
        h("button.small", { type: "button", onclick: () => judge(hint.id, "dismissed") }, icon("x"), "Dismiss", keys && h("kbd", {}, "d")),
      ];
  return h(`li.hint${fresh ? ".fresh" : ""}${keys ? ".current" : ""}${hint.verdict ? `.${hint.verdict}` : ""}`, { tabindex: "-1", "data-hint": hint.id, "data-item": true },
    h("header", {}, h("h3", {}, hint.title), h("time", {}, clock(hint.at_s))),
    h("p", {}, hint.text),
    h("footer", {}, h("span.source", { title: hint.source }, icon("book"), h("span", {}, hint.source)), h("span.scored", { title: "score" }, hint.score.toFixed(2), h("span.score", { "aria-hidden": "true" }, bar))),
    h("footer", {}, ...verdict));
}

new LiveSocket(`/calls/${path}/live`, (event) => {
  const { part } = call.apply(event);
  if (part === "talk") {
    talk.draw();
    if (call.about.mode === "answer") drawHints();
  }
  else if (part === "decision") drawStrip();
  else if (part === "hint") drawHints();
  else if (part === "about") { drawHead(); drawHints(); if (call.over) announce("The call has ended."); }
}, (state) => {
  link = call.over && state === "over" ? "over" : state;
  drawHead();
});

drawHints();
setInterval(tick, 500);
for (const event of ["themechange", "resize"]) addEventListener(event, drawStrip);
shortcut("a", "Accept the hint in the frame", () => current && judge(current, "accepted"));
shortcut("d", "Dismiss it", () => current && judge(current, "dismissed"));
const open = () => [...call.hints.values()].sort((a, b) => b.at_s - a.at_s).filter((hint) => !hint.verdict);
const move = (by) => {
  const hints = open();
  const place = hints.findIndex((hint) => hint.id === current);
  const next = hints[Math.min(hints.length - 1, Math.max(0, place + by))];
  if (!next) return;
  current = next.id;
  chosen = true;
  drawHints();
  requestAnimationFrame(() => at("hints").querySelector(".current")?.scrollIntoView({ block: "nearest" }));
};
shortcut(["n", "j"], "Next hint", () => move(1));
shortcut(["p", "k"], "Previous hint", () => move(-1));
shortcut(["End", "e"], "To the newest words", () => talk.toEnd());
shortcut("r", "Review this call", () => location.assign(`/calls/${path}`));
