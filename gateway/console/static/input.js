// What is sent: a drawing, a picture, a text, or a request as JSON; whichever the model's inputs allow.

import { Body, contentOf } from "./body.js";
import { h } from "./dom.js";
import { Drawing, fills, paint } from "./draw.js";
import { drawable, encoded, rowsOf } from "./picture.js";

const WORDS = { draw: "Draw", picture: "Picture", text: "Text", json: "JSON" };
const SMALL_PX = 160;

// The input of one text a row, by name and shape, or null.
function texts(model) {
  if (model.processor?.kind === "text") return { name: model.processor.input, shape: [1] };
  const [only, ...others] = model.inputs;
  return only && !others.length && only.datatype === "BYTES" && !encoded(model)
    ? { name: only.name, shape: only.shape.map((size) => Math.max(1, size)) } : null;
}

// A body of zeros, of what JSON can hold: the pixels in place of a picture's file.
function zeros(model) {
  const zero = { BOOL: false, BYTES: "" };
  const inputs = model.processor?.kind === "image" ? model.inputs.flatMap((one) => one.parameters?.instead_of ?? [one]) : model.inputs;
  return { inputs: inputs.map(({ name, datatype, shape }) => {
    const whole = shape.map((size) => Math.max(1, size));
    return { name, datatype, shape: whole, data: new Array(whole.reduce((a, b) => a * b, 1)).fill(zero[datatype] ?? 0) };
  }) };
}

export class Input {
  // `root` holds the control, `kinds` the choice among them; `changed` when what is sent is another.
  constructor(root, kinds, changed) {
    Object.assign(this, { root, kinds, changed, body: null, lacks: "" });
    kinds.addEventListener("change", (event) => this.#build(event.target.value));
  }

  build(model) {
    this.model = model;
    const offered = [drawable(model) && "draw", encoded(model) && "picture", texts(model) && "text", "json"].filter(Boolean);
    this.use(new Body(model.sample ?? zeros(model)));
    this.kinds.replaceChildren(h("legend", { class: "hidden" }, "What to send"), ...offered.map((kind, index) =>
      h("label", null, h("input", { type: "radio", name: "kind", value: kind, checked: index === 0 }), h("span", null, WORDS[kind]))));
    this.#build(offered[0]);
  }

  // Send this; or nothing, for `lacks` says why.
  use(body, lacks = "") {
    this.body = body;
    this.lacks = lacks;
  }

  #build(kind) {
    this.sample = null;
    this.root.replaceChildren(...this[`_${kind}`](), h("div", { class: "buttons" },
      h("button", { type: "button", class: "primary", "data-send": true }, "Send"),
      kind === "draw" ? h("button", { type: "button", "data-clear": true }, "Clear") : null,
      this.sample ? h("button", { type: "button", "data-sample": true }, "Stored sample") : null));
    this.changed();
  }

  _draw() {
    const picture = drawable(this.model), { name, height, width, pixels } = picture;
    const share = fills(this.model.variants.find((one) => one.card)?.card.task.name);
    const canvas = h("canvas", { class: "draw", role: "img", "aria-label": "Draw here with mouse, finger or pen. Without one, send the stored sample or JSON." });
    const sent = h("canvas", { class: "sent", role: "img", "aria-label": `What is sent: ${height} by ${width} values` });
    const use = (rows) => {
      paint(sent, rows);
      // As a file where the model reads files: one pixel of it is one of the network's.
      this.use(encoded(this.model)
        ? Body.ofFile(name, sent.toDataURL("image/png").split(",")[1])
        : new Body({ inputs: [{ name, datatype: pixels.datatype, shape: [1, 1, height, width], data: rows.flat() }] }));
      this.changed();
    };
    const drawing = new Drawing(canvas, () => use(drawing.pixels(height, width, share)));
    this.clear = () => {
      drawing.clear();
      use(drawing.pixels(height, width, share));
    };
    const stored = rowsOf(this.model.sample, picture);
    if (stored) {
      this.sample = () => {
        drawing.clear();
        paint(sent, stored);
        this.use(new Body(this.model.sample));
        this.changed();
      };
    }
    const start = this.sample ?? this.clear;
    start();
    return [h("div", { class: "canvases" },
      h("figure", null, canvas, h("figcaption", null, "Draw here")),
      h("figure", null, sent, h("figcaption", null, `Sent: ${height} × ${width}`)))];
  }

  _picture() {
    const { name } = encoded(this.model), most = this.model.processor.max_bytes;
    const chooser = h("input", { type: "file", id: "file", accept: "image/png,image/jpeg" });
    const wrong = h("p", { class: "bad", role: "status" });
    const small = h("canvas", { class: "chosen-file", role: "img", "aria-label": "The picture that is sent", hidden: true });
    const lacking = (why, said = why) => {
      this.use(null, why);
      wrong.textContent = said;
      small.hidden = true;
      this.changed();
    };
    chooser.addEventListener("change", async () => {
      const [file] = chooser.files;
      if (!file) return lacking("No picture has been chosen.", "");
      if (file.size > most) return lacking(`${file.name} has ${file.size.toLocaleString("en")} bytes; the model reads at most ${most.toLocaleString("en")}.`);
      let content, picture;
      try {
        [content, picture] = await Promise.all([contentOf(file), createImageBitmap(file)]);
      } catch {
        if (chooser.files[0] === file) lacking(`${file.name} is no picture that can be read.`);
        return;
      }
      if (chooser.files[0] !== file || !chooser.isConnected) return;
      const scale = Math.min(1, SMALL_PX / Math.max(picture.width, picture.height));
      small.width = Math.max(1, picture.width * scale);
      small.height = Math.max(1, picture.height * scale);
      small.getContext("2d").drawImage(picture, 0, 0, small.width, small.height);
      small.hidden = false;
      wrong.textContent = "";
      this.use(Body.ofFile(name, content));
      this.changed();
    });
    this.use(null, "No picture has been chosen.");
    return [h("label", { for: "file" }, "A picture, PNG or JPEG"), chooser, small, wrong];
  }

  _text() {
    const { name, shape } = texts(this.model);
    const stored = this.model.sample?.inputs[0].data[0];
    const box = h("textarea", { rows: 5, id: "text", maxlength: 20000 }, typeof stored === "string" ? stored : "Shifting gears takes a moment, and is worth it.");
    const use = () => {
      this.use(new Body({ inputs: [{ name, datatype: "BYTES", shape, data: [box.value] }] }));
      this.changed();
    };
    box.addEventListener("input", use);
    use();
    return [h("label", { for: "text" }, "Text"), box];
  }

  _json() {
    const box = h("textarea", { rows: 9, id: "json", spellcheck: "false", class: "code" });
    const wrong = h("p", { class: "bad", role: "status" });
    const read = () => {
      try {
        const document = JSON.parse(box.value);
        const whole = typeof document === "object" && document !== null && !Array.isArray(document);
        if (whole) this.use(new Body(document));
        else this.use(null, "A request is an object: { … }.");
      } catch (error) {
        this.use(null, `Not JSON: ${error.message}`);
      }
      wrong.textContent = this.lacks;
      this.changed();
    };
    const write = (document) => {
      box.value = JSON.stringify(document);
      read();
    };
    box.addEventListener("input", read);
    if (this.model.sample) this.sample = () => write(this.model.sample);
    // What the other kinds sent stays to be edited, but for a file, which JSON cannot hold.
    write(this.body && this.body.file === null ? this.body.document : this.model.sample ?? zeros(this.model));
    return [h("label", { for: "json" }, "The body of the request"), box, wrong];
  }
}
