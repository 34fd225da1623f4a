// The table of a model's variants, and a variant's card in full.

import { byId, h, show } from "./dom.js";
import { bytes, colours, count, figure, ms, percent, stateOf, usd } from "./words.js";

export function showVariants(root, model, shares) {
  const colour = colours(model);
  const metric = model.metric ? model.metric[0].toUpperCase() + model.metric.slice(1) : "Accuracy";
  const heads = ["Variant", "State", metric, "Card p50 / p99", "Live p50 / p99", "USD per million", "Share of answers"];
  show(root, h("table", { class: "stacks", role: "table" },
    h("caption", { class: "hidden" }, `Variants of ${model.name}`),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map((head, index) =>
      h("th", { scope: "col", role: "columnheader", class: index > 1 ? "figure" : null }, head)))),
    h("tbody", { role: "rowgroup" }, model.variants.map((one) => {
      const cell = (label, ...content) => h("td", { role: "cell", class: "figure", "data-label": label }, h("div", null, content));
      return h("tr", { role: "row", "data-key": one.name },
        h("th", { scope: "row", role: "rowheader" },
          h("button", { type: "button", class: "name", "data-card": one.name, "aria-haspopup": "dialog" },
            h("span", { class: `swatch ${colour[one.name]}` }), one.name),
          one.name === model.reference ? h("span", { class: "tag" }, "reference") : null,
          Object.entries(model.aliases).filter(([alias, name]) => name === one.name && alias !== "reference")
            .map(([alias]) => h("span", { class: "tag" }, alias)),
          one.description ? h("small", null, one.description) : null),
        stateCell(one, model),
        cell(metric, percent(one.accuracy), one.accuracy === null ? null : h("small", null, `[${percent(one.accuracy_low, 1)}, ${percent(one.accuracy_high, 1)}]`)),
        cell("Card p50 / p99", one.p50_ms === null ? "–" : `${ms(one.p50_ms)} / ${ms(one.p99_ms)}`),
        cell("Live p50 / p99", one.live ? `${ms(one.live.p50_ms)} / ${ms(one.live.p99_ms)}` : "–",
          one.live ? h("small", null, count(one.live.answers, "answer")) : null),
        cell("USD per million", figure(one.cost_usd_per_million)),
        cell("Share of answers", shares?.[one.name] === undefined ? "–" : percent(shares[one.name], 1),
          h("progress", { class: `share ${colour[one.name]}`, max: 1, value: shares?.[one.name] ?? 0, "aria-hidden": "true" })));
    }))));
}

function stateCell(one, model) {
  const [tone, word] = stateOf(one.state);
  const notes = [
    one.why || null,
    one.replacing ? "a new build of it is coming" : null,
    one.breaker && one.breaker !== "closed" ? `breaker ${one.breaker}` : null,
    model.pinned === one.name ? "pinned" : null,
    one.canary_weight ? `canary, ${percent(one.canary_weight, 0)}` : null,
    one.shadow_share ? `shadow, ${percent(one.shadow_share, 0)}` : null,
  ].filter(Boolean);
  return h("td", { role: "cell", "data-label": "State" }, h("div", null,
    h("span", { class: `dot ${tone}` }, word),
    notes.map((note) => h("small", { class: "why" }, note))));
}

export function openCard(model, name) {
  const variant = model.variants.find((one) => one.name === name);
  if (!variant) return;
  const { card } = variant;
  const dialog = byId("card");
  const head = h("form", { method: "dialog", class: "panel-head" },
    h("h2", { id: "card-title" }, `${model.name} / ${name}`), h("button", { class: "plain" }, "Close"));
  if (!card) {
    dialog.replaceChildren(head, h("p", null, `No card can be read: ${variant.why || variant.state}.`));
    dialog.showModal();
    return;
  }
  const difference = card.paired;
  const points = (value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(2)}`;
  dialog.replaceChildren(
    head,
    h("p", { class: "quiet" }, card.description),
    h("dl", { class: "facts" }, facts([
      [card.task.metric, `${percent(card.accuracy.value)} [${percent(card.accuracy.low)}, ${percent(card.accuracy.high)}], ${card.accuracy.method}`],
      ["against the reference", `${points(difference.value)} points [${points(difference.low)}, ${points(difference.high)}], paired`],
      ["measured on", `${card.task.samples.toLocaleString("en")} ${card.task.split} samples` +
        (card.task.clusters !== card.task.samples ? ` from ${card.task.clusters.toLocaleString("en")} sources` : "")],
      ["recipe", card.recipe.length ? card.recipe.map((step) => step.technique).join(", then ") : "none: the network as it came"],
      ["precision", card.precision],
      ["engine", `${card.engine.name} ${card.engine.version}, ${card.engine.format}`],
      ["kernels that ran", Object.entries(card.engine.kernels).map(([kind, number]) => `${number} ${kind}`).join(", ")],
      ["parameters", card.parameters.toLocaleString("en")],
      ["on disk / in memory", `${bytes(card.bytes_on_disk)} / ${bytes(card.resident_bytes)}`],
      ["machine", `${card.machine.cpu}, ${count(card.machine.cores, "core")}, ${card.machine.system}`],
      ["built", `${card.created}, in ${figure(card.build_seconds)} s`],
    ])),
    h("h3", null, "Latency by batch, one thread unless it says so"),
    h("div", { class: "scroll" }, h("table", null,
      h("thead", null, h("tr", null, ["Batch", "Threads", "Runs", "p50", "p95", "p99", "Spread"].map((head) => h("th", { scope: "col", class: "figure" }, head)))),
      h("tbody", null, card.latency.map((point) => h("tr", null,
        [point.batch, point.threads, point.runs, ms(point.p50_ms), ms(point.p95_ms), ms(point.p99_ms), ms(point.spread_ms)]
          .map((value) => h("td", { class: "figure" }, String(value)))))))),
    h("details", null, h("summary", null, "The card as it lies beside the weights"),
      h("pre", { tabindex: "0" }, JSON.stringify(card, null, 2))),
  );
  dialog.showModal();
}

const facts = (pairs) => pairs.flatMap(([name, text]) => [h("dt", null, name), h("dd", null, text)]);
