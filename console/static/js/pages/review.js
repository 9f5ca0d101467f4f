// A call afterwards: hear it, read it, see why the machine spoke or stayed silent.
import { ApiError, api } from "../api.js";
import { at, clock, dialled, h, icon, modeBadge, nameOf, party, sideOf, toast } from "../dom.js";
import { shortcut } from "../frame.js";
import { answerNotes, answerText } from "../talk.js";
import { Timeline } from "../timeline.js";

const wanted = at("call").dataset.call;
/** @type {HTMLAudioElement} */
const audio = at("audio");
const SPEEDS = [0.75, 1, 1.25, 1.5, 2];
let call, timeline, nowTurn = null;
/** @type {{start: number, end: number, element: HTMLElement}[]} words by start */
const words = [];
/** @type {{start: number, end: number, element: HTMLElement}[]} */
const turns = [];
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

async function load() {
  let told;
  try {
    call = await api(`/calls/${encodeURIComponent(wanted)}`);
    told = await api(`/calls/${encodeURIComponent(call.id)}/decisions`);
  } catch (error) {
    at("player").hidden = true;
    const again = error.status === 503;
    at("talk").replaceChildren(h("li.none", {}, `${error.message}. ${error instanceof ApiError ? error.hint : ""}`));
    if (again) setTimeout(() => location.reload(), 4000);
    return;
  }
  const duration = Math.max(call.recording?.duration_s || 0, call.duration_s || 0, ...call.utterances.map((u) => u.end_s), 1);
  head();
  drawTalk();
  side();
  const lanes = { caller: new Map(), agent: new Map() };
  for (const d of told.decisions) lanes[sideOf(d.participant)].set(d.chunk, d);
  at("player").hidden = false;
  timeline = new Timeline(at("timeline"), {
    callId: call.id, duration, hasRecording: Boolean(call.recording), lanes, markers: markers(),
    names: { caller: "Caller", agent: call.mode === "answer" ? "offhook" : "Agent" },
    textAt, onSeek: (s) => seek(s), onMarker: (marker) => { seek(marker.at); reveal(marker.id); },
  });
  if (call.recording) {
    audio.src = `/api/v1/calls/${encodeURIComponent(call.id)}/recording`;
  } else {
    at("play").disabled = true;
  }
  tick();
  const start = Number(new URLSearchParams(location.search).get("t"));
  if (start > 0) seek(start);
  refresh();
}

function head() {
  const live = !["ended", "refused", "failed"].includes(call.state);
  const title = h("h1", {}, party(call.from), icon("arrow"), dialled(call.to));
  const facts = h("div.facts", {}, modeBadge(call.mode), call.state === "ended" ? null : h("span.badge.bad", {}, call.state),
    call.started_at && h("span", {}, days.format(new Date(call.started_at))), h("span", {}, `by ${call.bridge}`), call.reason && h("span", {}, call.reason), h("span.mono", {}, call.id));
  at("callhead").replaceChildren(title, facts, h("output.big", {}, call.duration_s === null ? "" : clock(call.duration_s)));
  if (live) at("callhead").append(h("div.banner", {}, "This call is going on.", h("a.button.strong", { href: `/live/${call.id}` }, "Watch it live")));
  document.title = `${party(call.from)}, review · offhook`;
}

function markers() {
  const hints = call.hints.map((x) => ({ at: x.at_s, kind: "hint", symbol: "bulb", title: x.title, text: x.text, id: `hint:${x.id}` }));
  const answers = call.answers.map((x) => ({ at: x.at_s, kind: x.interrupted ? "cutshort" : "answer", symbol: x.interrupted ? "cut" : "voice", title: x.interrupted ? "Answer, interrupted" : "Answer", text: x.text, id: `answer:${x.id}` }));
  const notices = call.notices.map((x, index) => ({ at: x.at_s, kind: "notice", symbol: "warn", title: x.kind, text: x.text, id: `notice:${index}` }));
  return [...hints, ...answers, ...notices].sort((a, b) => a.at - b.at);
}

/** The better transcript and the summary come a little after the call: look until they are there. */
async function refresh() {
  const waiting = call.state === "ended" && call.wrap_up !== "done" && !call.wrap_up.startsWith("failed");
  if (!waiting || Date.now() - Date.parse(call.ended_at || "") > 600_000) return;
  await new Promise((resolve) => { setTimeout(resolve, 3000); });
  try {
    const before = call.wrap_up;
    const newer = await api(`/calls/${encodeURIComponent(call.id)}`);
    if (newer.wrap_up !== before) {
      call = newer;
      drawTalk();
      side();
    }
  } catch { /* the next look may find it */ }
  refresh();
}

/** What a side said around a moment. */
function textAt(which, s) {
  const near = call.utterances.filter((u) => sideOf(u.participant) === which && u.start_s - 0.6 <= s && s <= u.end_s + 0.6);
  const around = near.flatMap((u) => u.words.filter((w) => w.end_s > s - 1.6 && w.start_s < s + 2));
  if (around.length) return `“… ${around.map((w) => w.text).join(" ")} …”`;
  const spoken = which === "agent" && call.answers.findLast((a) => a.at_s <= s && s < a.at_s + 1 + a.heard_text.length / 14);
  return near[0] ? `“${near[0].text.slice(0, 90)}”` : spoken ? `“${spoken.heard_text.slice(0, 90)}”` : "";
}

function drawTalk() {
  words.length = turns.length = 0;
  nowTurn = null;
  const items = [
    // What the voice agent said stands in its answers, exactly; a recogniser's version of it would say it twice.
    ...call.utterances.filter((u) => u.participant !== "voice_agent" || !call.answers.length).map((u) => ({ at: u.start_s, node: utterance(u) })),
    ...call.answers.map((a) => ({ at: a.at_s, node: answer(a) })),
    ...call.hints.map((x) => ({ at: x.at_s, node: h("li.event.hintmark", { id: `hint:${x.id}` }, icon("bulb"), h("button", { type: "button", onclick: () => seek(x.trigger_s) }, x.title), h("time", {}, clock(x.at_s))) })),
    ...call.notices.map((x, index) => ({ at: x.at_s, node: h("li.event.notice", { id: `notice:${index}` }, icon("warn"), x.text, h("time", {}, clock(x.at_s))) })),
  ].sort((a, b) => a.at - b.at);
  at("talk").replaceChildren(...(items.length ? items.map((item) => item.node) : [h("li.none", {}, call.state === "refused" ? `The call was not answered: ${call.reason || "refused"}.` : "Nothing was said.")]));
  words.sort((a, b) => a.start - b.start);
  turns.sort((a, b) => a.start - b.start);
}

function meta(who, s) {
  return h("div.meta", {}, h("span.name", {}, nameOf(who)), h("button", { type: "button", tabindex: "-1", "aria-label": `Play from ${clock(s)}`, onclick: () => play(s) }, clock(s)));
}

function utterance(u) {
  const spans = u.words.flatMap((w, index) => {
    const element = h("span.w", { "data-start": w.start_s }, w.text);
    words.push({ start: w.start_s, end: w.end_s, element });
    return index ? [" ", element] : [element];
  });
  const text = h("div.text", {}, ...(spans.length ? spans : [u.text]));
  const element = h(`li.turn.by-${sideOf(u.participant)}`, { tabindex: "0", "data-item": true, "data-start": u.start_s, id: `u:${u.id}` }, meta(u.participant, u.start_s), text);
  turns.push({ start: u.start_s, end: u.end_s, element });
  return element;
}

function answer(a) {
  const seen = { text: a.text, heard: a.heard_text, interrupted: a.interrupted, state: "over", responseMs: a.response_ms, sources: a.sources };
  const notes = answerNotes(seen);
  const element = h("li.turn.by-agent.spoken", { tabindex: "0", "data-item": true, "data-start": a.at_s, id: `answer:${a.id}` },
    meta("voice_agent", a.at_s), h("div.text", {}, ...answerText(seen)), notes.length > 0 && h("div.meta", {}, ...notes));
  const next = [...call.answers.map((x) => x.at_s), ...call.utterances.map((u) => u.start_s)].filter((s) => s > a.at_s + 0.5).sort((x, y) => x - y)[0] ?? Infinity;
  turns.push({ start: a.at_s, end: Math.min(next, a.at_s + 0.5 + a.heard_text.length / 14), element });
  return element;
}

const card = (title, ...children) => h("section.card", {}, h("h2", {}, title), ...children);

function side() {
  const parts = [];
  const wrap = call.wrap_up.startsWith("failed") ? `The summary could not be written: ${call.wrap_up.slice(7).trim()}` : call.state === "refused" ? "" : call.wrap_up === "done" ? "" : "The better transcript and the summary are being written.";
  parts.push(card("Summary", call.summary && h("p.summary", {}, call.summary), call.disposition && h("div", {}, h("span.badge", {}, call.disposition)), !call.summary && h("p.quiet", {}, wrap || "There is no summary.")));
  parts.push(decisionCard());
  if (call.hints.length) parts.push(card(`Hints · ${call.hints.length}`, h("ol.list", {}, ...call.hints.map((x) => listed(x.at_s, x.trigger_s, x.title, `${x.source}${x.verdict ? ` · ${x.verdict}` : ""} · ${x.score.toFixed(2)}`, `hint:${x.id}`)))));
  if (call.answers.length) {
    const times = call.answers.map((x) => x.response_ms).filter((ms) => ms !== null).sort((a, b) => a - b);
    const median = times.length ? ` · median ${times[Math.floor(times.length / 2)]} ms` : "";
    parts.push(card(`Answers · ${call.answers.length}${median}`, h("ol.list", {}, ...call.answers.map((x) => listed(x.at_s, x.at_s, x.heard_text.slice(0, 70) || "(not heard)", [x.interrupted && "interrupted", x.response_ms !== null && `${x.response_ms} ms`, x.sources.join(", ")].filter(Boolean).join(" · "), `answer:${x.id}`)))));
  }
  if (call.notices.length) parts.push(card("Notices", h("ol.list", {}, ...call.notices.map((x, index) => listed(x.at_s, x.at_s, x.text, x.kind, `notice:${index}`)))));
  const path = `/api/v1/calls/${encodeURIComponent(call.id)}`;
  parts.push(card("Downloads", h("div.downloads", {},
    call.recording && h("a.button", { href: `${path}/recording?download=1`, download: `offhook-${call.id}.wav` }, icon("down"), "Recording"),
    h("a.button", { href: path, download: `offhook-${call.id}.json` }, icon("down"), "JSON")),
    call.recording && !call.recording.complete && h("p.quiet", {}, "The recording stops before the call did.")));
  at("side").replaceChildren(...parts);
}

function listed(shown, from, title, small, id) {
  return h("li", {}, h("time", {}, clock(shown)), h("div", {}, h("button", { type: "button", onclick: () => { seek(from); reveal(id); } }, title), small && h("small", {}, small)));
}

function decisionCard() {
  const d = call.decisions;
  const stack = h("div.stack", { role: "img", "aria-label": `${d.silent} silent, ${d.transcribe} transcribe, ${d.assist} assist, ${d.answer} answer` },
    ...["silent", "transcribe", "assist", "answer"].filter((choice) => d[choice]).map((choice) => {
      const part = h(`i.c-${choice}`);
      part.style.flex = `${d[choice]} 0 0`;
      return part;
    }));
  const legend = h("ul.legend", {}, ...["silent", "transcribe", "assist", "answer"].filter((choice) => d[choice]).map((choice) => h(`li.c-${choice}`, {}, `${d[choice]} ${choice}`)));
  const late = d.missed_deadlines ? `${d.missed_deadlines} missed the deadline.` : "None missed its deadline.";
  return card(`Decisions · ${d.chunks}`, stack, legend, h("p.quiet", {}, d.chunks ? late : "Nothing was decided on this call."));
}

// --- playing ------------------------------------------------------------------------------------------------------

let wantedTime = null; // asked for before the recording's length was known

let readSoon = 0;

function seek(s) {
  if (audio.paused) {
    // Bring what was said there into view, once the reader has found the place.
    clearTimeout(readSoon);
    readSoon = setTimeout(() => nowTurn?.element.scrollIntoView({ block: "nearest", behavior: "smooth" }), 200);
  }
  if (!call.recording) return show(s);
  if (audio.readyState === 0) wantedTime = s;
  else audio.currentTime = s;
  show(s);
}

function play(s) {
  seek(s);
  if (call.recording) audio.play().catch((error) => toast("It cannot be played", error.message));
}

function toggle() {
  if (!call?.recording) return;
  if (audio.paused) play(audio.ended ? 0 : wantedTime ?? audio.currentTime);
  else audio.pause();
}

const lit = new Set();

/** Light up what is heard at a moment. */
function show(s) {
  timeline?.setPlayhead(s, !audio.paused);
  at("clock").replaceChildren(clock(s, true), h("small", {}, ` / ${clock(timeline?.duration || 0)}`));
  const hearing = new Set();
  // Binary search for the first word that begins after now; the ones being heard are a few places before it.
  let low = 0, high = words.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (words[middle].start <= s) low = middle + 1; else high = middle;
  }
  for (let index = low - 1; index >= 0 && words[index].start > s - 6; index -= 1) {
    if (s < words[index].end && s > 0) hearing.add(words[index].element);
  }
  for (const element of lit) if (!hearing.has(element)) { element.classList.remove("lit"); lit.delete(element); }
  for (const element of hearing) if (!lit.has(element)) { element.classList.add("lit"); lit.add(element); }
  const turn = s > 0 ? turns.findLast((each) => each.start <= s && s < each.end + 0.3) : null;
  if (turn && turn !== nowTurn) {
    nowTurn?.element.classList.remove("now");
    turn.element.classList.add("now");
    nowTurn = turn;
    if (!audio.paused && performance.now() - scrolledByReader > 4000) turn.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

let scrolledByReader = -1e9;
for (const event of ["wheel", "touchmove"]) addEventListener(event, () => { scrolledByReader = performance.now(); }, { passive: true });

function tick() {
  if (audio.readyState > 0 || !audio.src) show(audio.src ? audio.currentTime : 0);
  else show(wantedTime ?? 0);
  if (!audio.paused) requestAnimationFrame(tick);
}

audio.addEventListener("loadedmetadata", () => {
  if (wantedTime !== null) audio.currentTime = wantedTime;
  wantedTime = null;
});
audio.addEventListener("seeked", () => show(audio.currentTime));
audio.addEventListener("error", () => toast("The recording cannot be played", "See the call's notices, or look into the recordings folder."));
for (const event of ["play", "pause", "ended"]) {
  audio.addEventListener(event, () => {
    const playing = !audio.paused;
    at("play").replaceChildren(icon(playing ? "pause" : "play"));
    at("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    if (event === "play") requestAnimationFrame(tick);
  });
}

at("play").addEventListener("click", toggle);
at("talk").addEventListener("click", (event) => {
  const word = event.target.closest(".w");
  if (word) play(Number(word.dataset.start));
});

function reveal(id) {
  const element = document.getElementById(id);
  element?.scrollIntoView({ block: "center", behavior: "smooth" });
  element?.focus({ preventScroll: true });
}

function setSpeed(speed) {
  audio.playbackRate = speed;
  for (const button of at("speeds").children) button.setAttribute("aria-pressed", String(Number(button.dataset.speed) === speed));
}
at("speeds").append(...SPEEDS.map((speed) => h("button", { type: "button", "data-speed": speed, onclick: () => setSpeed(speed) }, `${speed}×`)));
setSpeed(1);
at("zoom-in").addEventListener("click", () => timeline?.zoom(0.5));
at("zoom-out").addEventListener("click", () => timeline?.zoom(2));
at("zoom-fit").addEventListener("click", () => timeline?.fit());

const here = () => wantedTime ?? (call?.recording ? audio.currentTime : timeline?.playhead || 0);
const nextOf = (moments, by) => {
  const sorted = [...new Set(moments)].sort((a, b) => a - b);
  const found = by > 0 ? sorted.find((s) => s > here() + 0.05) : sorted.findLast((s) => s < here() - 0.05);
  if (found !== undefined) seek(found);
};
const step = (by) => {
  const all = [...at("talk").querySelectorAll("[data-item]")];
  const place = all.indexOf(document.activeElement?.closest("[data-item]"));
  const next = all[Math.min(all.length - 1, Math.max(0, place < 0 ? 0 : place + by))];
  next?.focus({ preventScroll: true });
  next?.scrollIntoView({ block: "nearest" });
};
shortcut(" ", "Play or pause", toggle);
shortcut(["ArrowLeft", "ArrowRight"], "Back or on by 2 s", (event) => seek(Math.max(0, Math.min(timeline.duration, here() + (event.key === "ArrowLeft" ? -2 : 2)))));
shortcut(["j", "k"], "Next or previous turn", (event) => step(event.key === "j" ? 1 : -1));
shortcut("Enter", "Play from the turn in focus", () => {
  const turn = document.activeElement?.closest("[data-start]");
  if (turn) play(Number(turn.dataset.start));
});
shortcut(["n", "p"], "Next or previous hint", (event) => nextOf(call.hints.map((x) => x.trigger_s), event.key === "n" ? 1 : -1));
shortcut(["m", "M"], "Next or previous answer", (event) => nextOf(call.answers.map((x) => x.at_s), event.key === "m" ? 1 : -1));
shortcut(["+", "="], "Zoom in", () => timeline?.zoom(0.5));
shortcut("-", "Zoom out", () => timeline?.zoom(2));
shortcut("0", "Whole call", () => timeline?.fit());
shortcut([",", "."], "Slower or faster", (event) => setSpeed(SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(audio.playbackRate) + (event.key === "." ? 1 : -1)))]));

load();
