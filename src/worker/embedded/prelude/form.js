// Blobs, files, and forms in both of their encodings.
import { bytesOf, bufferOf, finish, host, join, text } from "starling:host";
import { ReadableStream } from "starling:streams";

let blobBytes;

export class Blob {
  #bytes; #type;
  constructor(parts = [], { type = "" } = {}) {
    const chunks = [];
    for (const part of parts) chunks.push(part instanceof Blob ? part.#bytes : bytesOf(part) ?? host.encode(text(part)));
    this.#bytes = chunks.length === 0 ? new Uint8Array() : join(chunks).slice();
    this.#type = /[^\x20-\x7e]/.test(type) ? "" : `${type}`.toLowerCase();
  }
  static { blobBytes = (blob) => blob.#bytes; }
  get size() { return this.#bytes.byteLength; }
  get type() { return this.#type; }
  async arrayBuffer() { return bufferOf(this.#bytes.slice()); }
  async bytes() { return this.#bytes.slice(); }
  async text() { return host.decode("utf-8", this.#bytes, false, false); }
  slice(start, end, type = "") { return new Blob([this.#bytes.slice(start, end)], { type }); }
  stream() {
    const bytes = this.#bytes;
    return new ReadableStream({
      type: "bytes",
      start(controller) {
        if (bytes.byteLength > 0) controller.enqueue(bytes.slice());
        controller.close();
      },
    });
  }
}
finish("Blob", Blob);

export class File extends Blob {
  #name; #lastModified;
  constructor(parts, name, options = {}) {
    super(parts, options);
    [this.#name, this.#lastModified] = [text(name), options.lastModified ?? Date.now()];
  }
  get name() { return this.#name; }
  get lastModified() { return this.#lastModified; }
}
finish("File", File);

const entryOf = (value, filename) => {
  if (!(value instanceof Blob)) return text(value);
  if (value instanceof File && filename === undefined) return value;
  return new File([value], filename ?? "blob", { type: value.type });
};

export class FormData {
  #entries = [];
  append(name, value, filename) { this.#entries.push([text(name), entryOf(value, filename)]); }
  delete(name) { this.#entries = this.#entries.filter(([n]) => n !== text(name)); }
  get(name) { return this.#entries.find(([n]) => n === text(name))?.[1] ?? null; }
  getAll(name) { return this.#entries.filter(([n]) => n === text(name)).map(([, value]) => value); }
  has(name) { return this.#entries.some(([n]) => n === text(name)); }
  set(name, value, filename) {
    const at = this.#entries.findIndex(([n]) => n === text(name));
    if (at < 0) return this.append(name, value, filename);
    this.#entries[at][1] = entryOf(value, filename);
    this.#entries = this.#entries.filter(([n], i) => i <= at || n !== text(name));
  }
  forEach(callback, self) { for (const [name, value] of this) callback.call(self, value, name, this); }
  *entries() { for (const [name, value] of this.#entries) yield [name, value]; }
  *keys() { for (const [name] of this.#entries) yield name; }
  *values() { for (const [, value] of this.#entries) yield value; }
  [Symbol.iterator]() { return this.entries(); }
}
finish("FormData", FormData);

const quoted = (value) => value.replace(/\r\n|\r|\n/g, "%0D%0A").replace(/"/g, "%22");

export function writeMultipart(form) {
  const boundary = `----starling${globalThis.crypto.randomUUID().replaceAll("-", "")}`;
  const chunks = [];
  for (const [name, value] of form) {
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name)}"`;
    if (typeof value === "string") chunks.push(host.encode(`${head}\r\n\r\n${value}\r\n`));
    else {
      const type = value.type || "application/octet-stream";
      chunks.push(host.encode(`${head}; filename="${quoted(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`), blobBytes(value), host.encode("\r\n"));
    }
  }
  chunks.push(host.encode(`--${boundary}--\r\n`));
  return { bytes: join(chunks), type: `multipart/form-data; boundary=${boundary}` };
}

/** Where `needle` begins in `bytes`, from `at` on. */
function find(bytes, needle, at) {
  for (let i = bytes.indexOf(needle[0], at); i >= 0; i = bytes.indexOf(needle[0], i + 1)) {
    let n = 1;
    while (n < needle.length && bytes[i + n] === needle[n]) n++;
    if (n === needle.length) return i;
  }
  return -1;
}

export function readMultipart(bytes, boundary) {
  const [form, mark, decode] = [new FormData(), host.encode(`--${boundary}`), (part) => host.decode("utf-8", part, false, false)];
  let at = find(bytes, mark, 0);
  if (at < 0) throw new TypeError("No initial boundary string (or you have a truncated message).");
  for (;;) {
    at += mark.length;
    if (bytes[at] === 45 && bytes[at + 1] === 45) return form;
    const head = at + 2, body = find(bytes, [13, 10, 13, 10], head), next = find(bytes, mark, body);
    if (body < 0 || next < 0) throw new TypeError("No subsequent boundary string after multipart message.");
    const headers = decode(bytes.subarray(head, body));
    const disposition = /content-disposition:\s*form-data([^\r\n]*)/i.exec(headers)?.[1] ?? "";
    const field = (name) => new RegExp(`;\\s*${name}="([^"]*)"`, "i").exec(disposition)?.[1]?.replaceAll("%22", "\"").replaceAll("%0D%0A", "\r\n");
    const [name, filename, content] = [field("name"), field("filename"), bytes.subarray(body + 4, next - 2)];
    if (name === undefined) throw new TypeError("No valid Content-Disposition header found in FormData part.");
    if (filename === undefined) form.append(name, decode(content));
    else {
      const type = /content-type:\s*([^\r\n]*)/i.exec(headers)?.[1]?.trim() ?? "application/octet-stream";
      form.append(name, new File([content], filename, { type }));
    }
    at = next;
  }
}

export { blobBytes };
