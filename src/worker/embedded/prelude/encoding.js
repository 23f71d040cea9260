// Text as bytes and bytes as text.
import { bytesOf, finish, host, text } from "starling:host";
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

export class TextDecoder {
  #encoding; #fatal; #keepMark; #stream = null;
  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    const encoding = host.encodingOf(text(label));
    if (encoding === undefined) throw new RangeError(`"${label}" is not a valid encoding.`);
    [this.#encoding, this.#fatal, this.#keepMark] = [encoding, Boolean(fatal), Boolean(ignoreBOM)];
  }
  get encoding() { return this.#encoding; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#keepMark; }
  decode(input = new Uint8Array(), { stream = false } = {}) {
    const bytes = bytesOf(input);
    if (bytes === undefined) throw new TypeError("The \"input\" argument must be an ArrayBuffer or a view of one.");
    // What has come in pieces is held together by a decoder of the node's.
    if (stream) this.#stream ??= host.decoder(this.#encoding, this.#fatal, this.#keepMark);
    const decoded = this.#stream ? this.#stream(bytes, !stream) : host.decode(this.#encoding, bytes, this.#fatal, this.#keepMark);
    if (!stream || decoded === undefined) this.#stream = null;
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
