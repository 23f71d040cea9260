// fetch: one request of the node's after another, as far as redirects lead.
import { ask, host } from "starling:host";
import { untilAborted } from "starling:events";
import { listOf, toFlat } from "starling:headers";
import { Request, content, drain, got, signalOf, take } from "starling:body";
import { ReadableStream, inner } from "starling:streams";
import { URL } from "starling:url";

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const REDIRECTS_MAX = 20;

/** A body for the node: text, bytes, or the number of a stream that it has itself. */
export async function outgoing(request) {
  const body = content(request) === null ? null : take(request);
  if (!(body instanceof ReadableStream)) return body;
  const { id, disturbed, queue } = inner(body);
  if (id === undefined || disturbed || queue.length > 0) return drain(body);
  inner(body).disturbed = true;
  return id;
}

async function follow(request) {
  let { url, method } = request;
  let body = await outgoing(request);
  const flat = toFlat(request.headers);
  let headers = flat;
  for (let hops = 0; ; hops++) {
    const [status, statusText, fields, source, length] = await ask(host.fetch, method, url, headers, body);
    const location = REDIRECTS.has(status) && request.redirect === "follow" ? first("location", fields) : undefined;
    if (location === undefined) {
      return got(status, statusText, fields, source, length, url, hops > 0);
    }
    if (source !== null) host.sourceDrop(source);
    if (hops === REDIRECTS_MAX) throw new TypeError("Too many redirects.");
    const [from, to] = [new URL(url), new URL(location, url)];
    if (status === 303 && method !== "HEAD" || (status === 301 || status === 302) && method === "POST") {
      [method, body] = ["GET", null];
      headers = without(headers, ["content-type", "content-length", "content-encoding", "content-language", "content-location"]);
    } else if (typeof body === "number") {
      throw new TypeError("A streamed request body was sent already, and can't follow a redirect.");
    }
    // What lets in at one place is not for another.
    if (from.origin !== to.origin) headers = without(headers, ["authorization", "cookie", "proxy-authorization"]);
    url = to.href;
  }
}

/** The first value of a field. */
function first(name, fields) {
  return listOf(fields).find((_, at, all) => at % 2 === 1 && all[at - 1] === name);
}

function without(flat, names) {
  const kept = [];
  for (let i = 0; i < flat.length; i += 2) if (!names.includes(flat[i])) kept.push(flat[i], flat[i + 1]);
  return kept;
}

export async function fetch(input, init) {
  const request = new Request(input, init);
  const { protocol } = new URL(request.url);
  if (protocol !== "http:" && protocol !== "https:") throw new TypeError(`Fetch API cannot load: ${request.url}`);
  return untilAborted(signalOf(request), follow(request));
}

/** The script's static files. */
export class Fetcher {
  async fetch(input, init) {
    const request = new Request(typeof input === "string" && input.startsWith("/") ? `http://assets.local${input}` : input, init);
    if (content(request) !== null) await drain(request.body);
    const [status, statusText, fields, source, length] = await ask(host.assets, request.method, request.url, toFlat(request.headers));
    return got(status, statusText, fields, source, length, request.url, false);
  }
}
