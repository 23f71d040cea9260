// The cache of this PoP: answers to requests, which the node keeps.
import { ask, finish, host, text } from "starling:host";
import { Request, Response, content, drain, got, take } from "starling:body";
import { toFlat } from "starling:headers";
import { ReadableStream } from "starling:streams";

const ONLY_HERE = Symbol("made by the platform");
// More is not kept: see the node's bound of an answer.
const ANSWER_LEN_MAX = 8 * 1024 * 1024;
const asRequest = (input) => (input instanceof Request ? input : new Request(input));
const addressOf = ({ url }) => url.split("#")[0];

export class Cache {
  #name;
  constructor(token, name) {
    if (token !== ONLY_HERE) throw new TypeError("Illegal constructor");
    this.#name = name;
  }
  async match(input, { ignoreMethod = false } = {}) {
    const request = asRequest(input);
    if (request.method !== "GET" && !ignoreMethod) return undefined;
    const found = await ask(host.cacheFind, this.#name, addressOf(request), toFlat(request.headers));
    if (found === null) return undefined;
    const [status, statusText, fields, source, length] = found;
    return got(status, statusText, fields, source, length, "", false);
  }
  async put(input, response) {
    const request = asRequest(input);
    if (!(response instanceof Response)) throw new TypeError("Cache.put() takes a Response.");
    if (request.method !== "GET") throw new TypeError("Cannot cache response to non-GET request.");
    if (response.status === 206) throw new TypeError("Cannot cache response to a range request (206 Partial Content).");
    if (response.headers.get("vary")?.includes("*")) throw new TypeError("Cannot cache response with 'Vary: *' header.");
    let body = content(response) === null ? null : take(response);
    if (body instanceof ReadableStream) body = await drain(body, ANSWER_LEN_MAX);
    await ask(host.cachePut, this.#name, addressOf(request), response.status, toFlat(response.headers), body);
  }
  async delete(input, { ignoreMethod = false } = {}) {
    const request = asRequest(input);
    if (request.method !== "GET" && !ignoreMethod) return false;
    return ask(host.cacheRemove, this.#name, addressOf(request));
  }
}
finish("Cache", Cache);

export class CacheStorage {
  #default = new Cache(ONLY_HERE, "");
  constructor(token) { if (token !== ONLY_HERE) throw new TypeError("Illegal constructor"); }
  get default() { return this.#default; }
  async open(name) { return new Cache(ONLY_HERE, `named ${text(name)}`); }
}
finish("CacheStorage", CacheStorage);

export const caches = new CacheStorage(ONLY_HERE);
