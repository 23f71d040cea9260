// What every script finds: timers, the console, copies of values, and the platform's classes.
import { ask, host, text } from "starling:host";
import * as events from "starling:events";
import * as encoding from "starling:encoding";
import * as url from "starling:url";
import * as streams from "starling:streams";
import * as form from "starling:form";
import { Headers } from "starling:headers";
import { Request, Response } from "starling:body";
import { fetch } from "starling:fetch";
import { Crypto, CryptoKey, SubtleCrypto } from "starling:crypto";
import { KvNamespace } from "starling:kv";
import { Cache, CacheStorage, caches } from "starling:cache";
import { HTMLRewriter } from "starling:rewriter";
import { URLPattern } from "starling:pattern";

const { DOMException } = events;

const timers = new Map();
let lastTimer = 0;

function arm(id) {
  const timer = timers.get(id);
  ask(host.timer, timer.ms).then(() => {
    if (timers.get(id) !== timer) return;
    if (timer.repeats) arm(id);
    else timers.delete(id);
    timer.callback(...timer.args);
  });
}
function start(repeats, callback, ms, args) {
  if (typeof callback !== "function") throw new TypeError("A timer needs a function.");
  const id = ++lastTimer;
  timers.set(id, { repeats, callback, args, ms: Math.max(repeats ? 1 : 0, Number(ms) || 0) });
  arm(id);
  return id;
}
const clear = (id) => { timers.delete(Number(id)); };

const DEPTH_MAX = 4, ITEMS_MAX = 100;

/** A value as a log shows it. */
function show(value, depth = 0, seen = []) {
  switch (typeof value) {
    case "string": return depth === 0 ? value : JSON.stringify(value);
    case "bigint": return `${value}n`;
    case "symbol": return value.toString();
    case "function": return `[Function: ${value.name || "(anonymous)"}]`;
    case "object": break;
    default: return `${value}`;
  }
  if (value === null) return "null";
  if (value instanceof Error) return value.stack ? `${value.name}: ${value.message}\n${value.stack.trimEnd()}` : `${value.name}: ${value.message}`;
  if (seen.includes(value)) return "[Circular]";
  if (depth > DEPTH_MAX) return Array.isArray(value) ? "[Array]" : "[Object]";
  const inside = [...seen, value], deeper = (item) => show(item, depth + 1, inside);
  if (Array.isArray(value)) return `[${value.slice(0, ITEMS_MAX).map(deeper).join(", ")}]`;
  if (value instanceof Map) return `Map(${value.size}) {${[...value].slice(0, ITEMS_MAX).map(([k, v]) => `${deeper(k)} => ${deeper(v)}`).join(", ")}}`;
  if (value instanceof Set) return `Set(${value.size}) {${[...value].slice(0, ITEMS_MAX).map(deeper).join(", ")}}`;
  if (value instanceof Date || value instanceof RegExp || value instanceof url.URL) return value.toString();
  const pairs = Object.keys(value).slice(0, ITEMS_MAX).map((key) => `${key}: ${deeper(value[key])}`);
  const name = value.constructor?.name;
  return `${name && name !== "Object" ? `${name} ` : ""}{${pairs.length > 0 ? ` ${pairs.join(", ")} ` : ""}}`;
}

/** One thing to log, as text for the node's log and as JSON for tails. */
function logged(value) {
  const plain = text(show(value));
  let json;
  if (!(value instanceof Error) && typeof value !== "function" && typeof value !== "bigint") {
    try { json = JSON.stringify(value); } catch { /* shown as text */ }
  }
  return [plain, text(json ?? JSON.stringify(plain))];
}

function log(level, values) {
  const shown = values.map(logged);
  host.log(level, shown.map(([plain]) => plain), shown.map(([, json]) => json));
}

const counts = new Map();
const console = {
  log: (...values) => log("log", values),
  info: (...values) => log("info", values),
  debug: (...values) => log("debug", values),
  warn: (...values) => log("warn", values),
  error: (...values) => log("error", values),
  trace: (...values) => log("log", ["Trace:", ...values]),
  dir: (value) => log("log", [value]),
  dirxml: (...values) => log("log", values),
  table: (value) => log("log", [value]),
  assert: (holds, ...values) => { if (!holds) log("error", ["Assertion failed", ...values]); },
  count: (label = "default") => {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    log("log", [`${label}: ${counts.get(label)}`]);
  },
  countReset: (label = "default") => { counts.delete(label); },
  group() {}, groupCollapsed() {}, groupEnd() {}, clear() {}, time() {}, timeEnd() {}, timeLog() {},
};

/** The structured clone algorithm of HTML, for what scripts have. */
export function structuredClone(value, { transfer = [] } = {}) {
  const copies = new Map();
  const refuse = (what) => { throw new DOMException(`${what} could not be cloned.`, "DataCloneError"); };
  const copy = (from) => {
    if (typeof from === "symbol" || typeof from === "function") refuse(String(from));
    if (typeof from !== "object" || from === null) return from;
    if (copies.has(from)) return copies.get(from);
    const keep = (to) => { copies.set(from, to); return to; };
    if (from instanceof Date) return keep(new Date(from));
    if (from instanceof RegExp) return keep(new RegExp(from.source, from.flags));
    if (from instanceof Boolean || from instanceof Number || from instanceof String) return keep(Object(from.valueOf()));
    if (from instanceof ArrayBuffer) return keep(from.slice(0));
    if (ArrayBuffer.isView(from)) {
      const buffer = copy(from.buffer);
      return keep(from instanceof DataView ? new DataView(buffer, from.byteOffset, from.byteLength) : new from.constructor(buffer, from.byteOffset, from.length));
    }
    if (from instanceof Map) {
      const to = keep(new Map());
      for (const [key, item] of [...from]) to.set(copy(key), copy(item));
      return to;
    }
    if (from instanceof Set) {
      const to = keep(new Set());
      for (const item of [...from]) to.add(copy(item));
      return to;
    }
    if (from instanceof Error) {
      const kinds = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
      const to = keep(new (kinds[from.name] ?? Error)(from.message));
      if (from.cause !== undefined) to.cause = copy(from.cause);
      to.stack = from.stack;
      return to;
    }
    if (from instanceof form.Blob || from instanceof Request || from instanceof Response || from instanceof Promise || from instanceof WeakMap || from instanceof WeakSet || from instanceof WeakRef) {
      refuse(Object.prototype.toString.call(from));
    }
    const to = keep(Array.isArray(from) ? new Array(from.length) : {});
    for (const key of Object.keys(from)) to[key] = copy(from[key]);
    return to;
  };
  const result = copy(value);
  for (const buffer of transfer) if (buffer instanceof ArrayBuffer) buffer.transfer();
  return result;
}

/** No text becomes code: as with the original. */
function forbidCode() {
  const message = "Code generation from strings disallowed for this context";
  for (const sample of [function () {}, async function () {}, function* () {}, async function* () {}]) {
    const prototype = Object.getPrototypeOf(sample);
    const Forbidden = function () { throw new EvalError(message); };
    Object.defineProperty(Forbidden, "name", { value: prototype.constructor.name });
    Forbidden.prototype = prototype;
    Object.defineProperty(prototype, "constructor", { value: Forbidden, configurable: true });
    if (Forbidden.name === "Function") define("Function", Forbidden);
  }
  define("eval", () => { throw new EvalError(message); });
}

const define = (name, value) => Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });

export function install() {
  const { nodeStream, inner, ...streamClasses } = streams;
  const { writeMultipart, readMultipart, blobBytes, ...formClasses } = form;
  const { untilAborted, ...eventClasses } = events;
  const all = {
    ...eventClasses, ...encoding, ...url, ...streamClasses, ...formClasses, Headers, Request, Response, fetch, Crypto, CryptoKey,
    SubtleCrypto, KvNamespace, console, structuredClone, Cache, CacheStorage, caches, HTMLRewriter, URLPattern,
    crypto: new Crypto(),
    self: globalThis,
    setTimeout: (callback, ms, ...args) => start(false, callback, ms, args),
    setInterval: (callback, ms, ...args) => start(true, callback, ms, args),
    setImmediate: (callback, ...args) => start(false, callback, 0, args),
    clearTimeout: clear, clearInterval: clear, clearImmediate: clear,
    queueMicrotask: (callback) => { Promise.resolve().then(callback); },
    reportError: (error) => log("error", [error]),
    performance: { now: () => Date.now() - host.startedMs, timeOrigin: host.startedMs },
    navigator: { userAgent: "Cloudflare-Workers" },
    scheduler: { wait: (ms) => ask(host.timer, Number(ms) || 0) },
  };
  for (const [name, value] of Object.entries(all)) define(name, value);
  forbidCode();
}
