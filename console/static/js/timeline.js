// The recording over time: ruler, markers, two-channel waveform, decision strips, playhead. One canvas for what
// stands still, one above it for what moves.
import { api } from "./api.js";
import { clock, colours, fitted, h, icon, perFrame } from "./dom.js";
import { CHOICES, CHUNK_S, drawLane } from "./strip.js";

const RULER = 18, MARKS = 26, WAVE = 54, STRIP = 26, GAP = 6;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const SMALLEST_S = 1.5; // as far as one may zoom in

/**
 * @typedef {{at: number, kind: string, symbol: string, title: string, text: string, id: string}} Marker
 */
export class Timeline {
  /**
   * @param {HTMLElement} box
   * @param {{callId: string, duration: number, hasRecording: boolean, lanes: Record<"caller"|"agent", import("./strip.js").Lane>,
   *   markers: Marker[], names: Record<"caller"|"agent", string>, textAt: (side: string, at: number) => string,
   *   onSeek: (at: number) => void, onMarker: (marker: Marker) => void}} options
   */
  constructor(box, options) {
    Object.assign(this, { box, ...options });
    this.view = { from: 0, to: Math.max(this.duration, 1) };
    this.playhead = 0;
    this.hover = null;
    this.peaks = null;
    this.base = /** @type {HTMLCanvasElement} */ (h("canvas"));
    this.over = /** @type {HTMLCanvasElement} */ (h("canvas.over", { "aria-hidden": "true" }));
    this.tip = h("div.tip", { hidden: true });
    this.markerBox = h("div");
    box.append(this.base, this.over, this.markerBox, this.tip);
    this.layOut();
    this.makeFocus();
    this.drawSoon = perFrame(() => this.draw());
    this.overSoon = perFrame(() => this.drawOver());
    this.listen();
    this.loadPeaks();
    this.drawSoon();
  }

  /** From top to bottom: ruler, markers, and for each side its waveform and, if anything was decided, its strip. */
  layOut() {
    /** @type {{name: "wave"|"strip", side: "caller"|"agent", y: number, height: number}[]} */
    this.rows = [];
    let y = RULER + MARKS;
    for (const side of /** @type {("caller"|"agent")[]} */ (["caller", "agent"])) {
      this.rows.push({ name: "wave", side, y, height: WAVE });
      y += WAVE + 3;
      if (side === "caller" || this.lanes[side].size) {
        this.rows.push({ name: "strip", side, y, height: STRIP });
        y += STRIP;
      }
      y += GAP;
    }
    this.bottom = y - GAP;
    for (const canvas of [this.base, this.over]) canvas.style.height = `${this.bottom}px`;
    for (const lane of this.rows.filter((each) => each.name === "wave")) {
      const label = h("span.lane", {}, this.names[lane.side]);
      label.style.top = `${lane.y + lane.height / 2 - 8}px`;
      this.box.append(label);
    }
  }

  /** The strips can be walked with the keyboard: left and right a chunk, up and down the side, enter plays. */
  makeFocus() {
    this.focus = { side: "caller", chunk: 0 };
    this.focusBox = h("div.focus", { tabindex: "0", role: "slider", "aria-label": "Decisions, one every 0.4 seconds", "aria-valuemin": "0", "aria-valuemax": String(Math.floor(this.duration / CHUNK_S)) });
    this.box.append(this.focusBox);
    const show = () => {
      const lane = this.strip(this.focus.side);
      this.focusBox.style.top = `${lane.y - 2}px`;
      this.focusBox.style.height = `${lane.height + 4}px`;
      this.reveal(this.focus.chunk * CHUNK_S);
      this.showCell(this.focus.side, this.focus.chunk);
      this.focusBox.setAttribute("aria-valuenow", String(this.focus.chunk));
      this.focusBox.setAttribute("aria-valuetext", this.tip.textContent);
    };
    this.focusBox.addEventListener("focus", () => {
      this.focus.chunk = Math.floor(this.playhead / CHUNK_S);
      if (this.focusBox.matches(":focus-visible")) show();
    });
    this.focusBox.addEventListener("blur", () => this.hideTip());
    this.focusBox.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -25, PageDown: 25 };
      if (event.key in moves) this.focus.chunk = Math.min(Math.floor(this.duration / CHUNK_S), Math.max(0, this.focus.chunk + moves[event.key]));
      else if (event.key === "ArrowUp") this.focus.side = "caller";
      else if (event.key === "ArrowDown" && this.lanes.agent.size) this.focus.side = "agent";
      else if (event.key === "Enter") this.onSeek(this.focus.chunk * CHUNK_S);
      else return;
      event.preventDefault();
      event.stopPropagation();
      show();
    });
  }

  listen() {
    const { base } = this;
    base.addEventListener("pointermove", (event) => this.point(event));
    base.addEventListener("pointerleave", () => { this.hover = null; this.hideTip(); this.overSoon(); });
    base.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      base.setPointerCapture(event.pointerId);
      this.onSeek(this.timeAt(event.offsetX));
    });
    base.addEventListener("wheel", (event) => {
      const span = this.view.to - this.view.from;
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.timeAt(event.offsetX));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.setView(this.view.from + ((event.deltaX || event.deltaY) / this.base.clientWidth) * span, span);
      }
    }, { passive: false });
    new ResizeObserver(() => { this.drawSoon(); this.loadPeaks(); }).observe(base);
    addEventListener("themechange", () => this.drawSoon());
  }

  strip(side) {
    return this.rows.find((each) => each.name === "strip" && each.side === side);
  }

  timeAt(x) {
    const at = this.view.from + (x / this.base.clientWidth) * (this.view.to - this.view.from);
    return Math.min(this.duration, Math.max(0, at));
  }

  xAt(at) {
    return ((at - this.view.from) / (this.view.to - this.view.from)) * this.base.clientWidth;
  }

  /** @param {number} factor below 1 zooms in @param {number} [around] */
  zoom(factor, around = this.playhead) {
    const span = Math.min(this.duration, Math.max(SMALLEST_S, (this.view.to - this.view.from) * factor));
    const centre = around < this.view.from || around > this.view.to ? (this.view.from + this.view.to) / 2 : around;
    const share = (centre - this.view.from) / (this.view.to - this.view.from);
    this.setView(centre - share * span, span);
  }

  fit() {
    this.setView(0, this.duration);
  }

  setView(from, span) {
    const start = Math.max(0, Math.min(from, this.duration - span));
    this.view = { from: start, to: start + span };
    this.drawSoon();
    this.loadPeaks();
  }

  /** Bring a moment into view. @param {number} at */
  reveal(at) {
    const span = this.view.to - this.view.from;
    if (at < this.view.from || at > this.view.to) this.setView(at - span * 0.1, span);
  }

  setPlayhead(at, playing) {
    this.playhead = at;
    const span = this.view.to - this.view.from;
    if (playing && span < this.duration - 0.01 && (at > this.view.to - span * 0.04 || at < this.view.from)) this.setView(at - span * 0.06, span);
    this.overSoon();
  }

  async loadPeaks() {
    if (!this.hasRecording) return;
    clearTimeout(this.peaksSoon);
    this.peaksSoon = setTimeout(async () => {
      const bins = Math.min(4000, Math.max(50, Math.round(this.base.clientWidth * Math.min(2, devicePixelRatio || 1))));
      const query = new URLSearchParams({ bins: String(bins), from_s: this.view.from.toFixed(3), to_s: this.view.to.toFixed(3) });
      if (this.asked === String(query)) return;
      this.asked = String(query);
      try {
        const peaks = await api(`/calls/${this.callId}/peaks?${query}`);
        if (this.asked !== String(query)) return;
        this.peaks = peaks;
        // As tall as the loudest part of the whole call allows, but for single clicks.
        const heights = peaks.channels.flatMap((channel) => channel.max.map((high, bin) => Math.max(high, -channel.min[bin]))).sort((a, b) => a - b);
        this.loudest ||= heights[Math.floor(heights.length * 0.998)] || 0.25;
        this.drawSoon();
      } catch { this.asked = ""; }
    }, this.peaks ? 90 : 0);
  }

  draw() {
    const [context, width] = fitted(this.base);
    const colour = colours();
    this.ruler(context, width, colour);
    for (const lane of this.rows) {
      if (lane.name === "wave") this.wave(context, width, lane, colour);
      else {
        context.fillStyle = colour.line;
        context.fillRect(0, lane.y + lane.height - 0.5, width, 1);
        const box = { x: 0, y: lane.y, width, height: lane.height, from: this.view.from / CHUNK_S, to: this.view.to / CHUNK_S };
        drawLane(context, this.lanes[lane.side], box, colour);
      }
    }
    this.drawMarkers();
    this.drawOver();
  }

  ruler(context, width, colour) {
    const span = this.view.to - this.view.from;
    const step = STEPS.find((each) => (each / span) * width > 66) || 3600;
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = "top";
    const { bottom } = this;
    for (let at = Math.ceil(this.view.from / step) * step; at <= this.view.to + 1e-6; at += step) {
      const x = this.xAt(at);
      context.fillStyle = colour.line;
      context.globalAlpha = 0.6;
      context.fillRect(Math.round(x), 16, 1, bottom - 16);
      context.globalAlpha = 1;
      context.fillStyle = colour.faint;
      const text = clock(at, step < 1), wide = context.measureText(text).width;
      context.fillText(text, Math.min(width - wide, Math.max(0, x - wide / 2)), 1);
    }
  }

  wave(context, width, lane, colour) {
    const middle = lane.y + lane.height / 2;
    context.fillStyle = colour["line-strong"];
    context.fillRect(0, middle - 0.5, width, 1);
    const channel = this.peaks?.channels[lane.side === "caller" ? 0 : 1];
    if (!channel) return;
    context.fillStyle = colour[lane.side];
    const { from_s: from, to_s: to, bins } = this.peaks;
    const scale = lane.height / 2 / Math.max(0.1, this.loudest || 1);
    const left = this.xAt(from), step = (this.xAt(to) - left) / bins;
    for (let bin = 0; bin < bins; bin += 1) {
      const x = left + bin * step;
      if (x < -1 || x > width) continue;
      const high = Math.min(lane.height / 2, channel.max[bin] * scale), low = Math.max(-lane.height / 2, channel.min[bin] * scale);
      context.fillRect(x, middle - high, Math.max(step, 0.5), Math.max(1, high - low));
    }
  }

  drawOver() {
    const [context, width, height] = fitted(this.over);
    const colour = colours();
    const x = this.xAt(this.playhead);
    if (this.hasRecording && this.playhead > 0) {
      // What lies ahead is veiled a little, so that the played part stands out.
      context.fillStyle = colour.surface;
      context.globalAlpha = 0.45;
      for (const lane of this.rows.filter((each) => each.name === "wave")) context.fillRect(Math.max(0, x), lane.y, width - Math.max(0, x), lane.height);
      context.globalAlpha = 1;
    }
    if (this.hover) {
      context.fillStyle = colour.faint;
      context.fillRect(Math.round(this.hover.x), RULER, 1, height - RULER);
    }
    context.fillStyle = colour.ink;
    context.fillRect(Math.round(x) - 0.75, RULER - 4, 1.5, height - RULER + 4);
    context.beginPath();
    context.moveTo(x - 5, RULER - 6);
    context.lineTo(x + 5, RULER - 6);
    context.lineTo(x, RULER + 1);
    context.fill();
  }

  drawMarkers() {
    if (!this.buttons) {
      this.buttons = this.markers.map((marker) => {
        const button = h(`button.marker.${marker.kind}`, { type: "button", "aria-label": `${clock(marker.at)} ${marker.title}` }, icon(marker.symbol));
        const show = () => this.showTip(this.xAt(marker.at), 44, [h("b", {}, marker.title), h("em", {}, marker.text.slice(0, 220))], { hint: "assist", answer: "answer", cutshort: "answer" }[marker.kind] || "silent");
        button.addEventListener("click", () => this.onMarker(marker));
        for (const event of ["pointerenter", "focus"]) button.addEventListener(event, show);
        for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => this.hideTip());
        return button;
      });
      this.markerBox.append(...this.buttons);
    }
    this.buttons.forEach((button, index) => {
      const x = this.xAt(this.markers[index].at);
      button.hidden = x < -2 || x > this.base.clientWidth + 2;
      button.style.left = `${x}px`;
    });
  }

  point(event) {
    this.hover = { x: event.offsetX };
    const lane = this.rows.find((each) => each.name === "strip" && event.offsetY >= each.y - 1 && event.offsetY <= each.y + each.height + 3);
    if (event.buttons === 1) this.onSeek(this.timeAt(event.offsetX));
    if (lane) this.showCell(lane.side, Math.floor(this.timeAt(event.offsetX) / CHUNK_S));
    else this.hideTip();
    this.overSoon();
  }

  showCell(side, chunk) {
    const cell = this.lanes[side].get(chunk);
    const at = chunk * CHUNK_S;
    const lane = this.strip(side);
    const title = cell ? `${cell.choice} · ${cell.score.toFixed(2)}${cell.late ? " · late" : ""}` : "nothing decided";
    const text = this.textAt(side, at);
    const lines = [h("b", {}, title), h("em", {}, `${this.names[side]}, ${clock(at, true)}${text ? ` · ${text}` : ""}`)];
    this.showTip(this.xAt(at + CHUNK_S / 2), lane.y + lane.height + 6, lines, cell?.choice);
  }

  showTip(x, y, lines, choice) {
    this.tip.replaceChildren(...lines);
    this.tip.className = `tip ${CHOICES.includes(choice) ? `c-${choice}` : ""}`;
    this.tip.hidden = false;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = `${Math.min(this.base.clientWidth - wide, Math.max(-40, x - wide / 2))}px`;
    this.tip.style.top = `${y}px`;
  }

  hideTip() {
    this.tip.hidden = true;
  }
}
