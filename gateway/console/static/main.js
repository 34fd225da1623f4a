// The page: looks at the gateway again and again, and gives each part what is its own to show.

import { ask, useKey } from "./ask.js";
import { forgetDecisions, showDecisions, takeDecisions } from "./decisions.js";
import { byId, h, show } from "./dom.js";
import { drawFrontier } from "./frontier.js";
import { series, shares } from "./history.js";
import { showLanes } from "./lanes.js";
import { operating, showOperate } from "./operate.js";
import { redraw, showTraffic, showTrafficTable } from "./traffic.js";
import { Trial } from "./trial.js";
import { openCard, showVariants } from "./variants.js";
import { count, demand, demandName, ms } from "./words.js";

const LOOK_MS = 2000, HISTORY_MS = 5000, SLOWEST_MS = 15000;

const page = { state: null, model: null, history: null, axis: "latency", minutes: 5, paused: false, barred: false, library: null, failures: 0, historyAt: -Infinity };
const trial = new Trial(() => drawNow());
let timer = 0;

// One look: the state and the decisions, and the history every few seconds.
async function look() {
  clearTimeout(timer);
  try {
    const { body: state } = await ask("/console/state");
    if (page.failures) forgetDecisions();
    page.failures = 0;
    page.barred = false;
    notice(null);
    await library(state);
    await took(state);
    if (page.model) {
      await takeDecisions(page.model, ask);
      const now = performance.now();
      if (now - page.historyAt >= HISTORY_MS - LOOK_MS / 2) {
        page.historyAt = now;
        page.history = (await ask(`/console/history?minutes=${page.minutes}`)).body;
        if (page.model && !trial.barred) trial.decide();
      }
    }
    render();
  } catch (problem) {
    if (problem.status === undefined) throw problem;
    failed(problem);
  } finally {
    // A page that nobody sees asks nothing; one that gets no answer asks less and less often.
    const next = Math.min(SLOWEST_MS, LOOK_MS * 2 ** Math.min(page.failures, 4));
    if (!page.paused && !page.barred && !document.hidden) timer = setTimeout(look, next);
  }
}

async function library(state) {
  if (page.library || !state.charts) return;
  document.head.append(h("link", { rel: "stylesheet", href: "/console/charts.css" }));
  const script = h("script", { src: "/console/charts.js" });
  const loaded = new Promise((resolve) => {
    script.addEventListener("load", () => resolve(window.uPlot ?? null));
    script.addEventListener("error", () => resolve(null));
  });
  document.head.append(script);
  page.library = await loaded;
}

// The model that the address names, or nothing where it is no text at all.
function named() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function took(state) {
  page.state = state;
  const wanted = named() || page.model?.name;
  const model = state.models.find((one) => one.name === wanted) ?? state.models[0] ?? null;
  const before = page.model;
  page.model = model;
  // Built anew only for another model or other variants: what was drawn and set stays.
  const shape = (one) => one && JSON.stringify([one.name, one.variants.map((each) => each.name), one.aliases]);
  if (model && shape(model) !== shape(before)) {
    redraw();
    byId("model").hidden = false;
    trial.build(model);
  } else if (model) trial.model = model;
}

function failed(problem) {
  if (problem.status === 401 || problem.status === 403) {
    page.state = page.model = null;
    byId("model").hidden = byId("left-out").hidden = true;
    byId("status").className = "status dot wait";
    byId("status").textContent = problem.status === 401 ? "A key is needed" : "This key may not read";
    byId("vitals").textContent = "";
    show(byId("nothing"), h("h2", null, byId("status").textContent), h("p", null, problem.message),
      h("p", null, h("button", { type: "button", class: "primary", "data-key-dialog": true }, "Give a key")));
    byId("nothing").hidden = false;
    notice(null);
    page.barred = true;
    return;
  }
  page.failures += 1;
  byId("status").className = "status dot bad";
  byId("status").textContent = problem.status ? `Answers ${problem.status}` : "The gateway does not answer";
  notice(problem.status ? problem.message : "The gateway does not answer. What is shown is old; this page tries again by itself.");
}

function notice(text) {
  const root = byId("notice");
  if ((root.textContent || null) === text) return;
  show(root, text === null ? null : h("p", null, text));
  document.body.classList.toggle("stale", text !== null);
}

function render() {
  const { state, model } = page;
  byId("status").className = `status dot ${state.status.tone}`;
  if (byId("status").textContent !== state.status.text) byId("status").textContent = state.status.text;
  const busy = state.lanes.filter((lane) => lane.busy).length;
  byId("vitals").textContent = [
    `${busy} of ${count(state.lanes.length, "lane")} busy`,
    state.queue.requests ? `${state.queue.requests} queued, oldest ${ms(state.queue.oldest_ms)}` : "nothing queued",
    state.workers > 1 ? count(state.workers, "worker") : null,
    state.silent?.length ? `${state.silent.length} of them silent` : null,
  ].filter(Boolean).join(" · ");
  byId("version").textContent = `Gearshift ${state.version}`;
  document.title = model ? `Gearshift: ${model.name}` : "Gearshift";
  byId("models").hidden = state.models.length < 2;
  show(byId("models"), state.models.map((one) => h("a", { href: `#${encodeURIComponent(one.name)}`, "aria-current": one === model ? "true" : null }, one.name)));
  byId("left-out").hidden = !state.left_out.length;
  show(byId("left-out").querySelector("ul"), state.left_out.map((text) => h("li", { class: "why" }, text)));
  byId("model").hidden = !model;
  byId("nothing").hidden = Boolean(model);
  if (!model) {
    show(byId("nothing"), h("h2", null, "No model in the store"),
      h("p", null, "A folder of variants is served as soon as it lies in the store. This makes one:"),
      h("pre", { tabindex: "0" }, "gearshift compress digits --out MODELS"));
    return;
  }
  const told = page.history && series(page.history, model, state.now_ms);
  drawNow();
  showVariants(byId("variants"), model, told && shares(told));
  byId("measured").textContent = model.samples === null ? ""
    : `Brackets: 95 % interval, on ${model.samples.toLocaleString("en")} test samples. Times and costs: one row alone, one thread.`;
  if (told) {
    showTraffic(byId("traffic"), model, told, page.library, state.lanes.length);
    if (!page.library) byId("traffic-table").open = true;
    if (byId("traffic-table").open) showTrafficTable(told);
  }
  showLanes(byId("lanes"), state.lanes, state.queue);
  showDecisions(byId("decisions"), model);
  byId("operate-panel").hidden = !state.admin;
  if (state.admin) showOperate(byId("operate"), model);
}

function drawNow() {
  const { model } = page;
  if (!model) return;
  drawFrontier(byId("frontier"), model, page.axis, trial.asked, trial.decision);
  const defaults = Object.entries(model.default_constraints ?? {}).map(([name, value]) => `${demandName(name)} ${demand(name, value)}`);
  byId("frontier-note").textContent =
    (page.axis === "latency" ? "Idle, a variant fits when its whole cross does; under load its wait and what was seen lately count too. Bar at a dotted line: the live median of the last minute. " : "") +
    (defaults.length ? `Who asks for nothing gets: ${defaults.join(", ")}. ` : "") +
    (model.served === false ? "Taken out of service by its operator. " : "") +
    (model.pinned ? `${model.pinned} is pinned. ` : "");
}

document.addEventListener("click", (event) => {
  const card = event.target.closest("[data-card]");
  if (card && page.model) openCard(page.model, card.dataset.card);
  if (event.target.closest("[data-key-dialog], #key-button")) {
    byId("key-field").value = "";
    byId("key").returnValue = "";
    byId("key").showModal();
  }
});
byId("key").addEventListener("close", () => {
  const { returnValue } = byId("key");
  const text = byId("key-field").value.trim();
  byId("key-field").value = "";
  if (returnValue !== "forget" && !(returnValue === "use" && text)) return;
  // What no header can carry is no key: it is sent as one that nobody has.
  useKey(returnValue === "forget" ? "" : text.replaceAll(/[^\x21-\x7e]/g, "?"));
  byId("key-button").textContent = returnValue === "forget" ? "Key" : "Key: given";
  page.historyAt = -Infinity;
  trial.barred = false;
  look();
});
// The address behind its # is the model's: the link moves the focus alone.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId(page.model ? "model" : "nothing").focus();
});
byId("pause").addEventListener("click", ({ target }) => {
  page.paused = !page.paused;
  target.setAttribute("aria-pressed", String(page.paused));
  if (page.paused) clearTimeout(timer);
  else look();
});
byId("axis").addEventListener("change", ({ target }) => {
  page.axis = target.value;
  drawNow();
});
byId("minutes").addEventListener("change", ({ target }) => {
  page.minutes = Number(target.value);
  page.historyAt = -Infinity;
  look();
});
byId("filter").addEventListener("change", () => {
  showDecisions(byId("decisions"), page.model);
  takeDecisions(page.model, ask).then(() => showDecisions(byId("decisions"), page.model), () => {});
});
byId("traffic-table").addEventListener("toggle", () => page.state && render());
document.addEventListener("visibilitychange", () => !document.hidden && !page.paused && !page.barred && look());
addEventListener("online", () => look());
addEventListener("hashchange", () => page.state && (took(page.state), render(), trial.decide()));
const again = () => {
  redraw();
  if (page.state) render();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
let width = 0;
new ResizeObserver(([{ contentRect }]) => {
  if (contentRect.width !== width && width) requestAnimationFrame(again);
  width = contentRect.width;
}).observe(document.body);
operating(byId("operate"), () => page.model, look);
look();
