// Where the node comes in: a script is set up, then asked.
import { deliver, host, resolved, text } from "starling:host";
import { Event } from "starling:events";
import { Fetcher } from "starling:fetch";
import { KvNamespace } from "starling:kv";
import { asked, isResponse, send } from "starling:body";
import { install } from "starling:globals";
import { env } from "cloudflare:workers";

// Somebody whose request never ends: as long as one is there, the engine keeps a page of memory for those that come and go.
const NOBODY = -1;

const listeners = new Map();
let handlers = null;

function binding([kind, , value]) {
  switch (kind) {
    case "kv": return new KvNamespace(value);
    case "json": return JSON.parse(value);
    case "assets": return new Fetcher();
    default: return value;
  }
}

/** Before the script is loaded: what it finds in the global scope. */
function prepare(bindings, isServiceWorker) {
  install();
  onFetch(NOBODY);
  for (const described of bindings) env[described[1]] = binding(described);
  if (!isServiceWorker) return;
  for (const [name, value] of Object.entries(env)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: true });
  }
  globalThis.addEventListener = (type, listener) => { listeners.set(type, [...(listeners.get(type) ?? []), listener]); };
}

/** After it: what it wants to handle. */
function ready(exports) {
  handlers = exports?.default ?? null;
  if (exports !== undefined && handlers === null) throw new TypeError("The script has no default export.");
}

/** How an error is told to whoever watches. */
function told(visit, error) {
  const isError = error instanceof Error || typeof error === "object" && error !== null && "message" in error;
  const [name, message] = isError ? [error.name, error.message] : ["Error", error];
  return [visit, text(name), text(message), text(isError ? error.stack ?? "" : "")];
}

/** A property of its own, which is made when somebody looks at it or sets it. */
function own(object, name, value = {}) {
  Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  return value;
}

let begin, finish, isOnly, visitOf;

/** What a script is told of a request, and what counts what is still to be done for it: one object, as one is made for each. */
class ExecutionContext {
  #visit; #left = 1;
  constructor(visit) { this.#visit = visit; }
  static {
    visitOf = (context) => context.#visit;
    /** Whether nothing else is to be done. */
    isOnly = (context) => context.#left === 1;
    begin = (context, promise) => {
      context.#left++;
      Promise.resolve(promise).catch((error) => host.threw(...told(context.#visit, error))).then(() => finish(context));
    };
    /** One thing is done. When that is all, the node is told. */
    finish = (context) => { if (--context.#left === 0) host.finished(context.#visit); };
  }
  get props() { return own(this, "props"); }
  set props(value) { own(this, "props", value); }
  get exports() { return own(this, "exports"); }
  set exports(value) { own(this, "exports", value); }
  waitUntil(promise) { begin(this, promise); }
  passThroughOnException() {}
}

function handlerOf(name, context) {
  if (typeof handlers === "function") {
    const entrypoint = new handlers(context, env);
    return typeof entrypoint[name] === "function" ? (event) => entrypoint[name](event) : undefined;
  }
  return typeof handlers?.[name] === "function" ? (event) => handlers[name](event, env, context) : undefined;
}

class FetchEvent extends Event {
  constructor(request, context, respond) {
    super("fetch");
    Object.assign(this, { request, passThroughOnException() {}, waitUntil: (promise) => begin(context, promise), respondWith: respond });
  }
}
class ScheduledEvent extends Event {
  constructor(cron, scheduledTime, context) {
    super("scheduled");
    Object.assign(this, { cron, scheduledTime, waitUntil: (promise) => begin(context, promise) });
  }
}

function callFetch(request, context) {
  if (handlers === null) {
    let answer;
    const event = new FetchEvent(request, context, (response) => {
      if (answer !== undefined) throw new TypeError("FetchEvent.respondWith() has already been called; it can only be called once.");
      answer = Promise.resolve(response);
    });
    const all = listeners.get("fetch");
    if (all === undefined) throw new TypeError("No event handlers were registered. This script does nothing.");
    for (const listener of all) {
      if (answer === undefined) typeof listener === "function" ? listener(event) : listener.handleEvent(event);
    }
    if (answer === undefined) throw new TypeError("The script did not call respondWith().");
    return answer;
  }
  if (typeof handlers === "object" && typeof handlers.fetch === "function") return handlers.fetch(request, env, context);
  const handle = handlerOf("fetch", context);
  if (!handle) throw new TypeError("Handler does not export a fetch() function.");
  return handle(request);
}

const never = new Promise(() => {});
// Whatever a script makes of the global ones.
const when = Function.prototype.call.bind(Promise.prototype.then);

/** The request whose answer the node is looking for. */
let open;

/**
 * Has the script answer. Returns the promise of an answer, if it is not there yet: the node looks at it after each job
 * and then concludes, as it is nearly always there soon, and whoever waits for a promise makes another one.
 */
function onFetch(visit, method, url, flat, source, length, cf) {
  const context = new ExecutionContext(visit);
  let answer;
  try {
    const request = asked(method, url, flat, source, length, cf);
    answer = visit === NOBODY ? when(never, () => request) : callFetch(request, context);
  } catch (error) {
    return failed(context, visit, error);
  }
  if (isResponse(answer)) return answered(context, visit, answer);
  open = context;
  return resolved(answer);
}

/** The answer is there, or why there is none. */
function conclude(isAnswer, value) {
  const context = open;
  isAnswer ? answered(context, visitOf(context), value) : failed(context, visitOf(context), value);
}

/** It isn't, and something else has to happen first. */
function later(promise) {
  const context = open;
  when(promise, (response) => answered(context, visitOf(context), response), (error) => failed(context, visitOf(context), error));
}

function answered(context, visit, response) {
  try {
    if (!isResponse(response)) throw new TypeError("Incorrect type for Promise: the Promise did not resolve to 'Response'.");
    // With the last of it the request is over.
    const isLast = isOnly(context);
    const sending = send(response, visit, isLast);
    if (sending !== undefined) when(sending, () => finish(context), (error) => failed(context, visit, error));
    else if (!isLast) finish(context);
  } catch (error) {
    failed(context, visit, error);
  }
}

function failed(context, visit, error) {
  host.failed(...told(visit, error));
  finish(context);
}

async function onScheduled(visit, cron, time) {
  const context = new ExecutionContext(visit);
  try {
    const handle = handlers === null ? undefined : handlerOf("scheduled", context);
    if (handle) await handle({ cron, scheduledTime: time, type: "scheduled", noRetry() {} });
    else {
      const all = listeners.get("scheduled");
      if (all === undefined) throw new TypeError("Handler does not export a scheduled() function.");
      for (const listener of all) await listener(new ScheduledEvent(cron, time, context));
    }
    host.handled(visit);
  } catch (error) {
    host.failed(...told(visit, error));
  }
  finish(context);
}

export { conclude, deliver, later, onFetch, onScheduled, prepare, ready };
