// Try it: the sliders' dry run as they move, a real request, and the commands that send the same.

import { showAnswer, showProblem } from "./answer.js";
import { Problem, ask, hasKey } from "./ask.js";
import { copy, curl, python } from "./commands.js";
import { showDecision } from "./decision.js";
import { Demands } from "./demands.js";
import { byId, h, show } from "./dom.js";
import { Input } from "./input.js";

const REST_MS = 80;
// Of a command, so many letters are shown; all of them are copied.
const MOST_SHOWN = 16000;

export class Trial {
  // `decided` is told of every new decision, to draw it.
  constructor(decided) {
    this.decided = decided;
    this.decision = null;
    // A key that may not ask is not asked with again until something changes.
    this.barred = false;
    this.language = "curl";
    this.demands = new Demands(byId("demands"), () => this.#moved());
    this.input = new Input(byId("input"), byId("kinds"), () => this.#write());
    byId("no-demands").addEventListener("click", () => this.demands.build(this.model));
    for (const root of [byId("decision"), byId("answer")])
      root.addEventListener("click", (event) => {
        const button = event.target.closest("[data-use]");
        if (button) this.demands.set(JSON.parse(button.dataset.use));
      });
    byId("input").addEventListener("click", ({ target }) => {
      if ("send" in target.dataset) this.#send(target);
      else if ("clear" in target.dataset) this.input.clear();
      else if ("sample" in target.dataset) this.input.sample();
    });
    byId("commands").addEventListener("click", ({ target }) => this.#command(target));
    byId("commands").addEventListener("change", ({ target }) => {
      this.language = target.value;
      this.#write();
    });
  }

  build(model) {
    this.model = model;
    this.decision = null;
    this.demands.build(model);
    this.input.build(model);
    show(byId("answer"), h("p", { class: "empty" }, "The answer comes here: what was read, which variant read it, why, and where the time went."));
  }

  get asked() {
    return this.demands.asked();
  }

  #moved() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.decide(), REST_MS);
    this.#write();
    this.decided();
  }

  // Ask who would answer now; only the last question counts.
  async decide() {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const model = this.model;
    try {
      const { body } = await ask(`/v2/models/${encodeURIComponent(model.name)}/decide`, { method: "POST", headers: this.demands.headers(), signal: asking.signal });
      if (asking.signal.aborted) return;
      this.decision = body;
      this.barred = false;
      showDecision(byId("decision"), model, body);
    } catch (problem) {
      if (!(problem instanceof Problem)) return;
      this.decision = null;
      this.barred = problem.status === 401 || problem.status === 403;
      showProblem(byId("decision"), model, problem);
    }
    this.decided();
  }

  get #url() {
    return `/v2/models/${encodeURIComponent(this.model.name)}/infer`;
  }

  async #send(button) {
    const { model, input: { body, lacks } } = this;
    if (!body) {
      show(byId("answer"), h("p", { class: "verdict bad" }, h("b", null, "Nothing was sent")), h("p", null, lacks));
      byId("answered").textContent = `Nothing was sent. ${lacks}`;
      return;
    }
    button.disabled = true;
    try {
      const headers = { ...body.headers, ...this.demands.headers() };
      showAnswer(byId("answer"), model, await ask(this.#url, { method: "POST", headers, body: body.content }));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      showProblem(byId("answer"), model, problem);
    } finally {
      button.disabled = false;
      // Said in one line: the figures are there to be read.
      byId("answered").textContent = [".verdict", ".read"].map((part) => byId("answer").querySelector(part)?.textContent ?? "").join(". ");
    }
  }

  #write() {
    if (!this.input || !this.model) return;
    const { body, lacks } = this.input;
    if (!body) {
      show(byId("commands"), h("p", { class: "empty" }, lacks || "Nothing to send."));
      return;
    }
    const make = this.language === "curl" ? curl : python;
    const text = (this.command = make(location.origin + this.#url, this.demands.headers(), body, hasKey()));
    const half = MOST_SHOWN / 2;
    const shown = text.length <= MOST_SHOWN ? text
      : `${text.slice(0, half)}\n… ${(text.length - MOST_SHOWN).toLocaleString("en")} letters are left out here and are copied …\n${text.slice(-half)}`;
    show(byId("commands"),
      h("div", { class: "panel-head" },
        h("fieldset", { class: "switch" }, h("legend", { class: "hidden" }, "The same request as"),
          [["curl", "curl"], ["python", "Python"]].map(([value, word]) => h("label", null,
            h("input", { type: "radio", name: "language", value, checked: value === this.language }), h("span", null, word)))),
        h("button", { type: "button", "data-copy": true }, "Copy")),
      h("pre", { tabindex: "0", "aria-label": "The same request as a command" }, shown));
  }

  async #command(target) {
    if (!("copy" in target.dataset)) return;
    const box = byId("commands").querySelector("pre");
    await copy(this.command, box);
    target.textContent = "Copied";
    setTimeout(() => { target.textContent = "Copy"; }, 1500);
  }
}
