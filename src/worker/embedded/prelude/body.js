// Requests and responses, and the bodies that both have.
import { ask, bufferOf, bytesOf, finish, host, join, text } from "starling:host";
import { AbortController, AbortSignal } from "starling:events";
import { Blob, FormData, blobBytes, readMultipart, writeMultipart } from "starling:form";
import { Headers, fromFlat, listOf, toFlat } from "starling:headers";
import { ReadableStream, inner, nodeStream } from "starling:streams";
import { URL, URLSearchParams } from "starling:url";

/** What can be a body, as text, bytes or a stream, with the content type that goes with it. */
function given(body) {
  if (body === null || body === undefined) return { content: null };
  if (typeof body === "string") return { content: text(body), type: TEXT };
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
  return { content: text(body), type: TEXT };
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
const TEXT = "text/plain;charset=UTF-8";
let isRequest, requestOwn, isResponse, responseOwn, asked, signalOf, got, send;

const isStream = (content) => typeof content === "object" && content !== null && content instanceof ReadableStream;

// What is to be known of a request or a response, in one object: `content` is text, bytes, a stream, or null (a stream once
// somebody has asked for one), and may have been `used`. Each field that a class has costs time when an object of it is made,
// and so does each constructor that calls another: both classes have this one field, and neither calls that of `Body`.
const ownOf = (body) => (isRequest(body) ? requestOwn(body) : responseOwn(body));
const put = (body, content) => { ownOf(body).content = content; };
const content = (body) => ownOf(body).content;
const take = (body) => taken(ownOf(body));

function taken(own) {
  const content = own.content;
  if (content === null) return null;
  const streams = isStream(content);
  if (own.used || streams && inner(content).disturbed) throw new TypeError("Body has already been used. It can only be used once. Use tee() first if you need to read it twice.");
  if (streams && content.locked) throw new TypeError("This ReadableStream is currently locked to a reader.");
  own.used = true;
  return content;
}

function split(body) {
  const own = ownOf(body), content = own.content, streams = isStream(content);
  if (body.bodyUsed || streams && content.locked) throw new TypeError("Response body object should not be disturbed or locked");
  if (!streams) return content;
  const [mine, other] = content.tee();
  own.content = mine;
  return other;
}

class Body {
  get body() {
    const own = ownOf(this), content = own.content;
    if (content === null || isStream(content)) return content;
    const bytes = typeof content === "string" ? host.encode(content) : content;
    const stream = new ReadableStream({
      type: "bytes",
      start(controller) {
        if (bytes.byteLength > 0) controller.enqueue(bytes);
        controller.close();
      },
    });
    inner(stream).length = bytes.byteLength;
    if (own.used) inner(stream).disturbed = true;
    return own.content = stream;
  }
  get bodyUsed() {
    const own = ownOf(this);
    return own.used === true || isStream(own.content) && inner(own.content).disturbed;
  }
  async bytes() {
    const content = take(this);
    if (content === null) return new Uint8Array();
    if (isStream(content)) return drain(content);
    return typeof content === "string" ? host.encode(content) : content.slice();
  }
  async arrayBuffer() { return bufferOf(await this.bytes()); }
  async text() {
    const content = take(this);
    if (content === null) return "";
    if (typeof content === "string") return content;
    return decode(isStream(content) ? await drain(content) : content);
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

export class Request {
  #own;
  constructor(input, init = {}) {
    if (input === ONLY_HERE) {
      this.#own = init;
      return;
    }
    const own = this.#own = { content: null, method: "GET" };
    if (input instanceof Request) {
      const { method, url, redirect, signal, cf, cfText } = input.#own;
      Object.assign(own, { method, url, redirect, signal, cf, cfText, headers: new Headers(input.headers) });
      if (init?.body === undefined || init.body === null) put(this, take(input));
    } else {
      if (typeof input !== "string" && !(input instanceof URL)) input = `${input}`;
      try { own.url = new URL(input).href; } catch { throw new TypeError(`Invalid URL: ${input}`); }
    }
    init ??= {};
    if (init instanceof Request) init = { method: init.method, headers: init.headers, body: init.body, redirect: init.redirect };
    if (init.method !== undefined) {
      own.method = `${init.method}`.toUpperCase();
      if (!METHODS.has(own.method)) throw new TypeError(`Invalid HTTP method string: ${init.method}`);
    }
    if (init.headers !== undefined) own.headers = new Headers(init.headers);
    if (init.redirect !== undefined) {
      if (!["follow", "manual"].includes(init.redirect)) {
        throw new TypeError(`Invalid redirect value, must be one of "follow" or "manual" ("error" won't be implemented since it does not make sense at the edge; use "manual" and check the response status code).`);
      }
      own.redirect = init.redirect;
    }
    if (init.signal !== undefined) {
      if (init.signal !== null && !(init.signal instanceof AbortSignal)) throw new TypeError("The signal must be an AbortSignal.");
      own.signal = init.signal ?? undefined;
    }
    if (init.cf !== undefined) [own.cf, own.cfText] = [init.cf, undefined];
    if (init.body !== undefined && init.body !== null) {
      if (own.method === "GET" || own.method === "HEAD") throw new TypeError("Request with a GET or HEAD method cannot have a body.");
      const { content, type } = given(init.body);
      put(this, content);
      if (type && !this.headers.has("content-type")) this.headers.set("content-type", type);
    }
  }
  static {
    isRequest = (value) => #own in value;
    requestOwn = (request) => request.#own;
    // What the node was asked.
    asked = (method, url, flat, source, length, cfText) => {
      const content = source === null ? null : nodeStream(source, length ?? undefined);
      return new Request(ONLY_HERE, { content, method, url, flat, cfText });
    };
    signalOf = (request) => request.#own.signal;
  }
  get method() { return this.#own.method; }
  get url() { return this.#own.url; }
  get headers() {
    const own = this.#own;
    if (!own.headers) {
      own.headers = own.flat ? fromFlat(own.flat, true) : new Headers();
      own.flat = undefined;
    }
    return own.headers;
  }
  get redirect() { return this.#own.redirect ?? "follow"; }
  get signal() { return (this.#own.signal ??= new AbortController().signal); }
  get cf() {
    const own = this.#own;
    if (own.cfText !== undefined) [own.cf, own.cfText] = [JSON.parse(own.cfText), undefined];
    return own.cf;
  }
  get integrity() { return ""; }
  get keepalive() { return false; }
  get cache() { return undefined; }
  clone() {
    const own = this.#own;
    const other = new Request(own.url, { method: own.method, headers: this.headers, redirect: this.redirect, signal: own.signal });
    [other.#own.cf, other.#own.cfText] = [own.cf, own.cfText];
    put(other, split(this));
    return other;
  }
}
finish("Request", Request);

const NO_BODY = new Set([101, 204, 205, 304]);

export class Response {
  #own;
  constructor(body = null, init = undefined) {
    if (typeof body === "string") this.#own = { content: text(body), status: 200, type: TEXT };
    else if (body === ONLY_HERE) {
      this.#own = init;
      return;
    } else {
      const { content, type } = given(body);
      this.#own = { content, status: 200, type };
    }
    if (init === undefined || init === null) return;
    const own = this.#own;
    if (init.status !== undefined) {
      own.status = Number(init.status);
      if (!Number.isInteger(own.status) || own.status < 200 || own.status > 599) {
        throw new RangeError("Responses may only be constructed with status codes in the range 200 to 599, inclusive.");
      }
    }
    if (init.statusText !== undefined) {
      own.statusText = text(init.statusText);
      if (/[^\t\x20-\x7e\x80-\xff]/.test(own.statusText)) throw new TypeError("Invalid statusText");
    }
    if (init.headers !== undefined) own.headers = new Headers(init.headers);
    if (init.cf !== undefined) own.cf = init.cf;
    const held = own.content;
    if (held !== null && NO_BODY.has(own.status)) {
      const isEmpty = held.length === 0 || held.byteLength === 0;
      if (!isEmpty) throw new TypeError(`Response with null body status (101, 204, 205, or 304) cannot have a body.`);
      own.content = null;
    }
  }
  static {
    isResponse = (value) => typeof value === "object" && value !== null && #own in value;
    responseOwn = (response) => response.#own;
    got = (status, statusText, flat, source, length, url, redirected) => {
      const content = source === null ? null : nodeStream(source, length ?? undefined);
      return new Response(ONLY_HERE, { content, status, statusText, flat, url, redirected });
    };
    send = (response, visit, isLast) => {
      const own = response.#own, { status, statusText, headers, flat, type } = own;
      // Of all headers the type of the content alone, if nobody has asked for them.
      const fields = headers ? toFlat(response.headers) : flat === undefined ? undefined : listOf(flat);
      const body = taken(own);
      if (!isStream(body)) {
        if (fields === undefined && statusText === undefined) host.respond(visit, isLast, status, body, type === TEXT || type);
        else host.respond(visit, isLast, status, body, fields === undefined ? type : undefined, fields, statusText);
        return undefined;
      }
      const { id, length, disturbed, queue } = inner(body);
      const isWhole = id !== undefined && !disturbed && queue.length === 0;
      if (isWhole) inner(body).disturbed = true;
      host.respond(visit, isLast && isWhole, status, [isWhole ? id : undefined, length], fields === undefined ? type : undefined, fields, statusText);
      return isWhole ? undefined : pump(body, visit);
    };
  }
  static json(data, init = {}) {
    const content = JSON.stringify(data);
    if (content === undefined) throw new TypeError("The data can't be written as JSON.");
    const response = new Response(content, init);
    if (!response.#own.headers?.has("content-type")) response.headers.set("content-type", "application/json");
    return response;
  }
  static redirect(url, status = 302) {
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`${status} is not a redirect status code.`);
    const response = new Response(null, { status });
    if (!URL.canParse(url)) throw new TypeError(`Unable to parse URL: ${url}`);
    response.#own.headers = fromFlat(["location", new URL(url).href], true);
    return response;
  }
  static error() {
    const response = new Response();
    response.#own.status = 0;
    return response;
  }
  get status() { return this.#own.status; }
  get statusText() { return this.#own.statusText ?? ""; }
  get ok() { return this.status >= 200 && this.status < 300; }
  get headers() {
    const own = this.#own, { flat, type } = own;
    if (!own.headers) own.headers = flat ? fromFlat(flat, true) : new Headers();
    if (!flat && type && !own.headers.has("content-type")) own.headers.set("content-type", type);
    own.flat = own.type = undefined;
    return own.headers;
  }
  get url() { return this.#own.url ?? ""; }
  get redirected() { return this.#own.redirected ?? false; }
  get type() { return this.status === 0 ? "error" : "default"; }
  get webSocket() { return null; }
  get cf() { return this.#own.cf; }
  clone() {
    const { status, statusText, url, redirected } = this.#own;
    const headers = new Headers(this.headers);
    return new Response(ONLY_HERE, { content: split(this), status, statusText, url, redirected, headers });
  }
}
finish("Response", Response);

for (const made of [Request, Response]) {
  Object.setPrototypeOf(made, Body);
  Object.setPrototypeOf(made.prototype, Body.prototype);
}

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

export { asked, content, given, got, isResponse, send, signalOf, take };
