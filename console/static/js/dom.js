// Small helpers that every page uses: elements, icons, times, notes to the reader.

/**
 * Make an element. Strings become text, so nothing said on a call is ever read as HTML.
 * @param {string} tag "li.turn.partial" makes the classes too
 * @param {Record<string, any>} [attributes] on* are listeners, the rest attributes; null and false are left out
 * @param {...(Node|string|number|null|undefined|false)} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false).map((c) => (typeof c === "number" ? String(c) : c)));
  return element;
}

/** @param {string} name of a symbol in icons.html */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** @param {string} id @returns {any} */
export const at = (id) => document.getElementById(id);

/** Seconds as m:ss, or h:mm:ss; with tenths if asked. @param {number} s @param {boolean} [tenths] */
export function clock(s, tenths = false) {
  const all = Math.max(0, tenths ? Math.floor(s * 10 + 1e-6) / 10 : Math.floor(s + 1e-6));
  const hours = Math.floor(all / 3600), minutes = Math.floor((all % 3600) / 60), seconds = all % 60;
  const tail = tenths ? seconds.toFixed(1).padStart(4, "0") : String(seconds).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

const MODES = { answer: ["voice", "Answer"], assist: ["bulb", "Assist"], transcribe: ["doc", "Transcribe"] };

/** @param {string} mode */
export function modeBadge(mode) {
  const [symbol, label] = MODES[mode] || ["info", mode || "…"];
  const badge = h(`span.badge.${mode || "unknown"}`, {}, label);
  const picture = icon(symbol);
  picture.style.width = picture.style.height = "13px";
  badge.prepend(picture);
  return badge;
}

const NAMES = { caller: "Caller", human_agent: "Agent", voice_agent: "offhook", supervisor: "Supervisor" };
/** @param {string} who a participant's id or role */
export const nameOf = (who) => NAMES[who] || who;
/** @param {string} who @returns {"caller"|"agent"} */
export const sideOf = (who) => (who === "caller" ? "caller" : "agent");

/** Strip a SIP address to what a person reads. @param {string} address */
export function party(address) {
  const plain = (address || "").replace(/^<|>$/g, "").replace(/^(sips?|tel|webrtc):/, "").replace(/[;?].*$/, "");
  const [user, host] = plain.split("@");
  if (!plain) return "unknown";
  return host && /^(127\.|localhost|\[?::1)/.test(host) ? user : plain;
}

/** Who was called; a browser dials nobody in particular. @param {string} address */
export const dialled = (address) => (address ? party(address) : "offhook");

/** Say something to people who do not see the screen. @param {string} text */
export function announce(text) {
  const box = at("announce");
  if (!box) return;
  box.append(h("p", {}, text));
  while (box.children.length > 3) box.firstChild.remove();
}

/** @param {string} title @param {string} [text] */
export function toast(title, text = "") {
  const note = h("div.toast", {}, h("b", {}, title), text);
  at("toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

/** Run `draw` at most once a frame. @param {() => void} draw */
export function perFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
}

/** Size a canvas for the screen's real pixels. @param {HTMLCanvasElement} canvas @returns {[CanvasRenderingContext2D, number, number]} */
export function fitted(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio)), t = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== t) { canvas.width = w; canvas.height = t; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

/** The sheet's colours, for canvases. @returns {Record<string, string>} */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "surface", "ink", "soft", "faint", "line", "line-strong", "accent", "caller", "agent", "silent", "transcribe", "assist", "answer", "late"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Text with «marked» words. @param {string} text */
export function marked(text) {
  return text.split(/(«[^»]*»)/).filter(Boolean).map((part) => (part.startsWith("«") ? h("mark", {}, part.slice(1, -1)) : part));
}
