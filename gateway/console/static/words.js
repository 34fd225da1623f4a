// Figures and names as a reader wants them.

export const OBJECTIVES = ["accuracy", "cost", "latency"];

const STATES = {
  ready: ["good", "serves"],
  loading: ["wait", "loading"],
  evicted: ["wait", "evicted"],
  disabled: ["off", "disabled"],
  shadow: ["off", "shadow"],
  failed: ["bad", "failed"],
};
export const stateOf = (state) => STATES[state] ?? ["wait", state];

// The colour of each variant of a model, by its place in the list: a class of page.css. Another
// eight are darker, and eight more lighter; beyond that they come again.
const COLOURS = 24;
export const colours = (model) =>
  Object.fromEntries(model.variants.map((variant, index) => [variant.name, `c${index % COLOURS}`]));

export function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  return value.toLocaleString("en", {
    minimumFractionDigits: 0,
    maximumFractionDigits: Math.max(0, digits - 1 - size),
    useGrouping: Math.abs(value) >= 10000,
  });
}

export const ms = (value) =>
  value === null || value === undefined
    ? "–"
    : value >= 10000
      ? `${figure(value / 1000)} s`
      : `${value < 100 ? Number(value).toFixed(value < 10 ? 2 : 1) : figure(value)} ms`;

export const percent = (share, digits = 2) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;

export const usd = (value) => (value === null || value === undefined ? "–" : `$${figure(value)}`);

export const count = (value, one, many = `${one}s`) =>
  `${value.toLocaleString("en")} ${value === 1 ? one : many}`;

export const clock = (atMs) =>
  new Date(atMs).toLocaleTimeString("en-GB", { hour12: false });

export const bytes = (value) =>
  value >= 1e6 ? `${figure(value / 1e6)} MB` : value >= 1e3 ? `${figure(value / 1e3)} kB` : `${value} B`;

// A constraint's value with its unit; a relative floor is text already, such as "99%".
export function demand(name, value) {
  if (typeof value === "string" && value.endsWith("%")) {
    return `${figure(parseFloat(value), 4)} % of the reference`;
  }
  if (Array.isArray(value)) return value.join(", ");
  if (name === "max_latency_ms") return ms(Number(value));
  if (name === "min_accuracy") return percent(Number(value));
  if (name === "max_cost_usd_per_million") return `${usd(Number(value))} per million`;
  return String(value);
}

const SHORT = {
  max_latency_ms: "latency ≤",
  min_accuracy: "accuracy ≥",
  max_cost_usd_per_million: "cost ≤",
};
export const demandName = (name) => SHORT[name] ?? name.replaceAll("_", " ");

const REFUSED = {
  variant: "another variant is pinned",
  ready: "not loaded and healthy",
  canary: "a canary: gets its share alone",
};
const OFFERS = {
  max_latency_ms: (value) => `may take ${demand("max_latency_ms", value)}`,
  min_accuracy: (value) =>
    typeof value === "string"
      ? `only sure to keep ${demand("min_accuracy", value)}`
      : `only sure to reach ${demand("min_accuracy", value)}`,
  max_cost_usd_per_million: (value) => `costs ${demand("max_cost_usd_per_million", value)}`,
};
// Why one variant may not answer, in a few words.
export const refusal = (one) =>
  REFUSED[one.constraint] ??
  (one.offered === undefined || one.offered === null ? one.text : OFFERS[one.constraint]?.(one.offered) ?? one.text);
