// Text as bytes and bytes as text.
import { bytesOf, finish, host, join, text } from "starling:host";
import { DOMException } from "starling:events";

export class TextEncoder {
  get encoding() { return "utf-8"; }
  encode(input = "") { return host.encode(text(input)); }
  encodeInto(source, into) {
    let [read, written] = [0, 0];
    for (const char of text(source)) {
      const bytes = host.encode(char);
      if (written + bytes.length > into.length) break;
      into.set(bytes, written);
      written += bytes.length;
      read += char.length;
    }
    return { read, written };
  }
}
finish("TextEncoder", TextEncoder);

/** How many bytes at the end begin a character of UTF-8 that is not complete. */
function unfinished(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 && byte < 0xf5 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    return byte < 0xf5 && length > back ? back : 0;
  }
  return 0;
}

export class TextDecoder {
  #encoding; #fatal; #keepMark; #rest = null; #begun = false;
  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    const encoding = host.encodingOf(text(label));
    if (encoding === undefined) throw new RangeError(`"${label}" is not a valid encoding.`);
    [this.#encoding, this.#fatal, this.#keepMark] = [encoding, Boolean(fatal), Boolean(ignoreBOM)];
  }
  get encoding() { return this.#encoding; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#keepMark; }
  decode(input = new Uint8Array(), { stream = false } = {}) {
    let bytes = bytesOf(input);
    if (bytes === undefined) throw new TypeError("The \"input\" argument must be an ArrayBuffer or a view of one.");
    if (this.#rest) bytes = join([this.#rest, bytes]);
    this.#rest = null;
    if (stream) {
      const odd = this.#encoding.startsWith("utf-16") ? bytes.length % 2 : 0;
      const kept = this.#encoding === "utf-8" ? unfinished(bytes) : odd;
      if (kept > 0) [this.#rest, bytes] = [bytes.slice(bytes.length - kept), bytes.subarray(0, bytes.length - kept)];
    }
    const decoded = host.decode(this.#encoding, bytes, this.#fatal, this.#keepMark || this.#begun);
    this.#begun = stream && (this.#begun || bytes.length > 0);
    if (decoded === undefined) throw new TypeError("Failed to decode input.");
    return decoded;
  }
}
finish("TextDecoder", TextDecoder);

export function btoa(value) {
  const encoded = host.btoa(text(value));
  if (encoded === undefined) {
    throw new DOMException("btoa() can only operate on characters in the Latin1 (ISO/IEC 8859-1) range.", "InvalidCharacterError");
  }
  return encoded;
}

export function atob(value) {
  const decoded = host.atob(text(value));
  if (decoded === undefined) {
    throw new DOMException("atob() called with invalid base64-encoded data. (Only whitespace, '+', '/', alphanumeric ASCII, and up to two terminal '=' signs when the input data length is divisible by 4 are allowed.)", "InvalidCharacterError");
  }
  return decoded;
}
