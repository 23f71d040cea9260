// KV namespaces, with the methods and the words of the original.
import { ask, bufferOf, bytesOf, host, now, resolved, text } from "starling:host";
import { drain } from "starling:body";
import { ReadableStream, nodeStream } from "starling:streams";

const VALUE_LEN_MAX = 26_214_400;
const TYPES = ["text", "json", "arrayBuffer", "stream"];

function nameOf(key, method) {
  const name = text(key);
  if (name === "") throw new TypeError("Key name cannot be empty.");
  if (name === "." || name === "..") throw new TypeError(`"${name}" is not allowed as a key name.`);
  const length = name.length > 512 / 3 ? host.encode(name).length : 0;
  if (length > 512) throw new Error(`KV ${method} failed: 414 UTF-8 encoded length of ${length} exceeds key length limit of 512.`);
  return name;
}

const optionsOf = (options) => (typeof options === "string" ? { type: options } : options ?? {});
const seconds = (value) => (value === undefined || value === null ? undefined : text(value));
const parsed = (json) => (json === null || json === undefined ? null : JSON.parse(json));

function shown(value, type) {
  if (value === null || value === undefined) return null;
  switch (type) {
    case "json": return JSON.parse(value);
    case "arrayBuffer": return bufferOf(value);
    case "stream": return nodeStream(value[0], value[1]);
    default: return value;
  }
}

const valueOf = (found, type) => shown(found?.[0], type);
const withMetadata = (found, type) => ({ value: shown(found?.[0], type), metadata: parsed(found?.[1]), cacheStatus: null });

export class KvNamespace {
  #index;
  constructor(index) { this.#index = index; }

  async #find(key, options, pick) {
    const { type = "text", cacheTtl } = optionsOf(options);
    const name = nameOf(key, "GET");
    if (!TYPES.includes(type)) {
      throw new TypeError(`Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".`);
    }
    const form = type === "arrayBuffer" ? "bytes" : type === "stream" ? "stream" : "text";
    const begun = now(host.kvGet, this.#index, name, form, seconds(cacheTtl));
    const found = begun instanceof Promise ? await begun : begun;
    return pick(found, type);
  }
  async #findMany(keys, options, isFull) {
    const { type, cacheTtl } = optionsOf(options);
    const json = await ask(host.kvGetMany, this.#index, keys.map(text), type === undefined ? undefined : text(type), [isFull, seconds(cacheTtl)]);
    return new Map(Object.entries(JSON.parse(json)));
  }

  // Not a function that waits for another one: each costs a promise and a job. Most ask for a text that is at hand.
  get(key, options) {
    if (options === undefined && typeof key === "string") {
      const found = host.kvText(this.#index, key);
      if (found !== undefined) return resolved(found);
    }
    return Array.isArray(key) ? this.#findMany(key, options, false) : this.#find(key, options, valueOf);
  }
  getWithMetadata(key, options) {
    return Array.isArray(key) ? this.#findMany(key, options, true) : this.#find(key, options, withMetadata);
  }
  async put(key, value, { expiration, expirationTtl, metadata } = {}) {
    const name = nameOf(key, "PUT");
    let content;
    if (value instanceof ReadableStream) content = await drain(value, VALUE_LEN_MAX);
    else if (typeof value === "object" && value !== null) {
      content = bytesOf(value);
      if (content === undefined) {
        throw new TypeError("KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values.");
      }
    } else content = text(value);
    const json = metadata === undefined || metadata === null ? undefined : text(JSON.stringify(metadata));
    await ask(host.kvPut, this.#index, name, content, [seconds(expiration), seconds(expirationTtl), json]);
  }
  async delete(key) {
    const name = nameOf(key, "DELETE");
    await ask(host.kvDelete, this.#index, name);
  }
  async list({ prefix, limit, cursor } = {}) {
    const wanted = typeof limit === "number" && limit > 0 ? seconds(limit) : undefined;
    const json = await ask(host.kvList, this.#index, prefix === undefined || prefix === null ? "" : text(prefix), wanted, cursor ? text(cursor) : undefined);
    const page = JSON.parse(json);
    for (const key of page.keys) if (key.metadata !== undefined) key.metadata = JSON.parse(key.metadata);
    return { ...page, cacheStatus: null };
  }
}
Object.defineProperty(KvNamespace.prototype, Symbol.toStringTag, { value: "KvNamespace" });
