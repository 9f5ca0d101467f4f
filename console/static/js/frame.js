// What stands around every page: health, light and dark, keyboard shortcuts.
import { at, h } from "./dom.js";

/** @type {{keys: string[], label: string, run: (event: KeyboardEvent) => void}[]} */
const shortcuts = [];

/**
 * @param {string|string[]} keys as KeyboardEvent.key says them
 * @param {string} label for the help
 * @param {(event: KeyboardEvent) => void} run
 */
export function shortcut(keys, label, run) {
  shortcuts.push({ keys: [keys].flat(), label, run });
}

const SHOWN = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "esc", Enter: "enter" };

function showHelp() {
  const dialog = at("help");
  const rows = shortcuts.filter(({ label }) => label).flatMap(({ keys, label }) => {
    const caps = keys.flatMap((key, index) => [index ? " " : "", h("kbd", {}, SHOWN[key] || key)]);
    return [h("dt", {}, ...caps), h("dd", {}, label)];
  });
  dialog.querySelector("dl").replaceChildren(...rows);
  dialog.showModal();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.closest("dialog[open]")) return;
  if (target.closest("input:not([type=radio]), select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if ((event.key === " " || event.key === "Enter") && target.closest("button, a, summary")) return;
  const found = shortcuts.find(({ keys }) => keys.includes(event.key));
  if (!found) return;
  event.preventDefault();
  found.run(event);
});

/** j/k through a list of links or focusable items. @param {() => HTMLElement[]} items @param {string} what */
export function listKeys(items, what) {
  const step = (by) => {
    const all = items();
    if (!all.length) return;
    const here = all.indexOf(/** @type {HTMLElement} */ (document.activeElement?.closest("[data-item]")));
    const next = all[Math.min(all.length - 1, Math.max(0, here < 0 ? 0 : here + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  };
  shortcut("j", `Next ${what}`, () => step(1));
  shortcut("k", `Previous ${what}`, () => step(-1));
}

async function checkHealth() {
  const link = at("health");
  if (!link || document.hidden) return;
  let state = "missing", text = "console away", title = "";
  try {
    const told = await (await fetch("/healthz")).json();
    state = told.ready ? "ready" : "missing";
    const full = told.missing.length === 1 && told.missing[0].includes("room");
    if (full) state = "connecting";
    text = told.ready ? "ready" : full ? "busy: no room" : `no ${told.missing[0]}`;
    title = told.ready ? `${told.workers} model worker(s), ${told.live_calls} live call(s)` : `missing: ${told.missing.join(", ")}`;
  } catch { /* said above */ }
  link.dataset.state = state;
  link.querySelector("span").textContent = text;
  link.title = title;
}

shortcut("?", "This help", showHelp);
shortcut("t", "Light or dark", () => window.switchTheme());
shortcut("1", "Live calls", () => location.assign("/"));
shortcut("2", "Call in", () => location.assign("/call"));
shortcut("3", "Past calls", () => location.assign("/calls"));
at("theme")?.addEventListener("click", () => window.switchTheme());
at("keys")?.addEventListener("click", showHelp);
checkHealth();
setInterval(checkHealth, 10_000);
document.addEventListener("visibilitychange", checkHealth);
