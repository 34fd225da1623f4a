// What operators may change, variant by variant, each change confirmed first.

import { ask } from "./ask.js";
import { byId, h, show } from "./dom.js";
import { percent, stateOf } from "./words.js";

const path = (model, rest) => `/console/admin/models/${encodeURIComponent(model)}/${rest}`;
const post = (model, name, what, body) => [path(model, `variants/${encodeURIComponent(name)}/${what}`), { method: "POST", body }];

// By name: the request, and what it does, in words.
const ACTIONS = {
  enable: (model, name) => [...post(model, name, "enable", null), `${name} serves as the others do; a share it had as a canary or shadow ends.`],
  disable: (model, name) => [...post(model, name, "disable", null), `${name} answers nothing more and is freed, once what was promised on it has run.`],
  pin: (model, name) => [path(model, "pin"), { method: "PUT", body: JSON.stringify({ variant: name }) }, `${name} answers every request that names no variant, whatever it asks.`],
  unpin: (model, name) => [path(model, "pin"), { method: "DELETE" }, `${name} is one of several again: each request is decided by what it asks.`],
  canary: (model, name, share) => [...post(model, name, "canary", JSON.stringify({ share })), `${name} gets ${percent(share, 1)} of the requests that it may answer, and no others.`],
};
const TITLES = { enable: "Enable", disable: "Disable", pin: "Pin", unpin: "Unpin", canary: "Canary" };

export function showOperate(root, model) {
  const button = (action, name) => h("button", { type: "button", "data-do": action, "data-name": name, "aria-label": `${TITLES[action]} ${name}` }, TITLES[action]);
  show(root, h("ul", { class: "operate" }, model.variants.map((one) => {
    const [tone, word] = stateOf(one.state);
    return h("li", { "data-key": one.name },
      h("b", null, one.name),
      h("span", { class: `dot ${tone}` }, word, model.pinned === one.name ? ", pinned" : "", one.canary_weight ? `, canary ${percent(one.canary_weight, 1)}` : ""),
      h("span", { class: "buttons" },
        button(one.state === "disabled" || one.canary_weight || one.shadow_share ? "enable" : "disable", one.name),
        button(model.pinned === one.name ? "unpin" : "pin", one.name),
        h("label", null, h("span", { class: "hidden" }, `Canary share of ${one.name}, percent`), h("input", { type: "number", min: 0.1, max: 100, step: "any", value: 5, "data-share": one.name }), " %"),
        button("canary", one.name)));
  })));
}

// Listen once: a button asks for confirmation, then sends its request; `changed` follows.
export function operating(root, modelNow, changed) {
  root.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-do]");
    if (!button) return;
    const { do: action, name } = button.dataset;
    const share = Number(root.querySelector(`[data-share="${CSS.escape(name)}"]`).value) / 100;
    const model = modelNow().name;
    const [address, request, means] = ACTIONS[action](model, name, share);
    if (!(await confirmed(`${TITLES[action]} ${name} of ${model}?`, means, TITLES[action]))) return;
    const said = byId("operated");
    said.className = "quiet";
    said.textContent = `${TITLES[action]} ${name}: under way …`;
    try {
      await ask(address, request);
      said.className = "good";
      said.textContent = `${TITLES[action]} ${name}: done.`;
    } catch (problem) {
      said.className = "bad";
      said.textContent = `${TITLES[action]} ${name}: ${problem.status || ""} ${problem.message}`;
    }
    changed();
  });
}

function confirmed(title, means, word) {
  const dialog = byId("confirm");
  dialog.replaceChildren(h("form", { method: "dialog" },
    h("h2", { id: "confirm-title" }, title), h("p", null, means),
    h("div", { class: "buttons" }, h("button", { value: "" }, "Cancel"), h("button", { value: "yes", class: "primary" }, word))));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
