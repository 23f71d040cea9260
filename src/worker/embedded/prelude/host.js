// The way to the node: what it can do, and the promises that wait for it.

export const host = globalThis.starlingHost;
delete globalThis.starlingHost;

const waiting = new Map();
let last = 0;

/** An error of the node's, as JavaScript knows them. */
export function failure(name, message) {
  switch (name) {
    case "TypeError": return new TypeError(message);
    case "RangeError": return new RangeError(message);
    case "Error": return new Error(message);
    default: return new globalThis.DOMException(message, name);
  }
}

/** Has the node do something. It either gives a result at once or delivers it later. Throws what may not be begun. */
export function ask(begin, a, b, c, d, e) {
  const operation = ++last;
  const done = begin(operation, a, b, c, d, e);
  if (done === undefined) return later(operation);
  return done[0] ? resolved(done[1]) : rejected(failure(done[1], done[2]));
}

/** The same without a promise around what is there at once: only a promise is to be awaited. */
export function now(begin, a, b, c, d, e) {
  const operation = ++last;
  const done = begin(operation, a, b, c, d, e);
  if (done === undefined) return later(operation);
  if (done[0]) return done[1];
  throw failure(done[1], done[2]);
}

// Whatever a script makes of the global one.
export const resolved = Promise.resolve.bind(Promise);
const rejected = Promise.reject.bind(Promise);

const later = (operation) => new Promise((resolve, reject) => waiting.set(operation, { resolve, reject }));

export function deliver(operation, ok, value, message) {
  const waiter = waiting.get(operation);
  if (waiter === undefined) return;
  waiting.delete(operation);
  // What belongs to a request that is over never goes on.
  if (ok) waiter.resolve(value);
  else if (ok !== undefined) waiter.reject(failure(value, message));
}

/** Text for the node, which takes whole characters only. */
export function text(value) {
  const string = typeof value === "string" ? value : `${value}`;
  return string.isWellFormed() ? string : string.toWellFormed();
}

/** The bytes of whatever holds some, or `undefined`. */
export function bytesOf(value) {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return new Uint8Array(value);
  return undefined;
}

export function join(chunks) {
  if (chunks.length === 1) return chunks[0];
  let length = 0;
  for (const chunk of chunks) length += chunk.byteLength;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole;
}

/** The buffer that holds these bytes and nothing else. */
export function bufferOf(bytes) {
  const { buffer, byteOffset, byteLength } = bytes;
  return byteLength === buffer.byteLength ? buffer : buffer.slice(byteOffset, byteOffset + byteLength);
}

/** Gives a class's members and its tag the look of the platform's own. */
export function finish(name, constructor) {
  Object.defineProperty(constructor.prototype, Symbol.toStringTag, { value: name, configurable: true });
  for (const key of Object.getOwnPropertyNames(constructor.prototype)) {
    if (key === "constructor") continue;
    const property = Object.getOwnPropertyDescriptor(constructor.prototype, key);
    if (!property.configurable) continue;
    Object.defineProperty(constructor.prototype, key, { ...property, enumerable: true });
  }
  return constructor;
}
