// What a request demands: the sliders, and what they say as headers.

import { byId, h } from "./dom.js";
import { figure } from "./words.js";

const STEPS = 100;

// A slider's end says "none": the right one of a ceiling, the left one of a floor. Without values
// to choose between there is no ceiling: null.
const ceiling = (values, down, up) => {
  if (!values.length) return null;
  const low = Math.min(...values) * down, high = Math.max(...values) * up;
  return {
    none: STEPS,
    value: (position) => Number((low * (high / low) ** (position / (STEPS - 1))).toPrecision(3)),
    position: (value) => Math.round(Math.min(STEPS - 1, Math.max(0, (Math.log(value / low) / Math.log(high / low)) * (STEPS - 1)))),
  };
};
const floor = (low, high) => ({
  none: 0,
  value: (position) => Number((low + ((high - low) * (position - 1)) / (STEPS - 1)).toFixed(2)),
  position: (value) => Math.round(Math.min(STEPS, Math.max(1, 1 + ((value - low) / (high - low)) * (STEPS - 1)))),
});

export class Demands {
  // `changed` is called whenever one of them is another.
  constructor(form, changed) {
    this.form = form;
    this.changed = changed;
    form.addEventListener("input", (event) => this.#moved(event.target));
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // Build the controls for a model; what was asked of another one is forgotten.
  build(model) {
    this.model = model;
    const of = (key) => model.variants.map((one) => one[key]).filter((value) => value > 0);
    const reference = model.variants.find((one) => one.name === model.reference);
    this.reference = reference?.accuracy ?? 1;
    const least = Math.min(...of("accuracy_low"), 1);
    this.scales = {
      max_latency_ms: ceiling([...of("p50_ms"), ...of("p99_ms")], 1 / 2, 4),
      max_cost_usd_per_million: ceiling(of("cost_usd_per_million"), 1 / 2, 2),
      relative: floor(Math.floor((100 * least) / this.reference) - 1, 100),
      absolute: floor(Math.floor(100 * least) - 1, 100),
    };
    const choice = (name, options, label = null) => h("select", { name, "aria-label": label }, options.map(([value, text]) => h("option", { value }, text)));
    this.form.replaceChildren(
      this.#slider("max_latency_ms", "Latency, at most", "ms", STEPS),
      this.#slider("min_accuracy", "Accuracy, at least", choice("floor", [["relative", "% of reference"], ["absolute", `% ${model.metric ?? "accuracy"}`]], "Accuracy, at least: of what"), 0),
      this.#slider("max_cost_usd_per_million", "Cost, at most", "$ / million", STEPS),
      h("div", { class: "demand" }, h("span", { id: "optimize-label" }, "Make best"),
        h("div", { class: "switch", role: "radiogroup", "aria-labelledby": "optimize-label" },
          [["", "default"], ["accuracy", "accuracy"], ["cost", "cost"], ["latency", "latency"]].map(([value, text]) =>
            h("label", null, h("input", { type: "radio", name: "optimize", value, checked: value === "" }), h("span", null, text))))),
      h("div", { class: "demand" }, h("span", { id: "relax-label" }, "May give way"),
        h("div", { class: "switch", role: "group", "aria-labelledby": "relax-label" }, ["latency", "cost", "accuracy"].map((name) =>
          h("label", null, h("input", { type: "checkbox", name: "relax", value: name }), h("span", null, name))))),
      h("div", { class: "demand" },
        h("label", { for: "pinned" }, "Variant"),
        h("div", { class: "two" },
          Object.assign(choice("variant", [["", "any"], ...model.variants.map((one) => [one.name, one.name]),
            ...Object.keys(model.aliases).map((alias) => [alias, `${alias} (alias)`])]), { id: "pinned" }),
          h("label", null, "Priority ", choice("priority", [["", "normal"], ["high", "high"], ["low", "low"]])))),
    );
    this.relaxed = [];
    this.changed();
  }

  #slider(key, text, unit, none) {
    const empty = this.scales[key] === null;
    const free = empty && this.model.variants.some((one) => one[key.slice(4)] === 0);
    return h("div", { class: "demand" },
      h("label", { for: `at-${key}` }, text),
      h("input", { type: "range", id: `at-${key}`, "data-key-of": key, min: 0, max: STEPS, value: none, "aria-valuetext": free ? "free" : "none", disabled: empty }),
      h("span", { class: "exact" },
        h("input", { type: "number", name: key, min: 0, step: "any", placeholder: free ? "free" : "none", "aria-label": `${text}: the figure`, disabled: empty }), unit));
  }

  #scale(key) {
    return this.scales[key === "min_accuracy" ? this.form.elements.floor.value : key];
  }

  #moved(control) {
    const key = control.dataset.keyOf ?? (this.scales[control.name] || control.name === "min_accuracy" ? control.name : null);
    if (control.dataset.keyOf) {
      const scale = this.#scale(key);
      const position = Number(control.value);
      this.form.elements[key].value = position === scale.none ? "" : scale.value(position);
    }
    if (control.name === "floor") this.form.elements.min_accuracy.value = "";
    if (control.name === "relax") {
      this.relaxed = this.relaxed.filter((name) => name !== control.value);
      if (control.checked) this.relaxed.push(control.value);
    }
    this.#place(key ?? (control.name === "floor" ? "min_accuracy" : null), Boolean(control.dataset.keyOf));
    this.changed();
  }

  // Put the slider where its figure is, and say it.
  #place(key, moved) {
    if (!key) return;
    const slider = byId(`at-${key}`), scale = this.#scale(key), value = this.form.elements[key].value;
    if (scale === null) return;
    if (!moved) slider.value = Number(value) > 0 ? scale.position(Number(value)) : scale.none;
    slider.setAttribute("aria-valuetext", value === "" ? "none" : `${figure(Number(value), 4)}${key === "min_accuracy" ? " percent" : ""}`);
  }

  // Ask what `values` say, by key of the protocol; a floor may be a share or text such as "99%".
  set(values) {
    for (const [key, value] of Object.entries(values)) {
      if (key === "min_accuracy") {
        const relative = typeof value === "string" && value.endsWith("%");
        this.form.elements.floor.value = relative ? "relative" : "absolute";
        this.form.elements.min_accuracy.value = relative ? parseFloat(value) : Number((100 * value).toPrecision(12));
      } else this.form.elements[key].value = value;
      this.#place(key, false);
    }
    this.changed();
  }

  // As headers of a request.
  headers() {
    const of = this.form.elements, said = {};
    if (!this.model) return said;
    if (of.max_latency_ms.value) said["Gearshift-Max-Latency-Ms"] = of.max_latency_ms.value;
    const least = of.min_accuracy.value;
    if (least) said["Gearshift-Min-Accuracy"] = of.floor.value === "relative" ? `${least}%` : String(Number((Number(least) / 100).toPrecision(12)));
    if (of.max_cost_usd_per_million.value) said["Gearshift-Max-Cost-Usd-Per-Million"] = of.max_cost_usd_per_million.value;
    if (of.optimize.value) said["Gearshift-Optimize"] = of.optimize.value;
    if (of.variant.value) said["Gearshift-Variant"] = of.variant.value;
    if (this.relaxed.length) said["Gearshift-Relax"] = this.relaxed.join(",");
    if (of.priority.value) said["Gearshift-Priority"] = of.priority.value;
    return said;
  }

  // As numbers, to draw them: a relative floor by the reference's own figure.
  asked() {
    const of = this.form.elements;
    const least = Number(of.min_accuracy.value) / 100;
    return {
      max_latency_ms: Number(of.max_latency_ms.value),
      min_accuracy: of.floor.value === "relative" ? least * this.reference : least,
      max_cost_usd_per_million: Number(of.max_cost_usd_per_million.value),
    };
  }
}
