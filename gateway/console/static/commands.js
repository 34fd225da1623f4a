// The request (`body` as of body.js) as commands to copy. A key is never in them: they read GEARSHIFT_KEY.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The body comes by a here-document, for an argument of a command holds 128 KiB at most.
export function curl(url, headers, body, keyed) {
  const lines = [`curl -sS -i ${shell(url)}`];
  for (const [name, value] of Object.entries({ ...body.headers, ...headers })) lines.push(`-H ${shell(`${name}: ${value}`)}`);
  if (keyed) lines.push('-H "Authorization: Bearer $GEARSHIFT_KEY"');
  const command = [...lines, "--data-binary @-"].join(" \\\n  ");
  if (body.file === null) return `${command} <<'END'\n${body.text}\nEND`;
  const length = [...body.length].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
  return `{ printf '%s${length}' ${shell(body.text)}\nbase64 -d <<'END'\n${body.file.match(/.{1,76}/g).join("\n")}\nEND\n} | ${command}`;
}

export function python(url, headers, body, keyed) {
  const entries = Object.entries(headers).map(([name, value]) => `    ${literal(name)}: ${literal(value)},`);
  if (keyed) entries.push('    "Authorization": f"Bearer {os.environ[\'GEARSHIFT_KEY\']}",');
  const file = body.file !== null;
  const own = [...(file ? ["base64", "json"] : []), ...(keyed ? ["os"] : [])].map((name) => `import ${name}`);
  return [
    ...(own.length ? [...own, ""] : []),
    "import httpx",
    "",
    entries.length ? `headers = {\n${entries.join("\n")}\n}` : "headers = {}",
    `body = ${body.literal ??= literal(body.document)}`,
    ...(file ? [
      `file = base64.b64decode("${body.file}")`,
      "start = json.dumps(body).encode()",
      'headers["Inference-Header-Content-Length"] = str(len(start))',
      'content = start + len(file).to_bytes(4, "little") + file',
      `answer = httpx.post(${literal(url)}, content=content, headers=headers)`,
    ] : [`answer = httpx.post(${literal(url)}, json=body, headers=headers)`]),
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
    box.textContent = text;
    getSelection().selectAllChildren(box);
    document.execCommand("copy");
  }
}
