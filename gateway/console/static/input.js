// What is sent: a drawing, a text, or a request as JSON; whichever the model's inputs allow.

import { h } from "./dom.js";
import { Drawing, fills, paint } from "./draw.js";

const WORDS = { draw: "Draw", text: "Text", json: "JSON" };
const MOST_SIDE = 64;

// The input of one grey picture, or null.
function picture(model) {
  const [only, ...others] = model.inputs;
  const fits = only && !others.length && only.datatype === "FP32" && only.shape.length === 4 &&
    only.shape[1] === 1 && only.shape.slice(2).every((side) => side >= 8 && side <= MOST_SIDE);
  return fits ? only : null;
}

// The input of one text a row, by name and shape, or null.
function texts(model) {
  if (model.processor?.kind === "text") return { name: model.processor.input, shape: [1] };
  const [only, ...others] = model.inputs;
  return only && !others.length && only.datatype === "BYTES" ? { name: only.name, shape: only.shape.map((size) => Math.max(1, size)) } : null;
}

function zeros(model) {
  const zero = { BOOL: false, BYTES: "" };
  return { inputs: model.inputs.map(({ name, datatype, shape }) => {
    const whole = shape.map((size) => Math.max(1, size));
    return { name, datatype, shape: whole, data: new Array(whole.reduce((a, b) => a * b, 1)).fill(zero[datatype] ?? 0) };
  }) };
}

export class Input {
  // `root` holds the control, `kinds` the choice among them; `changed` when what is sent is another.
  constructor(root, kinds, changed) {
    Object.assign(this, { root, kinds, changed });
    kinds.addEventListener("change", (event) => this.#build(event.target.value));
  }

  build(model) {
    this.model = model;
    const offered = [picture(model) && "draw", texts(model) && "text", "json"].filter(Boolean);
    this.body = model.sample ?? zeros(model);
    this.kinds.replaceChildren(h("legend", { class: "hidden" }, "What to send"), ...offered.map((kind, index) =>
      h("label", null, h("input", { type: "radio", name: "kind", value: kind, checked: index === 0 }), h("span", null, WORDS[kind]))));
    this.#build(offered[0]);
  }

  #build(kind) {
    this.root.replaceChildren(...this[`_${kind}`](), h("div", { class: "buttons" },
      h("button", { type: "button", class: "primary", "data-send": true }, "Send"),
      kind === "draw" ? h("button", { type: "button", "data-clear": true }, "Clear") : null,
      this.model.sample && kind !== "text" ? h("button", { type: "button", "data-sample": true }, "Stored sample") : null));
    this.changed();
  }

  _draw() {
    const { name, datatype, shape: [, , height, width] } = picture(this.model);
    const share = fills(this.model.variants[0]?.card.task.name);
    const canvas = h("canvas", { class: "draw", role: "img", "aria-label": "Draw here with mouse, finger or pen. Without one, send the stored sample or JSON." });
    const sent = h("canvas", { class: "sent", role: "img", "aria-label": `What is sent: ${height} by ${width} values` });
    const use = (rows) => {
      this.body = { inputs: [{ name, datatype, shape: [1, 1, height, width], data: rows.flat() }] };
      paint(sent, rows);
      this.changed();
    };
    const drawing = new Drawing(canvas, () => use(drawing.pixels(height, width, share)));
    this.clear = () => {
      drawing.clear();
      use(drawing.pixels(height, width, share));
    };
    this.sample = () => {
      drawing.clear();
      const values = this.model.sample.inputs[0].data.flat(Infinity);
      this.body = this.model.sample;
      paint(sent, Array.from({ length: height }, (_, row) => values.slice(row * width, (row + 1) * width)));
      this.changed();
    };
    const start = this.model.sample ? this.sample : this.clear;
    start();
    return [h("div", { class: "canvases" },
      h("figure", null, canvas, h("figcaption", null, "Draw here")),
      h("figure", null, sent, h("figcaption", null, `Sent: ${height} × ${width}`)))];
  }

  _text() {
    const { name, shape } = texts(this.model);
    const stored = this.model.sample?.inputs?.[0]?.data?.[0];
    const box = h("textarea", { rows: 5, id: "text", maxlength: 20000 }, typeof stored === "string" ? stored : "Shifting gears takes a moment, and is worth it.");
    const use = () => {
      this.body = { inputs: [{ name, datatype: "BYTES", shape, data: [box.value] }] };
      this.changed();
    };
    box.addEventListener("input", use);
    use();
    return [h("label", { for: "text" }, "Text"), box];
  }

  _json() {
    const box = h("textarea", { rows: 9, id: "json", spellcheck: "false", class: "code" });
    const wrong = h("p", { class: "bad", role: "status" });
    const write = (body) => { box.value = JSON.stringify(body); };
    box.addEventListener("input", () => {
      try {
        this.body = JSON.parse(box.value);
        wrong.textContent = "";
        this.changed();
      } catch (error) {
        this.body = null;
        wrong.textContent = `Not JSON: ${error.message}`;
      }
    });
    this.sample = () => {
      this.body = this.model.sample;
      write(this.body);
      wrong.textContent = "";
      this.changed();
    };
    write(this.body);
    return [h("label", { for: "json" }, "The body of the request"), box, wrong];
  }
}
