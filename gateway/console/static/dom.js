// Elements, and a way to show a new tree in an old one's place without losing focus or selection.

const SVG = "http://www.w3.org/2000/svg";

// h("td", {class: "figure"}, "1.2 ms"): properties that are null or false are left out.
export const h = (tag, properties, ...children) =>
  fill(document.createElement(tag), properties, children);

// The same for SVG; attributes alone, never `style`, which the page's policy forbids.
export const s = (tag, properties, ...children) =>
  fill(document.createElementNS(SVG, tag), properties, children);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Make `root` hold `nodes`. What is there already and differs is altered in place; children with
// `data-key` are matched by it. Events are therefore listened to on the root, by `data-…`.
export function show(root, ...nodes) {
  const wanted = document.createDocumentFragment();
  wanted.append(...nodes.flat(3).filter((node) => node !== null && node !== false));
  alterChildren(root, wanted);
}

function alterChildren(from, to) {
  const keyed = new Map();
  for (const child of from.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let at = from.firstChild;
  for (const want of [...to.childNodes]) {
    const key = want.dataset?.key;
    const have = key ? keyed.get(key) : at?.dataset?.key ? null : at;
    if (!have) {
      from.insertBefore(want, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else from.insertBefore(have, at);
    alter(have, want);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function alter(from, to) {
  if (from.nodeName !== to.nodeName) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name, value } of to.attributes)
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  for (const { name } of [...from.attributes])
    // Whether details are open is the reader's business.
    if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
  alterChildren(from, to);
}

export const byId = (id) => document.getElementById(id);
