// The dry run: who would answer what the sliders ask, who would not, and why.

import { byId, h, show } from "./dom.js";
import { colours, demand, demandName, ms, percent, refusal, usd } from "./words.js";

const VERDICTS = {
  unsatisfiable: ["No variant can, ever", "A request would be answered 422."],
  overloaded: ["Not under the present load", "A request would be answered 429."],
  "not-ready": ["Nothing that might is ready", "A request would be answered 503."],
};

export function showDecision(root, model, decision) {
  const colour = colours(model);
  const accepted = decision.verdict === "accepted";
  const [title, note] = VERDICTS[decision.verdict] ?? [decision.verdict, ""];
  const verdict = accepted
    ? [
        h("p", { class: "verdict" }, h("span", { class: `swatch ${colour[decision.variant]}` }), h("b", null, decision.variant),
          h("span", { class: "quiet" }, " would answer"), h("span", { class: "tag" }, decision.reason)),
        h("p", { class: "quiet" }, `${decision.why}. Within ${ms(decision.predicted_latency_ms)}, accuracy ${percent(decision.accuracy)}, ${usd(decision.cost_usd_per_million)} per million`,
          decision.relaxed.length ? h("b", { class: "wait" }, `; ${decision.relaxed.join(", ")} gave way`) : null),
      ]
    : [h("p", { class: "verdict bad" }, h("b", null, title)), h("p", { class: "quiet" }, note), nearest(decision)];
  show(root, verdict, refusals(decision.refused, colour));
  const said = accepted ? `${decision.variant} would answer, ${decision.reason}` : title;
  if (byId("decided").textContent !== said) byId("decided").textContent = said;
}

// The values that would fit, each as a button that asks for them: `data-use` holds them as JSON.
export function nearest(body) {
  const sets = [
    ...Object.entries(body.nearest ?? {}).map(([name, value]) => ({ [name]: value })),
    ...(body.nearest_together ? [body.nearest_together] : []),
  ];
  if (!sets.length) return null;
  return h("p", { class: "nearest" }, "Would fit: ", sets.map((values) =>
    h("button", { type: "button", "data-use": JSON.stringify(values) },
      Object.entries(values).map(([name, value]) => `${demandName(name)} ${demand(name, value)}`).join(" and "))));
}

// One line a variant, though it may break several constraints.
export function refusals(refused, colour) {
  if (!refused?.length) return null;
  const by = new Map();
  for (const one of refused) by.set(one.variant, [...(by.get(one.variant) ?? []), refusal(one)]);
  return h("ul", { class: "refused" }, [...by].map(([name, whys]) =>
    h("li", { "data-key": name }, h("span", { class: `swatch ${colour[name] ?? "off"}` }), h("b", null, name), " ", whys.join("; "))));
}
