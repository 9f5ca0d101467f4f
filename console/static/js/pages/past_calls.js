// Past calls: search, filters, pages. What is asked for stands in the address, so it can be kept and sent.
import { ApiError, api } from "../api.js";
import { at, clock, dialled, h, marked, modeBadge, party } from "../dom.js";
import { listKeys, shortcut } from "../frame.js";

const PAGE = 30;
const form = at("filters");
const asked = new URLSearchParams(location.search);
for (const name of ["search", "mode", "state"]) form.elements[name].value = asked.get(name) || "";
let offset = Math.max(0, Number(asked.get("offset")) || 0);
let running = new AbortController();

const days = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const hours = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const OUTCOMES = { ended: "ended", refused: "refused", failed: "failed" };

function row(call) {
  const when = new Date(call.started_at || call.offered_at);
  const gist = call.headline ? ["… ", ...marked(call.headline), " …"] : [call.summary || (OUTCOMES[call.state] ? call.reason : "The call is going on.")];
  const live = !OUTCOMES[call.state];
  const mark = live ? h("span.badge.answer", {}, h("i.dot"), "live") : call.state === "ended" ? call.disposition && h("span.badge", {}, call.disposition) : h("span.badge.bad", {}, call.state);
  return h("li", {}, h("a.row", { href: live ? `/live/${call.id}` : `/calls/${call.id}`, "data-item": true },
    h("div.when", {}, h("b", {}, hours.format(when)), days.format(when)),
    h("div", {}, h("div.who", { title: `${call.from} → ${call.to}` }, party(call.from)), h("div.sub", {}, modeBadge(call.mode), `→ ${dialled(call.to)}`)),
    h("div.gistcell", {}, h("div.gist", {}, ...gist)),
    h("div.counts", {}, mark),
    h("output.clock", {}, call.duration_s === null ? "" : clock(call.duration_s))));
}

async function load() {
  running.abort();
  running = new AbortController();
  const query = new URLSearchParams({ limit: String(PAGE), offset: String(offset) });
  const kept = new URLSearchParams();
  for (const name of ["search", "mode", "state"]) {
    const value = form.elements[name].value.trim();
    if (value) { query.set(name, value); kept.set(name, value); }
  }
  if (offset) kept.set("offset", String(offset));
  history.replaceState(null, "", kept.size ? `?${kept}` : location.pathname);
  try {
    const found = await api(`/calls?${query}`, { signal: running.signal });
    at("past").replaceChildren(...found.calls.map(row));
    at("newer").disabled = offset === 0;
    at("older").disabled = !found.more;
    at("range").textContent = found.calls.length ? `${offset + 1} to ${offset + found.calls.length}` : "";
    at("none").hidden = found.calls.length > 0;
    at("none").textContent = kept.size ? "No call matches. Try fewer words, or other filters." : "No calls yet. The first one will stand here as soon as it rings.";
    document.querySelector(".pager").hidden = !found.more && offset === 0;
  } catch (error) {
    if (error.name === "AbortError") return;
    at("past").replaceChildren();
    at("none").hidden = false;
    at("none").textContent = `${error.message}. ${error instanceof ApiError ? error.hint : ""}`;
    if (error.status === 503) setTimeout(load, 3000);
  }
}

let typing = 0;
form.addEventListener("input", () => {
  clearTimeout(typing);
  offset = 0;
  typing = setTimeout(load, 220);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  load().then(() => at("past").querySelector("[data-item]")?.focus());
});
const turn = (by) => {
  offset = Math.max(0, offset + by * PAGE);
  load().then(() => scrollTo(0, 0));
};
at("older").addEventListener("click", () => turn(1));
at("newer").addEventListener("click", () => turn(-1));
shortcut("/", "Search", () => form.elements.search.select());
listKeys(() => [...at("past").querySelectorAll("[data-item]")], "call");
shortcut("]", "Older calls", () => at("older").disabled || turn(1));
shortcut("[", "Newer calls", () => at("newer").disabled || turn(-1));
load();
