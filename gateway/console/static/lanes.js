// Lanes, what each runs now, and what waits for one.

import { byId, h, show } from "./dom.js";
import { count, ms } from "./words.js";

export function showLanes(root, lanes, queue) {
  byId("queue").textContent = queue.requests
    ? `${count(queue.requests, "request")} wait, the oldest for ${ms(queue.oldest_ms)}`
    : "Nothing waits";
  const several = new Set(lanes.map((lane) => lane.worker)).size > 1;
  show(root,
    h("ol", { class: "lanes" }, lanes.map((lane) => {
      const tone = lane.lost ? "bad" : lane.busy ? "good" : "off";
      const doing = lane.lost ? "lost" : lane.busy ? "busy" : "idle";
      return h("li", { class: doing },
        h("span", { class: "quiet" }, `${several ? `Worker ${lane.worker}, lane` : "Lane"} ${lane.lane}`), h("span", { class: `dot ${tone}` }, doing),
        h("span", { class: "doing" }, lane.busy && lane.variant ? `${lane.model} / ${lane.variant}${lane.rows ? `, ${count(lane.rows, "row")}` : ""}` : ""));
    })),
    Object.keys(queue.by_model).length > 1
      ? h("p", { class: "quiet" }, Object.entries(queue.by_model).map(([name, n]) => `${name}: ${n}`).join(" · "))
      : null);
}
