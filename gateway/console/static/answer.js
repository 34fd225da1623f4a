// An answer to a real request, or the problem that came in its place.

import { h, s, show } from "./dom.js";
import { nearest, refusals } from "./decision.js";
import { colours, figure, ms, percent, usd } from "./words.js";

const MOST_BARS = 12, MOST_TEXT = 600;

export function showAnswer(root, model, answer) {
  const colour = colours(model);
  const { headers, body } = answer;
  const name = headers["gearshift-variant"] ?? body.model_version;
  show(root,
    h("p", { class: "verdict" }, h("span", { class: `swatch ${colour[name]}` }), h("b", null, name), h("span", { class: "quiet" }, ` answered ${answer.status} in ${ms(answer.tookMs)}`)),
    (body.outputs ?? []).map((output) => shown(output, model.labels)),
    timing(headers["server-timing"], answer.tookMs),
    h("dl", { class: "facts" }, [
      ["reason", headers["gearshift-reason"]],
      ["accuracy", headers["gearshift-accuracy"] && percent(Number(headers["gearshift-accuracy"]))],
      ["charged", headers["gearshift-cost-usd-per-million"] && `${usd(Number(headers["gearshift-cost-usd-per-million"]))} per million`],
      ["predicted", headers["gearshift-predicted-latency-ms"] && `at most ${ms(Number(headers["gearshift-predicted-latency-ms"]))}`],
      ["gave way", headers["gearshift-relaxed"]],
      ["request id", headers["x-request-id"]],
    ].filter(([, text]) => text).flatMap(([term, text]) => [h("dt", null, term), h("dd", null, text)])));
}

export function showProblem(root, model, problem) {
  const { status, body, headers } = problem;
  const wait = headers?.["retry-after"];
  show(root,
    h("p", { class: "verdict bad" }, h("b", null, status ? `${status} ` : ""), body.title ?? "No answer"),
    h("p", null, body.detail ?? ""),
    wait ? h("p", { class: "quiet" }, `It says to come back in ${wait} s.`) : null,
    nearest(body),
    refusals(body.refused, colours(model)),
    body.code ? h("p", { class: "quiet" }, `code: ${body.code}${body.retryable ? ", may succeed later" : ""}`) : null);
}

function shown(output, labels) {
  const values = output.data;
  // One row of scores, a class each; hundreds of figures without names, as of an embedding, are none.
  const row = Array.isArray(values) && typeof values[0] === "number" && output.shape.length === 2 && output.shape[0] === 1;
  const bars = row && values.length > 1 && (labels?.length === values.length || values.length <= MOST_BARS);
  if (!bars) {
    const text = JSON.stringify(values ?? null);
    return h("div", { class: "output" }, h("h3", null, output.name),
      h("pre", { tabindex: "0" }, text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)} …` : text));
  }
  const best = values.indexOf(Math.max(...values));
  const word = (index) => labels?.[index] ?? String(index);
  const low = Math.min(...values), span = values[best] - low || 1;
  let rows = values.map((value, index) => [value, index]);
  if (rows.length > MOST_BARS) rows = rows.sort((a, b) => b[0] - a[0]).slice(0, MOST_BARS);
  return h("div", { class: "output" },
    h("p", { class: "read" }, h("b", null, word(best)), h("span", { class: "quiet" }, ` is the largest of ${values.length} ${output.name}`)),
    h("table", { class: "bars" }, h("caption", { class: "hidden" }, output.name), h("tbody", null, rows.map(([value, index]) =>
      h("tr", { class: index === best ? "best" : null }, h("th", { scope: "row" }, word(index)),
        h("td", null, h("progress", { max: 1, value: Math.max(0.01, (value - low) / span), "aria-hidden": "true" })),
        h("td", { class: "figure" }, figure(value)))))));
}

function timing(text, tookMs) {
  if (!text) return null;
  const parts = [...text.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, took]) => [name, Number(took)]);
  const rest = Math.max(0, tookMs - parts.reduce((sum, [, took]) => sum + took, 0));
  const all = [...parts, ["network and browser", rest]];
  const sum = all.reduce((total, [, took]) => total + took, 0) || 1;
  const words = all.map(([name, took]) => `${name} ${ms(took)}`);
  let from = 0;
  const strip = s("svg", { viewBox: "0 0 100 6", class: "timing", preserveAspectRatio: "none", "aria-hidden": "true" });
  all.forEach(([, took], index) => {
    const width = (100 * took) / sum;
    strip.append(s("rect", { x: from, y: 0, width, height: 6, class: `t${index}` }));
    from += width;
  });
  return h("div", { class: "took" }, strip, h("p", null, words.map((word, index) => h("span", null, h("span", { class: `swatch t${index}` }), word))));
}
