// The last minutes: which variants answered, and beside it promises kept, latency, queue and lanes.
// The library draws on canvases, which read their colours from the page's style.

import { byId, h, show } from "./dom.js";
import { minutes } from "./history.js";
import { clock, colours, figure, ms } from "./words.js";

const MIX_PX = 300, SMALL_PX = 62;
const small = [
  ["attainment", "Deadlines kept", (value) => `${figure(value, 4)} %`, "--good", [null, 100]],
  ["p99", "Latency p99", ms, "--accent", [0, null]],
  ["queued", "Queued, most", (value) => figure(value), "--wait", [0, null]],
  ["busy", "Lanes busy", (value) => figure(value), "--quiet", [0, null]],
];

let charts = [];
let drawn = "";

// Forget what was drawn, as when colours or sizes are others now.
export function redraw() { drawn = ""; }

// `library` is uPlot, or null where the gateway has none: the table says it then.
export function showTraffic(root, model, told, library, lanes) {
  const seen = Object.keys(told.variants);
  const any = seen.length > 0 || told.failed.some((n) => n > 0);
  const shape = JSON.stringify([model.name, seen, any, Boolean(library), root.clientWidth]);
  if (!library || !any) {
    charts = [];
    drawn = shape;
    show(root, h("p", { class: "empty" }, any
      ? "The chart library is not installed here (the extra “console”); the table below has the figures."
      : "No request has come in these minutes. Send one above, and it shows here within seconds."));
    return;
  }
  if (shape !== drawn) {
    for (const { chart } of charts) chart.destroy();
    root.replaceChildren(...frame(model, seen));
    charts = make(root, model, told, seen, library, lanes);
    drawn = shape;
  } else {
    for (const { chart, data } of charts) chart.setData(data(told, seen));
  }
  read(told, seen, null);
}

function frame(model, seen) {
  const colour = colours(model);
  const legend = [...seen.map((name) => [name, colour[name]]), ["refused or failed", "cbad"]];
  return [
    h("figure", { class: "mix" },
      h("figcaption", null, "Answers a second, by variant"),
      h("div", { class: "plot", "data-plot": "mix" }),
      h("ul", { class: "legend" }, legend.map(([name, kind]) => h("li", null,
        h("span", { class: `swatch ${kind}` }), name, " ", h("output", { "data-value": name }))),
        h("li", { class: "quiet", "data-time": true }))),
    h("div", { class: "beside" }, small.map(([key, title]) => h("figure", null,
      h("figcaption", null, title, h("output", { "data-value": key })), h("div", { class: "plot", "data-plot": key })))),
  ];
}

function make(root, model, told, seen, uPlot, lanes) {
  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(name).trim();
  const colour = colours(model);
  const font = "11px system-ui, sans-serif";
  const common = (width, height) => ({
    width, height, legend: { show: false },
    cursor: { sync: { key: "traffic" }, drag: { x: false, y: false }, points: { show: false }, y: false },
    hooks: { setCursor: [(chart) => read(latest.told, latest.seen, chart.cursor.idx)] },
  });
  const axis = (more) => ({ stroke: ink("--quiet"), font, grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false }, ...more });
  const time = axis({
    incrs: [15, 60, 120, 300], space: 64, grid: { show: false }, size: 22,
    values: (_, ticks, axisIndex, space, step) => ticks.map((tick) => clock(tick * 1000).slice(0, step < 60 ? 8 : 5)),
  });
  const stepped = uPlot.paths.stepped({ align: 1 });
  const made = [];
  const add = (key, height, options, data) => {
    const into = root.querySelector(`[data-plot="${key}"]`);
    const chart = new uPlot({ ...common(into.clientWidth, height), ...options }, data(told, seen), into);
    made.push({ chart, data });
  };
  // The sums are drawn from the largest down, each over the one before.
  const kinds = ["--bad", ...[...seen].reverse().map((name) => `--${colour[name]}`)];
  add("mix", MIX_PX, {
    scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.05)] } },
    axes: [time, axis({ size: 42 })],
    series: [{}, ...kinds.map((name) => ({ fill: ink(name), width: 0, paths: stepped, points: { show: false } }))],
  }, stacked);
  for (const [key, , , tone, [low, high]] of small) {
    const top = key === "busy" ? lanes : high;
    add(key, SMALL_PX, {
      scales: { y: { range: (_, least, most) => [low ?? Math.max(0, Math.min(98, least - 1)), top ?? Math.max(1, most * 1.1)] } },
      axes: [{ show: false }, axis({ size: 42, space: 26 })],
      series: [{}, { stroke: ink(tone), fill: key === "attainment" ? null : `color-mix(in srgb, ${ink(tone)} 18%, transparent)`, width: 1.5, paths: stepped, points: { show: false }, spanGaps: key === "attainment" }],
    }, (now) => [now.times, now[key]]);
  }
  return made;
}

function stacked(told, seen) {
  const sums = [];
  let sum = told.times.map(() => 0);
  for (const list of [...seen.map((name) => told.variants[name]), told.failed]) {
    sum = sum.map((value, index) => value + list[index]);
    sums.unshift(sum);
  }
  return [told.times, ...sums];
}

let latest = { told: null, seen: [] };

// Write the figures of one step beside the charts: where the mouse is, or the last.
function read(told, seen, index) {
  latest = { told, seen };
  const at = index ?? told.times.length - 1;
  const values = { ...Object.fromEntries(seen.map((name) => [name, told.variants[name][at]])), "refused or failed": told.failed[at] };
  for (const output of document.querySelectorAll("#traffic output")) {
    const key = output.dataset.value;
    const [, , words] = small.find(([name]) => name === key) ?? [];
    const value = words ? told[key][at] : values[key];
    const text = value === null || value === undefined ? "–" : words ? words(value) : figure(value);
    if (output.textContent !== text) output.textContent = text;
  }
  const when = document.querySelector("#traffic [data-time]");
  if (when && told.times.length) when.textContent = index === null || index === undefined ? "now" : `at ${clock(told.times[at] * 1000)}`;
}

// The same as a table, minute by minute, for whoever does not look at charts.
export function showTrafficTable(told) {
  const seen = Object.keys(told.variants);
  show(byId("traffic-table").querySelector("div"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Traffic by minute" }, h("table", null,
    h("caption", { class: "hidden" }, "Traffic by minute, newest first"),
    h("thead", null, h("tr", null, ["Minute", ...seen, "Refused or failed", "Deadlines kept, least", "p99, most", "Queued, most", "Lanes busy, most"]
      .map((head, index) => h("th", { scope: "col", class: index ? "figure" : null }, head)))),
    h("tbody", null, minutes(told).map((row) => h("tr", { "data-key": String(row.time) },
      h("th", { scope: "row" }, clock(row.time * 1000).slice(0, 5)),
      [...seen.map((name) => figure(row.answers[name])), figure(row.failed), row.attainment === null ? "–" : `${figure(row.attainment)} %`, ms(row.p99), figure(row.queued), figure(row.busy)]
        .map((text) => h("td", { class: "figure" }, text))))))));
}
