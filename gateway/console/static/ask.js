// Requests to the gateway that served this page. The key is held here, in memory alone.

let key = "";

export const useKey = (text) => { key = text; };
export const hasKey = () => key !== "";

// An answer that is no success, or none at all (status 0).
export class Problem extends Error {
  constructor(status, body, headers) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

// The answer's body as JSON, its headers and how long it took; raises a Problem.
export async function ask(path, { method = "GET", body = null, headers = {}, signal = null } = {}) {
  const sent = { ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  if (body !== null) sent["Content-Type"] ??= "application/json";
  const since = performance.now();
  let response, text;
  try {
    response = await fetch(path, { method, body, headers: sent, signal, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "The gateway does not answer", detail: "The gateway does not answer." });
  }
  const tookMs = performance.now() - since;
  const said = Object.fromEntries(response.headers);
  let parsed;
  try {
    parsed = text ? JSON.parse(text) : {};
  } catch {
    parsed = { title: `HTTP ${response.status}`, detail: text.slice(0, 200) };
  }
  if (!response.ok) throw new Problem(response.status, parsed, said);
  return { status: response.status, body: parsed, headers: said, tookMs };
}
