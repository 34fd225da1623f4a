// The frontier of a model: accuracy against latency or cost, with its intervals, and what the
// sliders ask drawn over it. A variant fits when the whole of its cross does: its right end is the
// 99th percentile that a deadline is held against, its lower end what is shown of its accuracy.

import { h, s, show } from "./dom.js";
import { linear, logarithmic, place } from "./scales.js";
import { colours, figure, ms, percent, usd } from "./words.js";

const HEIGHT = 430;
const EDGE = { left: 54, right: 14, top: 12, bottom: 40 };

// `asked`: {max_latency_ms, min_accuracy (a share of 1), max_cost_usd_per_million}; `decision`: of the dry run or null.
export function drawFrontier(root, model, axis, asked, decision) {
  const variants = model.variants.filter((variant) => variant.accuracy !== null);
  if (!variants.length) {
    show(root, h("p", { class: "empty" }, "No variant of this model has been measured."));
    return;
  }
  const width = Math.max(280, root.clientWidth || 560);
  const cost = axis === "cost";
  const positive = variants.flatMap((one) => (cost ? [one.cost_usd_per_million] : [one.p50_ms, one.p99_ms])).filter((value) => value > 0);
  if (!positive.length) {
    show(root, h("p", { class: "empty" }, cost ? "Every variant costs nothing here: the price of a lane is 0." : "No variant takes any time."));
    return;
  }
  // What is 0 has no place on such a scale: it stands at the left.
  const least = Math.min(...positive);
  const middle = (one) => Math.max(least, cost ? one.cost_usd_per_million : one.p50_ms);
  const right = (one) => Math.max(least, cost ? one.cost_usd_per_million : one.p99_ms);
  const limit = cost ? asked.max_cost_usd_per_million : asked.max_latency_ms;
  const live = cost ? [] : variants.filter((one) => one.live?.p50_ms > 0).map((one) => one.live.p50_ms);
  const known = [...positive, ...live];
  const x = logarithmic(
    [Math.min(...known) / 1.35, Math.max(...known) * 1.35],
    [EDGE.left, width - EDGE.right],
  );
  const lows = variants.map((one) => one.accuracy_low), highs = variants.map((one) => one.accuracy_high);
  const margin = Math.max(0.002, (Math.max(...highs) - Math.min(...lows)) * 0.08);
  const y = linear(
    [Math.max(0, Math.min(...lows) - margin), Math.min(1, Math.max(...highs) + margin)],
    [HEIGHT - EDGE.bottom, EDGE.top],
  );
  const inside = (value, [low, high]) => Math.min(high, Math.max(low, value));
  const columns = [EDGE.left, width - EDGE.right], rows = [EDGE.top, HEIGHT - EDGE.bottom];

  const grid = [
    ...y.ticks.map((tick) => [
      s("line", { class: "grid", x1: columns[0], x2: columns[1], y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: columns[0] - 8, y: y(tick) + 4, "text-anchor": "end" }, `${figure(100 * tick, 4)} %`),
    ]),
    ...x.ticks.map((tick) => [
      s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: rows[0], y2: rows[1] }),
      s("text", { class: "tick", x: x(tick), y: rows[1] + 16, "text-anchor": "middle" }, cost ? usd(tick) : figure(tick)),
    ]),
    s("text", { class: "tick", x: columns[1], y: HEIGHT - 6, "text-anchor": "end" },
      cost ? "USD per million requests, one row each"
        : width < 480 ? "ms for one row, median to 99th percentile" : "ms for one row: median, and to the right of it the 99th percentile"),
  ];

  const limits = [];
  // A limit to the right of everything shuts out nothing: it is not drawn.
  if (limit && x(limit) < columns[1]) {
    const at = inside(x(limit), columns);
    limits.push(s("rect", { class: "shut", x: at, y: rows[0], width: columns[1] - at, height: rows[1] - rows[0] }),
      s("line", { class: "limit", x1: at, x2: at, y1: rows[0], y2: rows[1] }));
  }
  if (asked.min_accuracy && y(asked.min_accuracy) < rows[1]) {
    const at = inside(y(asked.min_accuracy), rows);
    limits.push(s("rect", { class: "shut", x: columns[0], y: at, width: columns[1] - columns[0], height: rows[1] - at }),
      s("line", { class: "limit", x1: columns[0], x2: columns[1], y1: at, y2: at }));
  }

  const refused = new Set((decision?.refused ?? []).map((one) => one.variant));
  const chosen = decision?.variant;
  const colour = colours(model);
  // The chosen one comes last, to lie on top, and is the first to get a place for its name.
  const order = [...variants].sort((a, b) => (a.name === chosen) - (b.name === chosen));
  const named = [...order].reverse();
  const places = place(
    named.map((one) => ({ x: x(middle(one)), y: y(one.accuracy), text: one.name })),
    { x: columns[0], y: rows[0] - 8, w: columns[1] - columns[0], h: rows[1] - rows[0] + 8 },
  );
  const marks = order.map((one) => {
    const px = x(middle(one)), py = y(one.accuracy);
    const spot = places[named.indexOf(one)];
    const state = one.name === chosen ? "chosen" : refused.has(one.name) || one.state !== "ready" ? "dim" : "";
    const lived = !cost && one.live?.p50_ms > 0 ? x(one.live.p50_ms) : null;
    return s("g", { class: `mark ${colour[one.name]} ${state}`, "data-key": `mark-${one.name}`, "data-card": one.name },
      s("title", null, `${one.name}: ${percent(one.accuracy)} [${percent(one.accuracy_low)}, ${percent(one.accuracy_high)}], ` +
        `p50 ${ms(one.p50_ms)}, p99 ${ms(one.p99_ms)}, ${usd(one.cost_usd_per_million)} per million`),
      s("line", { class: "whisker", x1: px, x2: px, y1: y(one.accuracy_low), y2: y(one.accuracy_high) }),
      cost ? null : s("line", { class: "whisker", x1: px, x2: x(right(one)), y1: py, y2: py }),
      lived === null ? null : [
        s("line", { class: "way", x1: px, x2: lived, y1: py, y2: py }),
        s("line", { class: "lived", x1: lived, x2: lived, y1: py - 6, y2: py + 6 })],
      s("circle", { cx: px, cy: py, r: one.name === chosen ? 6.5 : 4.5 }),
      one.name === chosen ? s("circle", { class: "ring", cx: px, cy: py, r: 11 }) : null,
      spot ? s("text", { x: spot.x + 2, y: spot.y + 11 }, one.name) : null);
  });

  // Steps up through those that no other beats in both: faster or cheaper, and more accurate.
  const steps = [];
  for (const one of [...variants].sort((a, b) => middle(a) - middle(b) || b.accuracy - a.accuracy))
    if (one.accuracy > (steps.at(-1)?.accuracy ?? 0)) steps.push(one);
  const path = steps.map((one, index) => `${index ? `H${x(middle(one))}V` : `M${x(middle(one))},`}${y(one.accuracy)}`).join("");

  show(root, s("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img",
    "aria-label": `Variants of ${model.name}: ${model.metric} against ${cost ? "cost" : "latency"}. The table of variants has the same figures.`,
  }, grid, limits, s("path", { class: "best-of", d: path }), marks));
}
