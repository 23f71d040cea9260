// Requests and responses, and the bodies that both have.
import { ask, bufferOf, bytesOf, finish, host, join, text } from "starling:host";
import { AbortController, AbortSignal } from "starling:events";
import { Blob, FormData, blobBytes, readMultipart, writeMultipart } from "starling:form";
import { Headers, fromFlat, toFlat } from "starling:headers";
import { ReadableStream, inner, nodeStream } from "starling:streams";
import { URL, URLSearchParams } from "starling:url";

/** What can be a body, as text, bytes or a stream, with the content type that goes with it. */
function given(body) {
  if (body === null || body === undefined) return { content: null };
  if (typeof body === "string") return { content: text(body), type: "text/plain;charset=UTF-8" };
  if (body instanceof ReadableStream) {
    if (body.locked || inner(body).disturbed) throw new TypeError("This ReadableStream is disturbed (has already been read from), and cannot be used as a body.");
    return { content: body };
  }
  const bytes = bytesOf(body);
  if (bytes !== undefined) return { content: bytes.slice() };
  if (body instanceof Blob) return { content: blobBytes(body), type: body.type || undefined };
  if (body instanceof URLSearchParams) return { content: body.toString(), type: "application/x-www-form-urlencoded;charset=UTF-8" };
  if (body instanceof FormData) {
    const { bytes, type } = writeMultipart(body);
    return { content: bytes, type };
  }
  if (typeof body[Symbol.asyncIterator] === "function") return { content: ReadableStream.from(body) };
  return { content: text(body), type: "text/plain;charset=UTF-8" };
}

export async function drain(stream, most = Infinity) {
  const reader = stream.getReader(), chunks = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const bytes = bytesOf(value);
    if (bytes === undefined) throw new TypeError("This ReadableStream did not return bytes.");
    chunks.push(bytes);
    length += bytes.byteLength;
    if (length > most) {
      await reader.cancel();
      break;
    }
  }
  return chunks.length === 0 ? new Uint8Array() : join(chunks);
}

const decode = (bytes) => host.decode("utf-8", bytes, false, false);

const ONLY_HERE = Symbol("made by the platform");
let put, content, take, split, asked, signalOf, got, send;

class Body {
  // Text, bytes, a stream, or null.
  #content = null; #stream = null; #used = false;
  static {
    put = (body, content) => { body.#content = content; };
    content = (body) => body.#stream ?? body.#content;
    take = (body) => {
      if (body.bodyUsed) throw new TypeError("Body has already been used. It can only be used once. Use tee() first if you need to read it twice.");
      if (body.#stream?.locked) throw new TypeError("This ReadableStream is currently locked to a reader.");
      body.#used = body.#content !== null;
      return body.#stream ?? body.#content;
    };
    split = (body) => {
      if (body.bodyUsed || body.#stream?.locked) throw new TypeError("Response body object should not be disturbed or locked");
      const content = body.#stream ?? body.#content;
      if (!(content instanceof ReadableStream)) return content;
      const [mine, other] = content.tee();
      [body.#content, body.#stream] = [mine, mine];
      return other;
    };
  }
  get body() {
    if (this.#content === null) return null;
    if (!this.#stream) {
      const { content } = this.#content instanceof ReadableStream ? { content: this.#content } : {};
      if (content) this.#stream = content;
      else {
        const bytes = typeof this.#content === "string" ? host.encode(this.#content) : this.#content;
        this.#stream = new ReadableStream({
          type: "bytes",
          start(controller) {
            if (bytes.byteLength > 0) controller.enqueue(bytes);
            controller.close();
          },
        });
        inner(this.#stream).length = bytes.byteLength;
        if (this.#used) inner(this.#stream).disturbed = true;
      }
    }
    return this.#stream;
  }
  get bodyUsed() {
    const stream = this.#stream ?? (this.#content instanceof ReadableStream ? this.#content : null);
    return this.#used || (stream !== null && inner(stream).disturbed);
  }
  async bytes() {
    const content = take(this);
    if (content === null) return new Uint8Array();
    if (content instanceof ReadableStream) return drain(content);
    return typeof content === "string" ? host.encode(content) : content.slice();
  }
  async arrayBuffer() { return bufferOf(await this.bytes()); }
  async text() {
    const content = take(this);
    if (content === null) return "";
    if (typeof content === "string") return content;
    return decode(content instanceof ReadableStream ? await drain(content) : content);
  }
  async json() { return JSON.parse(await this.text()); }
  async blob() { return new Blob([await this.bytes()], { type: this.headers.get("content-type") ?? "" }); }
  async formData() {
    const type = this.headers.get("content-type") ?? "";
    if (/^application\/x-www-form-urlencoded/i.test(type)) {
      const form = new FormData();
      for (const [name, value] of new URLSearchParams(await this.text())) form.append(name, value);
      return form;
    }
    const boundary = /^multipart\/form-data;.*boundary="?([^";]+)"?/i.exec(type)?.[1];
    if (boundary === undefined) {
      throw new TypeError(`Unrecognized Content-Type header value. FormData can only parse the following MIME types: multipart/form-data, application/x-www-form-urlencoded`);
    }
    return readMultipart(await this.bytes(), boundary);
  }
}
finish("Body", Body);

const METHODS = new Set(("GET HEAD POST PUT DELETE PATCH PURGE OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK ACL " +
  "REPORT MKACTIVITY CHECKOUT MERGE MSEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE QUERY").split(" "));

export class Request extends Body {
  #method = "GET"; #url = ""; #headers = null; #flat = null; #redirect = "follow"; #signal = undefined; #cf = undefined;
  #cfText = undefined;
  constructor(input, init = {}) {
    super();
    if (input === ONLY_HERE) return;
    if (input instanceof Request) {
      [this.#method, this.#url, this.#redirect, this.#signal] = [input.#method, input.#url, input.#redirect, input.#signal];
      [this.#cf, this.#cfText] = [input.#cf, input.#cfText];
      this.#headers = new Headers(input.headers);
      if (init?.body === undefined || init.body === null) put(this, take(input));
    } else {
      if (typeof input !== "string" && !(input instanceof URL)) input = `${input}`;
      try { this.#url = new URL(input).href; } catch { throw new TypeError(`Invalid URL: ${input}`); }
    }
    init ??= {};
    if (init instanceof Request) init = { method: init.method, headers: init.headers, body: init.body, redirect: init.redirect };
    if (init.method !== undefined) {
      this.#method = `${init.method}`.toUpperCase();
      if (!METHODS.has(this.#method)) throw new TypeError(`Invalid HTTP method string: ${init.method}`);
    }
    if (init.headers !== undefined) this.#headers = new Headers(init.headers);
    if (init.redirect !== undefined) {
      if (!["follow", "manual"].includes(init.redirect)) {
        throw new TypeError(`Invalid redirect value, must be one of "follow" or "manual" ("error" won't be implemented since it does not make sense at the edge; use "manual" and check the response status code).`);
      }
      this.#redirect = init.redirect;
    }
    if (init.signal !== undefined) {
      if (init.signal !== null && !(init.signal instanceof AbortSignal)) throw new TypeError("The signal must be an AbortSignal.");
      this.#signal = init.signal ?? undefined;
    }
    if (init.cf !== undefined) [this.#cf, this.#cfText] = [init.cf, undefined];
    if (init.body !== undefined && init.body !== null) {
      if (this.#method === "GET" || this.#method === "HEAD") throw new TypeError("Request with a GET or HEAD method cannot have a body.");
      const { content, type } = given(init.body);
      put(this, content);
      if (type && !this.headers.has("content-type")) this.headers.set("content-type", type);
    }
  }
  static {
    // What the node was asked.
    asked = (method, url, flat, source, length, cf) => {
      const request = new Request(ONLY_HERE);
      [request.#method, request.#url, request.#flat, request.#cfText] = [method, url, flat, cf];
      if (source !== null) put(request, nodeStream(source, length ?? undefined));
      return request;
    };
    signalOf = (request) => request.#signal;
  }
  get method() { return this.#method; }
  get url() { return this.#url; }
  get headers() {
    if (!this.#headers) {
      this.#headers = this.#flat ? fromFlat(this.#flat, true) : new Headers();
      this.#flat = null;
    }
    return this.#headers;
  }
  get redirect() { return this.#redirect; }
  get signal() { return (this.#signal ??= new AbortController().signal); }
  get cf() {
    if (this.#cfText !== undefined) [this.#cf, this.#cfText] = [JSON.parse(this.#cfText), undefined];
    return this.#cf;
  }
  get integrity() { return ""; }
  get keepalive() { return false; }
  get cache() { return undefined; }
  clone() {
    const other = new Request(this.#url, { method: this.#method, headers: this.headers, redirect: this.#redirect, signal: this.#signal });
    [other.#cf, other.#cfText] = [this.#cf, this.#cfText];
    put(other, split(this));
    return other;
  }
}
finish("Request", Request);

const NO_BODY = new Set([101, 204, 205, 304]);

export class Response extends Body {
  #status = 200; #statusText = ""; #headers = null; #flat = null; #url = ""; #redirected = false; #type = undefined; #cf = undefined;
  constructor(body = null, init = {}) {
    super();
    init ??= {};
    if (init.status !== undefined) {
      this.#status = Number(init.status);
      if (!Number.isInteger(this.#status) || this.#status < 200 || this.#status > 599) {
        throw new RangeError("Responses may only be constructed with status codes in the range 200 to 599, inclusive.");
      }
    }
    if (init.statusText !== undefined) {
      this.#statusText = text(init.statusText);
      if (/[^\t\x20-\x7e\x80-\xff]/.test(this.#statusText)) throw new TypeError("Invalid statusText");
    }
    if (init.headers !== undefined) this.#headers = new Headers(init.headers);
    if (init.cf !== undefined) this.#cf = init.cf;
    const { content, type } = given(body);
    if (content !== null && NO_BODY.has(this.#status)) {
      const isEmpty = content.length === 0 || content.byteLength === 0;
      if (!isEmpty) throw new TypeError(`Response with null body status (101, 204, 205, or 304) cannot have a body.`);
    } else put(this, content);
    this.#type = type;
  }
  static {
    got = (status, statusText, flat, source, length, url, redirected) => {
      const response = new Response();
      [response.#status, response.#statusText, response.#flat] = [status, statusText, flat];
      [response.#url, response.#redirected] = [url, redirected];
      if (source !== null) put(response, nodeStream(source, length ?? undefined));
      return response;
    };
    send = (response, visit) => {
      const flat = response.#flat ?? (response.#headers ? toFlat(response.headers) : []);
      const type = response.#headers || response.#flat ? undefined : response.#type;
      const body = take(response);
      if (!(body instanceof ReadableStream)) {
        host.respond(visit, response.#status, response.#statusText, flat, body, [type, undefined]);
        return undefined;
      }
      const { id, length, disturbed, queue } = inner(body);
      if (id !== undefined && !disturbed && queue.length === 0) {
        inner(body).disturbed = true;
        host.respond(visit, response.#status, response.#statusText, flat, id, [type, length]);
        return undefined;
      }
      host.respond(visit, response.#status, response.#statusText, flat, true, [type, length]);
      return pump(body, visit);
    };
  }
  static json(data, init = {}) {
    const content = JSON.stringify(data);
    if (content === undefined) throw new TypeError("The data can't be written as JSON.");
    const response = new Response(content, init);
    if (!response.#headers?.has("content-type")) response.headers.set("content-type", "application/json");
    return response;
  }
  static redirect(url, status = 302) {
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`${status} is not a redirect status code.`);
    const response = new Response(null, { status });
    if (!URL.canParse(url)) throw new TypeError(`Unable to parse URL: ${url}`);
    response.#headers = fromFlat(["location", new URL(url).href], true);
    return response;
  }
  static error() {
    const response = new Response();
    response.#status = 0;
    return response;
  }
  get status() { return this.#status; }
  get statusText() { return this.#statusText; }
  get ok() { return this.#status >= 200 && this.#status < 300; }
  get headers() {
    if (!this.#headers) {
      this.#headers = this.#flat ? fromFlat(this.#flat, true) : new Headers();
      if (!this.#flat && this.#type) this.#headers.set("content-type", this.#type);
      this.#flat = null;
    } else if (this.#type && !this.#headers.has("content-type")) {
      this.#headers.set("content-type", this.#type);
    }
    this.#type = undefined;
    return this.#headers;
  }
  get url() { return this.#url; }
  get redirected() { return this.#redirected; }
  get type() { return this.#status === 0 ? "error" : "default"; }
  get webSocket() { return null; }
  get cf() { return this.#cf; }
  clone() {
    const other = new Response();
    [other.#status, other.#statusText, other.#url, other.#redirected] = [this.#status, this.#statusText, this.#url, this.#redirected];
    other.#headers = new Headers(this.headers);
    put(other, split(this));
    return other;
  }
}
finish("Response", Response);

/** Sends a stream on as fast as it is taken. */
async function pump(stream, visit) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const bytes = bytesOf(value);
      if (bytes === undefined) throw new TypeError("This ReadableStream did not return bytes.");
      if (bytes.byteLength === 0) continue;
      if (!(await ask(host.send, visit, bytes))) return await reader.cancel("The client has gone.");
    }
    host.end(visit, true);
  } catch (error) {
    host.end(visit, false);
    throw error;
  }
}

export { asked, content, given, got, send, signalOf, take };
