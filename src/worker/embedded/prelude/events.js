// Errors with names, events, and signals that abort.
import { ask, finish, host } from "starling:host";

const CODES = {
  IndexSizeError: 1, NotFoundError: 8, NotSupportedError: 9, InvalidStateError: 11, SyntaxError: 12,
  InvalidAccessError: 15, NetworkError: 19, AbortError: 20, QuotaExceededError: 22, TimeoutError: 23, DataCloneError: 25,
};

export class DOMException extends Error {
  #name;
  constructor(message = "", name = "Error") {
    super(message);
    this.#name = `${name}`;
  }
  get name() { return this.#name; }
  get code() { return CODES[this.#name] ?? 0; }
}
finish("DOMException", DOMException);

export class Event {
  #type; #cancelable; #bubbles; #prevented = false;
  stopped = false;
  constructor(type, init = {}) {
    if (arguments.length === 0) throw new TypeError("Failed to construct 'Event': 1 argument is needed.");
    this.#type = `${type}`;
    this.#cancelable = Boolean(init.cancelable);
    this.#bubbles = Boolean(init.bubbles);
    Object.defineProperty(this, "stopped", { enumerable: false });
  }
  get type() { return this.#type; }
  get bubbles() { return this.#bubbles; }
  get cancelable() { return this.#cancelable; }
  get defaultPrevented() { return this.#prevented; }
  get target() { return this.currentTarget; }
  get timeStamp() { return 0; }
  preventDefault() { if (this.#cancelable) this.#prevented = true; }
  stopPropagation() {}
  stopImmediatePropagation() { this.stopped = true; }
}
Object.defineProperty(Event.prototype, "currentTarget", { value: null, writable: true });
finish("Event", Event);

export class CustomEvent extends Event {
  #detail;
  constructor(type, init = {}) {
    super(type, init);
    this.#detail = init.detail ?? null;
  }
  get detail() { return this.#detail; }
}
finish("CustomEvent", CustomEvent);

export class EventTarget {
  #listeners = new Map();
  addEventListener(type, listener, options) {
    if (listener === null || listener === undefined) return;
    const all = this.#listeners.get(type) ?? [];
    if (all.some((known) => known.listener === listener)) return;
    const once = typeof options === "object" && options !== null && Boolean(options.once);
    this.#listeners.set(type, [...all, { listener, once }]);
    options?.signal?.addEventListener("abort", () => this.removeEventListener(type, listener));
  }
  removeEventListener(type, listener) {
    const all = this.#listeners.get(type) ?? [];
    this.#listeners.set(type, all.filter((known) => known.listener !== listener));
  }
  dispatchEvent(event) {
    event.currentTarget = this;
    for (const { listener, once } of this.#listeners.get(event.type) ?? []) {
      if (once) this.removeEventListener(event.type, listener);
      if (typeof listener === "function") listener.call(this, event);
      else listener.handleEvent(event);
      if (event.stopped) break;
    }
    return !event.defaultPrevented;
  }
}
finish("EventTarget", EventTarget);

const ONLY_HERE = Symbol("made by the platform");
let abortWith;

export class AbortSignal extends EventTarget {
  #aborted = false; #reason = undefined; #handler = null;
  constructor(token) {
    if (token !== ONLY_HERE) throw new TypeError("Illegal constructor");
    super();
  }
  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  get onabort() { return this.#handler; }
  set onabort(handler) { this.#handler = typeof handler === "function" ? handler : null; }
  throwIfAborted() { if (this.#aborted) throw this.#reason; }
  static abort(reason) {
    const signal = new AbortSignal(ONLY_HERE);
    signal.#abort(reason);
    return signal;
  }
  static timeout(ms) {
    const signal = new AbortSignal(ONLY_HERE);
    ask(host.timer, Number(ms)).then(() => {
      signal.#abort(new DOMException("The operation was aborted due to timeout", "TimeoutError"));
    });
    return signal;
  }
  static any(signals) {
    const any = new AbortSignal(ONLY_HERE);
    for (const signal of signals) {
      if (signal.aborted) any.#abort(signal.reason);
      else signal.addEventListener("abort", () => any.#abort(signal.reason));
    }
    return any;
  }
  #abort(reason) {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason === undefined ? new DOMException("The operation was aborted", "AbortError") : reason;
    const event = new Event("abort");
    this.#handler?.call(this, event);
    this.dispatchEvent(event);
  }
  static { abortWith = (signal, reason) => signal.#abort(reason); }
}
finish("AbortSignal", AbortSignal);

export class AbortController {
  #signal = new AbortSignal(ONLY_HERE);
  get signal() { return this.#signal; }
  abort(reason) { abortWith(this.#signal, reason); }
}
finish("AbortController", AbortController);

/** Settles as the promise does, or is rejected once the signal aborts. */
export function untilAborted(signal, promise) {
  if (!signal) return promise;
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
