// What a request holds, as it goes over the wire: JSON, or JSON and the bytes of a file behind it,
// which JSON itself cannot hold.

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const sizeOf = (text) => (text.length / 4) * 3 - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);

// `document` is the body as JSON has it; `file`, of a picture, its content in base64.
export class Body {
  constructor(document, file = null) {
    this.document = document;
    this.file = file;
    this.text = JSON.stringify(document);
  }

  // One file as the only row of the input `name`.
  static ofFile(name, file) {
    return new Body({ inputs: [{ name, datatype: "BYTES", shape: [1], parameters: { binary_data_size: 4 + sizeOf(file) } }] }, file);
  }

  // The headers that say what it is.
  get headers() {
    return this.file === null ? { "Content-Type": "application/json" } : {
      "Content-Type": "application/octet-stream",
      "Inference-Header-Content-Length": String(new TextEncoder().encode(this.text).length),
    };
  }

  // Of the file: the four bytes that stand before an element of BYTES.
  get length() {
    const size = sizeOf(this.file);
    return Uint8Array.of(size, size >> 8, size >> 16, size >> 24);
  }

  // Text or bytes for fetch.
  get content() {
    return this.file === null ? this.text : new Blob([this.text, this.length, bytesOf(this.file)]);
  }
}

// The content of a file that somebody chose, in base64.
export const contentOf = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
  reader.addEventListener("error", () => reject(reader.error));
  reader.readAsDataURL(blob);
});
