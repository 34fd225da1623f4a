// The request as commands to copy. A key is never in them: they read GEARSHIFT_KEY.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curl(url, headers, body, keyed) {
  const lines = [`curl -sS -i ${shell(url)}`, "-H 'Content-Type: application/json'"];
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${shell(`${name}: ${value}`)}`);
  if (keyed) lines.push('-H "Authorization: Bearer $GEARSHIFT_KEY"');
  lines.push(`--data-raw ${shell(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

export function python(url, headers, body, keyed) {
  const entries = Object.entries(headers).map(([name, value]) => `    ${literal(name)}: ${literal(value)},`);
  if (keyed) entries.push('    "Authorization": f"Bearer {os.environ[\'GEARSHIFT_KEY\']}",');
  return [
    ...(keyed ? ["import os", ""] : []),
    "import httpx",
    "",
    entries.length ? `headers = {\n${entries.join("\n")}\n}` : "headers = {}",
    `body = ${literal(body)}`,
    `answer = httpx.post(${literal(url)}, json=body, headers=headers)`,
    "answer.raise_for_status()",
    'print(answer.headers["gearshift-variant"], answer.headers["gearshift-reason"])',
    'print(answer.json()["outputs"])',
  ].join("\n");
}

// A JSON value as Python writes it.
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${literal(key)}: ${literal(each)}`).join(", ")}}`;
  // A JSON string is a Python string but for what lies beyond 16 bits, which JSON leaves as it is.
  return JSON.stringify(value);
}

export async function copy(text, box) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard: select it and copy as one would by hand.
    getSelection().selectAllChildren(box);
    document.execCommand("copy");
  }
}
