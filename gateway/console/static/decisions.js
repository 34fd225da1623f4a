// What was decided lately, newest first, with its reasons and refusals.

import { byId, h, show } from "./dom.js";
import { clock, demand, demandName, ms, percent, refusal, usd } from "./words.js";

const MOST = 100;
let kept = [];
let last = 0;
let question = "";
let outcomes = [];

export function forgetDecisions() {
  kept = [];
  last = 0;
}

// What is shown is asked for by itself: other models, or a flood of answers, hide nothing of it.
export async function takeDecisions(model, ask) {
  const outcome = byId("filter").outcome.value;
  const wanted = new URLSearchParams({ model: model.name, ...(outcome && { outcome }), limit: MOST }).toString();
  if (wanted !== question) forgetDecisions();
  question = wanted;
  const { body } = await ask(`/console/decisions?${wanted}&since=${last}`);
  if (wanted === question) take(body);
}

function take(answer) {
  outcomes = answer.outcomes;
  // Ids that went back: the server is another one now.
  if (answer.last < last) kept = [];
  last = answer.last;
  const known = new Set(kept.map((one) => one.id));
  kept = [...answer.decisions.filter((one) => !known.has(one.id)), ...kept].slice(0, MOST);
}

export function showDecisions(root, model) {
  const own = kept.filter((one) => one.model === model.name);
  const filter = byId("filter");
  choices(filter.outcome, outcomes);
  choices(filter.variant, model.variants.map((one) => one.name));
  const wanted = own.filter((one) =>
    (!filter.outcome.value || one.outcome === filter.outcome.value) && (!filter.variant.value || one.variant === filter.variant.value));
  if (!wanted.length) {
    show(root, h("p", { class: "empty" }, own.length ? "None of the recent ones is of that kind." : "Nothing has been decided yet."));
    return;
  }
  show(root, h("ol", { class: "decisions" }, wanted.map(row)));
}

function choices(select, names) {
  const wanted = ["", ...[...new Set(names)].sort()];
  if (select.value && !wanted.includes(select.value)) wanted.push(select.value);
  if (wanted.join() === [...select.options].map((option) => option.value).join()) return;
  const value = select.value;
  select.replaceChildren(...wanted.map((name) => h("option", { value: name }, name || "every")));
  select.value = value;
}

function row(one) {
  const good = one.outcome === "ok";
  const asked = Object.entries(one.constraints).map(([name, value]) => `${demandName(name)} ${demand(name, value)}`);
  const facts = [
    ["asked", asked.join(" · ") || "nothing"],
    ["why", one.error ? one.error.detail : one.why],
    one.relaxed.length ? ["gave way", one.relaxed.join(", ")] : null,
    one.predicted_ms === null ? null : ["predicted", `at most ${ms(one.predicted_ms)}; took ${ms(one.latency_ms)}`],
    one.accuracy === null ? null : ["accuracy", percent(one.accuracy)],
    one.cost_usd_per_million === null ? null : ["charged", `${usd(one.cost_usd_per_million)} per million`],
    ["from", `${one.protocol ?? "–"}, tenant ${one.tenant ?? "–"}`],
  ].filter(Boolean);
  return h("li", { "data-key": String(one.id) }, h("details", null,
    h("summary", null,
      h("time", null, clock(one.at_ms)),
      h("span", { class: `dot ${good ? "good" : "bad"}` }, one.variant || one.error?.code || one.outcome),
      h("span", { class: "why-short" }, good ? one.reason : one.error?.code === one.outcome || !one.variant ? "" : one.outcome),
      h("span", { class: "asked" }, asked.join(" · ")),
      h("span", { class: "figure" }, ms(one.latency_ms))),
    h("dl", { class: "facts" }, facts.flatMap(([name, text]) => [h("dt", null, name), h("dd", null, text)])),
    one.refused.length
      ? h("ul", { class: "refused" }, one.refused.map((other) => h("li", null, h("b", null, other.variant), " ", refusal(other))))
      : null));
}
