// A canvas to draw on, and what a model is sent of it: the strokes, cut out, scaled and centred.

// How much of the picture's side a drawing fills. The bundled digits are a third of theirs, with
// clutter around them; of another task nothing is known, so its drawings nearly fill it.
const FILLS = { digits: 8 / 24 };
const FILLS_ELSE = 0.8;
export const fills = (task) => FILLS[task] ?? FILLS_ELSE;

const SIDE = 240;
// Of the side: as thick as a pen is in an 8x8 picture of a digit, one and a half of its pixels.
const PEN = 0.11;

export class Drawing {
  constructor(canvas, changed) {
    canvas.width = canvas.height = SIDE;
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.changed = changed;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.at = this.#point(event);
      this.#line(this.at);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.at) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.#line(this.#point(one));
    });
    const end = () => {
      if (this.at) this.changed();
      this.at = null;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, SIDE, SIDE);
    this.at = null;
    this.empty = true;
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  }

  #line(to) {
    const pen = this.context;
    pen.strokeStyle = "#fff";
    pen.lineWidth = SIDE * PEN;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...this.at);
    pen.lineTo(...to);
    pen.stroke();
    this.at = to;
    this.empty = false;
  }

  // Rows of ink from 0 to 1, height by width; `share` as of `fills`.
  pixels(height, width, share) {
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    const ink = (x, y) => (x < 0 || y < 0 || x >= SIDE || y >= SIDE ? 0 : data[4 * (y * SIDE + x)] / 255);
    let left = SIDE, right = -1, top = SIDE, bottom = -1;
    for (let y = 0; y < SIDE; y += 1)
      for (let x = 0; x < SIDE; x += 1)
        if (ink(x, y) > 0.5) {
          left = Math.min(left, x); right = Math.max(right, x);
          top = Math.min(top, y); bottom = Math.max(bottom, y);
        }
    const rows = Array.from({ length: height }, () => new Array(width).fill(0));
    if (right < 0) return rows;
    // One pixel of the model's covers a square of so many of the canvas's: their mean is its ink.
    const cell = Math.max(right - left + 1, bottom - top + 1) / (Math.min(height, width) * share);
    const x0 = (left + right + 1) / 2 - (width / 2) * cell, y0 = (top + bottom + 1) / 2 - (height / 2) * cell;
    return rows.map((row, r) => row.map((_, c) => {
      const from = [Math.floor(x0 + c * cell), Math.floor(y0 + r * cell)];
      const to = [Math.max(from[0] + 1, Math.floor(x0 + (c + 1) * cell)), Math.max(from[1] + 1, Math.floor(y0 + (r + 1) * cell))];
      let sum = 0;
      for (let y = from[1]; y < to[1]; y += 1) for (let x = from[0]; x < to[0]; x += 1) sum += ink(x, y);
      return Number((sum / ((to[0] - from[0]) * (to[1] - from[1]))).toFixed(3));
    }));
  }
}

// Show rows of ink, as they are sent, on a small canvas.
export function paint(canvas, rows) {
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, index) => {
    const level = Math.round(255 * Math.min(1, Math.max(0, value)));
    image.data.set([level, level, level, 255], 4 * index);
  });
  context.putImageData(image, 0, 0);
}
