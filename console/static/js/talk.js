// The transcript as a conversation: caller left, agent right; partials in grey that firm up.
import { announce, clock, h, icon, nameOf, perFrame, sideOf } from "./dom.js";

const UNSURE = 0.6; // below this confidence the words are underlined with dots

/** What the caller heard of an answer, and what not. @param {string} text @param {string} heard */
export function split(text, heard) {
  if (heard && text.startsWith(heard)) return [heard, text.slice(heard.length).trim()];
  // The heard text may differ in spaces or quotes: count its words instead.
  const words = text.split(/\s+/), count = heard.split(/\s+/).filter(Boolean).length;
  return [heard, words.slice(count).join(" ")];
}

/** @param {any} answer of CallState @returns {Node[]} */
export function answerText(answer) {
  if (answer.state !== "over" || !answer.interrupted) return [document.createTextNode(answer.state === "over" ? answer.heard ?? answer.text : answer.text)];
  const [heard, unheard] = split(answer.text, answer.heard || "");
  return [
    document.createTextNode(heard), document.createTextNode(" "),
    h("span.unheard", { title: "not heard by the caller" }, h("span.sr", {}, "Not heard: "), unheard),
  ];
}

/** The line under an answer. @param {any} answer @returns {HTMLElement[]} */
export function answerNotes(answer) {
  const notes = [];
  if (answer.interrupted) notes.push(h("span.cut", {}, icon("cut"), "interrupted"));
  if (answer.responseMs !== null && answer.responseMs !== undefined) notes.push(h("span", { title: "end of the caller's speech to the first sound of the answer" }, `after ${answer.responseMs} ms`));
  if (answer.sources?.length) notes.push(h("span.sources", {}, icon("book"), answer.sources.join(", ")));
  return notes;
}

/** Draws a CallState's talk into a list, keeping its elements; scrolls along until the reader scrolls up. */
export class Talk {
  /** @param {HTMLElement} list @param {HTMLButtonElement} jump @param {import("./call_state.js").CallState} call */
  constructor(list, jump, call) {
    Object.assign(this, { list, jump, call });
    /** @type {Map<string, {element: HTMLElement, key: string}>} */
    this.drawn = new Map();
    this.following = true;
    this.spoken = new Set();
    this.quiet = true; // do not read out what was said before we came
    list.addEventListener("scroll", () => {
      this.following = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
      jump.hidden = this.following;
    }, { passive: true });
    jump.addEventListener("click", () => this.toEnd());
    this.draw = perFrame(() => this.render());
    setTimeout(() => { this.quiet = false; }, 1500);
  }

  toEnd() {
    this.following = true;
    this.jump.hidden = true;
    this.list.scrollTop = this.list.scrollHeight;
  }

  render() {
    const items = this.call.talk();
    const seen = new Set();
    let before = "", last = null;
    items.forEach((item) => {
      seen.add(item.id);
      const who = item.kind === "answer" ? "voice_agent" : item.kind === "utterance" ? item.data.participant : "";
      const key = JSON.stringify([item.data, before === who && who !== ""]);
      let held = this.drawn.get(item.id);
      if (!held || held.key !== key) {
        const element = this.element(item, who, before === who && who !== "");
        if (held?.element.classList.contains("partial") && !element.classList.contains("partial")) element.querySelector(".text")?.classList.add("firm");
        if (held) held.element.replaceWith(element);
        held = { element, key };
        this.drawn.set(item.id, held);
        this.read(item, who);
      }
      const place = last ? last.nextElementSibling : this.list.firstElementChild;
      if (place !== held.element) this.list.insertBefore(held.element, place);
      last = held.element;
      before = who;
    });
    for (const [id, { element }] of this.drawn) {
      if (!seen.has(id)) {
        element.remove();
        this.drawn.delete(id);
      }
    }
    if (this.following) this.list.scrollTop = this.list.scrollHeight;
  }

  read(item, who) {
    const firm = item.kind === "utterance" ? !item.data.partial : item.data.state === "over";
    if (!firm || !who || this.spoken.has(item.id)) return;
    this.spoken.add(item.id);
    if (!this.quiet) announce(`${nameOf(who)}: ${item.data.heard ?? item.data.text}`);
  }

  element(item, who, same) {
    const when = Number.isFinite(item.at) ? clock(item.at) : "";
    if (!who) {
      const symbol = { barge: "cut", notice: "warn", hold: "pause", key: "phone" }[item.kind];
      return h(`li.event.${item.kind}`, {}, icon(symbol), item.data.text, h("time", {}, when));
    }
    const side = sideOf(who), data = item.data;
    const meta = h("div.meta", {}, h("span.name", {}, nameOf(who)), h("time", {}, when));
    if (item.kind === "utterance") {
      const classes = `li.turn.by-${side}${data.partial ? ".partial" : ""}${data.confidence < UNSURE ? ".unsure" : ""}${same ? ".same" : ""}`;
      return h(classes, { title: when }, meta, h("div.text", { "aria-hidden": data.partial ? "true" : null }, data.text));
    }
    const state = { playing: ".saying", paused: ".paused" }[data.state] || "";
    if (data.state === "playing") meta.append(h("span.bars", { title: "being said" }, h("i"), h("i"), h("i")));
    const notes = answerNotes(data);
    return h(`li.turn.by-agent.spoken${state}`, { title: when }, meta, h("div.text", {}, ...answerText(data)), notes.length > 0 && h("div.meta", {}, ...notes));
  }
}
