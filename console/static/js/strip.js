// The decision strip: one bar for every 0.4 s Chunk of each side, coloured by choice, as high as its score.
import { colours, fitted } from "./dom.js";

export const CHUNK_S = 0.4;
export const CHOICES = ["silent", "transcribe", "assist", "answer"];

/**
 * @typedef {{choice: string, score: number, late: boolean}} Cell
 * @typedef {Map<number, Cell>} Lane cells by chunk
 */

/**
 * One lane of bars standing on the line y + height.
 * @param {CanvasRenderingContext2D} context
 * @param {Lane} lane
 * @param {{x: number, y: number, width: number, height: number, from: number, to: number}} box chunks [from, to) fill the width
 * @param {Record<string, string>} colour
 */
export function drawLane(context, lane, box, colour) {
  const step = box.width / (box.to - box.from);
  const many = step < 1.5; // more chunks than pixels: of those in a pixel, the most telling choice is shown
  const first = Math.floor(box.from), last = Math.ceil(box.to);
  const stride = many ? Math.max(1, Math.floor(1.5 / step)) : 1;
  for (let chunk = first - (first % stride); chunk < last; chunk += stride) {
    let cell = null, rank = -1, late = false;
    for (let each = chunk; each < chunk + stride; each += 1) {
      const found = lane.get(each);
      if (!found) continue;
      late ||= found.late;
      const order = CHOICES.indexOf(found.choice);
      if (order > rank || (order === rank && found.score > cell.score)) { cell = found; rank = order; }
    }
    if (!cell) continue;
    const x = box.x + (chunk - box.from) * step;
    const gap = step * stride > 3 ? 1 : 0;
    const height = rank === 0 ? 2 : Math.max(4, cell.score * box.height);
    context.fillStyle = colour[cell.choice] || colour.silent;
    bar(context, x, box.y + box.height - height, Math.max(1, step * stride - gap), height);
    if (late) {
      context.fillStyle = colour.late;
      bar(context, x, box.y, Math.max(1, step * stride - gap), 2);
    }
  }
}

function bar(context, x, y, width, height) {
  if (width < 3) return context.fillRect(x, y, width, height);
  context.beginPath();
  context.roundRect(x, y, width, height, [Math.min(2, width / 2), Math.min(2, width / 2), 0, 0]);
  context.fill();
}

/** The two lanes of a live call, newest at the right. */
export class LiveStrip {
  /** @param {HTMLCanvasElement} canvas @param {number} [cell] pixels a chunk */
  constructor(canvas, cell = 6) {
    this.canvas = canvas;
    this.cell = cell;
    /** @type {Lane[]} */
    this.lanes = [new Map(), new Map()];
    /** @type {{from: number, to: number, cut: boolean}[]} when the voice agent spoke, seconds: drawn in the second lane */
    this.spoken = [];
  }

  draw() {
    const [context, width, height] = fitted(this.canvas);
    const colour = colours();
    const newest = Math.max(0, ...this.lanes.map((lane) => (lane.size ? Math.max(...[...lane.keys()].slice(-4)) + 1 : 0)));
    const shown = width / this.cell;
    const to = Math.max(newest, shown), gap = Math.max(4, height * 0.1);
    const tall = (height - gap) / 2;
    this.lanes.forEach((lane, index) => {
      const y = index * (tall + gap);
      context.fillStyle = colour.line;
      context.fillRect(0, y + tall - 0.5, width, 1);
      drawLane(context, lane, { x: 0, y, width, height: tall, from: to - shown, to }, colour);
    });
    const x = (s) => (s / CHUNK_S - (to - shown)) * this.cell;
    for (const { from, to: end, cut } of this.spoken) {
      const left = x(from), right = x(Math.min(end, newest * CHUNK_S)), y = tall + gap + tall * 0.55;
      if (right < 0) continue;
      context.fillStyle = colour.agent;
      context.globalAlpha = 0.55;
      context.beginPath();
      context.roundRect(left, y, Math.max(2, right - left), tall * 0.45 - 1, 3);
      context.fill();
      context.globalAlpha = 1;
      if (cut) {
        context.fillStyle = colour.late;
        context.fillRect(right - 1, tall + gap, 2, tall);
      }
    }
    return newest;
  }
}
