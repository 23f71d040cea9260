// Streams, after the Streams Standard: what is read, what is written, and what turns the one into the other.
import { ask, bytesOf, finish, host } from "starling:host";

const deferred = () => {
  const d = {};
  d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
  d.promise.catch(() => {});
  return d;
};
const sizeOf = (strategy) => (typeof strategy?.size === "function" ? strategy.size : () => 1);
const markOf = (strategy, usual) => {
  const mark = strategy?.highWaterMark ?? usual;
  if (!(Number(mark) >= 0)) throw new RangeError("The highWaterMark must be a number that is not negative.");
  return Number(mark);
};

export class CountQueuingStrategy {
  constructor({ highWaterMark }) { this.highWaterMark = highWaterMark; }
  size() { return 1; }
}
export class ByteLengthQueuingStrategy {
  constructor({ highWaterMark }) { this.highWaterMark = highWaterMark; }
  size(chunk) { return chunk.byteLength; }
}

/** A stream's state. A stream of the node's own is not opened before it is looked at, so that it can be handed on. */
class Reading {
  state = "readable"; error = undefined; queue = []; size = 0; requests = []; reader = null; disturbed = false;
  closing = false; pulling = false; again = false; started = false; source = null; mark = 1; measure = () => 1;
  isBytes = false; length = undefined; id = undefined; closed = deferred();

  start(source, mark, measure) {
    [this.source, this.mark, this.measure, this.isBytes] = [source, mark, measure, source.type === "bytes"];
    this.controller = new ReadableStreamDefaultController(ONLY_HERE, this);
    const begun = source.start?.(this.controller);
    Promise.resolve(begun).then(() => { this.started = true; this.pull(); }, (error) => this.fail(error));
  }
  get wanted() { return this.state === "errored" ? null : this.state === "closed" ? 0 : this.mark - this.size; }
  pull() {
    if (this.state !== "readable" || !this.started || this.closing || !this.source.pull) return;
    if (this.requests.length === 0 && this.wanted <= 0) return;
    if (this.pulling) { this.again = true; return; }
    this.pulling = true;
    let pulled;
    try { pulled = Promise.resolve(this.source.pull(this.controller)); } catch (error) { pulled = Promise.reject(error); }
    pulled.then(() => {
      this.pulling = false;
      if (this.again) { this.again = false; this.pull(); }
    }, (error) => this.fail(error));
  }
  enqueue(chunk) {
    if (this.closing || this.state !== "readable") throw new TypeError("This ReadableStream is closed.");
    if (this.requests.length > 0) this.requests.shift().resolve({ done: false, value: chunk });
    else {
      const size = this.measure(chunk);
      this.queue.push({ chunk, size });
      this.size += size;
    }
    this.pull();
  }
  close() {
    if (this.closing || this.state !== "readable") throw new TypeError("This ReadableStream is closed.");
    this.closing = true;
    if (this.queue.length === 0) this.end();
  }
  end() {
    if (this.state !== "readable") return;
    this.state = "closed";
    for (const request of this.requests.splice(0)) request.resolve({ done: true, value: undefined });
    this.closed.resolve();
  }
  fail(error) {
    if (this.state !== "readable") return;
    [this.state, this.error, this.queue] = ["errored", error, []];
    for (const request of this.requests.splice(0)) request.reject(error);
    this.closed.reject(error);
  }
  read() {
    this.disturbed = true;
    if (this.queue.length > 0) {
      const { chunk, size } = this.queue.shift();
      this.size -= size;
      if (this.closing && this.queue.length === 0) this.end();
      else this.pull();
      return Promise.resolve({ done: false, value: chunk });
    }
    if (this.state === "closed") return Promise.resolve({ done: true, value: undefined });
    if (this.state === "errored") return Promise.reject(this.error);
    const request = deferred();
    this.requests.push(request);
    this.pull();
    return request.promise;
  }
  async cancel(reason) {
    this.disturbed = true;
    if (this.state === "closed") return;
    if (this.state === "errored") throw this.error;
    [this.queue, this.size] = [[], 0];
    this.end();
    await this.source.cancel?.(reason);
  }
}

const ONLY_HERE = Symbol("made by the platform");
let inner, nodeStream;

export class ReadableStreamDefaultController {
  #reading;
  constructor(token, reading) {
    if (token !== ONLY_HERE) throw new TypeError("Illegal constructor");
    this.#reading = reading;
  }
  get desiredSize() { return this.#reading.wanted; }
  get byobRequest() { return null; }
  enqueue(chunk) {
    if (this.#reading.isBytes && !ArrayBuffer.isView(chunk)) throw new TypeError("A byte stream takes views of bytes.");
    this.#reading.enqueue(chunk);
  }
  close() { this.#reading.close(); }
  error(reason) { this.#reading.fail(reason); }
}
finish("ReadableStreamDefaultController", ReadableStreamDefaultController);

export class ReadableStream {
  #reading = new Reading();
  constructor(source = {}, strategy = {}) {
    if (source === null) throw new TypeError("A ReadableStream needs an underlying source.");
    const { type } = source;
    if (type !== undefined && `${type}` !== "bytes") throw new TypeError(`"${type}" is not a valid type of ReadableStream.`);
    this.#reading.start(source, markOf(strategy, type === undefined ? 1 : 0), sizeOf(strategy));
  }
  static {
    inner = (stream) => stream.#reading;
    // A stream of the node's, read by its number.
    nodeStream = (id, length) => {
      const stream = new ReadableStream({
        type: "bytes",
        async pull(controller) {
          const chunk = await ask(host.sourceRead, id);
          if (chunk === null) controller.close();
          else controller.enqueue(chunk);
        },
        cancel() { host.sourceDrop(id); },
      }, { highWaterMark: 0 });
      Object.assign(stream.#reading, { id, length });
      return stream;
    };
  }
  static from(iterable) {
    const iterator = iterable[Symbol.asyncIterator]?.() ?? iterable[Symbol.iterator]();
    return new ReadableStream({
      async pull(controller) {
        const { done, value } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel(reason) { await iterator.return?.(reason); },
    }, { highWaterMark: 0 });
  }
  get locked() { return this.#reading.reader !== null; }
  getReader({ mode } = {}) {
    if (mode === undefined) return new ReadableStreamDefaultReader(this);
    if (mode === "byob") return new ReadableStreamBYOBReader(this);
    throw new TypeError(`"${mode}" is not a mode of reading.`);
  }
  cancel(reason) {
    if (this.locked) return Promise.reject(new TypeError("This ReadableStream is currently locked to a reader."));
    return this.#reading.cancel(reason);
  }
  async pipeTo(writable, { preventClose = false, preventAbort = false, preventCancel = false, signal } = {}) {
    const [reader, writer] = [this.getReader(), writable.getWriter()];
    const aborted = signal && new Promise((_, reject) => { signal.addEventListener("abort", () => reject(signal.reason)); });
    aborted?.catch(() => {});
    try {
      for (;;) {
        signal?.throwIfAborted();
        await writer.ready;
        let result;
        try { result = await (aborted ? Promise.race([reader.read(), aborted]) : reader.read()); } catch (error) {
          if (signal?.aborted) throw error;
          if (!preventAbort) await writer.abort(error).catch(() => {});
          throw error;
        }
        if (result.done) break;
        await writer.write(result.value);
      }
      if (!preventClose) await writer.close();
    } catch (error) {
      if (!preventCancel) await reader.cancel(error).catch(() => {});
      if (signal?.aborted && !preventAbort) await writer.abort(error).catch(() => {});
      throw error;
    } finally {
      reader.releaseLock();
      writer.releaseLock();
    }
  }
  pipeThrough({ readable, writable }, options) {
    this.pipeTo(writable, options).catch(() => {});
    return readable;
  }
  tee() {
    const reader = this.getReader();
    const branches = [], isCancelled = [false, false];
    let reading = false, again = false;
    const pull = async () => {
      if (reading) { again = true; return; }
      reading = true;
      try {
        do {
          again = false;
          const { done, value } = await reader.read();
          for (const [i, controller] of branches.entries()) {
            if (isCancelled[i]) continue;
            if (done) controller.close();
            else controller.enqueue(i === 1 && value instanceof Uint8Array ? value.slice() : value);
          }
          if (done) return;
        } while (again);
      } catch (error) {
        for (const controller of branches) controller.error(error);
      } finally {
        reading = false;
      }
    };
    const branch = (i) => new ReadableStream({
      start(controller) { branches[i] = controller; },
      pull,
      async cancel(reason) {
        isCancelled[i] = true;
        if (isCancelled[0] && isCancelled[1]) await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
    return [branch(0), branch(1)];
  }
  async *values({ preventCancel = false } = {}) {
    const reader = this.getReader();
    let isDone = false;
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) { isDone = true; return; }
        yield value;
      }
    } finally {
      if (!isDone && !preventCancel) await reader.cancel().catch(() => {});
      reader.releaseLock();
    }
  }
  [Symbol.asyncIterator](options) { return this.values(options); }
}
finish("ReadableStream", ReadableStream);

class Reader {
  #stream = null; #closed;
  constructor(stream) {
    if (stream.locked) throw new TypeError("This ReadableStream is currently locked to a reader.");
    [this.#stream, this.#closed] = [stream, inner(stream).closed.promise];
    inner(stream).reader = this;
  }
  get closed() { return this.#closed; }
  get reading() {
    if (!this.#stream) throw new TypeError("This ReadableStream reader has been released.");
    return inner(this.#stream);
  }
  async cancel(reason) { return this.reading.cancel(reason); }
  releaseLock() {
    if (!this.#stream) return;
    const reading = inner(this.#stream);
    for (const request of reading.requests.splice(0)) request.reject(new TypeError("This ReadableStream reader has been released."));
    reading.reader = this.#stream = null;
    this.#closed = Promise.reject(new TypeError("This ReadableStream reader has been released."));
    this.#closed.catch(() => {});
  }
}
Object.defineProperty(Reader.prototype, "reading", { enumerable: false });

export class ReadableStreamDefaultReader extends Reader {
  async read() { return this.reading.read(); }
}
finish("ReadableStreamDefaultReader", ReadableStreamDefaultReader);

export class ReadableStreamBYOBReader extends Reader {
  #rest = null;
  constructor(stream) {
    if (!inner(stream).isBytes) throw new TypeError("This ReadableStream does not support BYOB reads.");
    super(stream);
  }
  async read(view) {
    if (!ArrayBuffer.isView(view) || view.byteLength === 0) throw new TypeError("read() needs a view that has room.");
    let chunk = this.#rest;
    if (!chunk) {
      const { done, value } = await this.reading.read();
      if (done) return { done, value: new view.constructor(view.buffer, view.byteOffset, 0) };
      chunk = bytesOf(value);
    }
    const taken = Math.min(chunk.byteLength, view.byteLength);
    new Uint8Array(view.buffer, view.byteOffset).set(chunk.subarray(0, taken));
    this.#rest = taken < chunk.byteLength ? chunk.subarray(taken) : null;
    const length = taken / (view.constructor.BYTES_PER_ELEMENT ?? 1);
    return { done: false, value: new view.constructor(view.buffer, view.byteOffset, length) };
  }
  readAtLeast(least, view) { return this.read(view); }
}
finish("ReadableStreamBYOBReader", ReadableStreamBYOBReader);

/** The state of what is written to. */
class Writing {
  state = "writable"; error = undefined; queue = []; size = 0; busy = false; writer = null; closing = null;
  closed = deferred(); ready = deferred();
  constructor(sink, strategy) {
    [this.sink, this.mark, this.measure] = [sink, markOf(strategy, 1), sizeOf(strategy)];
    this.controller = { error: (reason) => this.fail(reason), signal: undefined };
    this.busy = true;
    Promise.resolve(sink.start?.(this.controller)).then(() => { this.busy = false; this.go(); }, (error) => this.fail(error));
    this.relax();
  }
  get wanted() { return this.state === "writable" ? this.mark - this.size : this.state === "closed" ? 0 : null; }
  relax() { if (this.state !== "writable" || this.wanted > 0) this.ready.resolve(); }
  add(chunk) {
    if (this.state === "errored") return Promise.reject(this.error);
    if (this.state === "closed" || this.closing) return Promise.reject(new TypeError("This WritableStream has been closed."));
    const entry = { chunk, size: this.measure(chunk), ...deferred() };
    this.queue.push(entry);
    this.size += entry.size;
    if (this.wanted <= 0) this.ready = deferred();
    this.go();
    return entry.promise;
  }
  close() {
    if (this.state === "errored") return Promise.reject(this.error);
    if (this.state === "closed" || this.closing) return Promise.reject(new TypeError("This WritableStream has been closed."));
    this.closing = deferred();
    this.go();
    return this.closing.promise;
  }
  async go() {
    if (this.busy || this.state !== "writable") return;
    this.busy = true;
    try {
      while (this.queue.length > 0) {
        const entry = this.queue[0];
        await this.sink.write?.(entry.chunk, this.controller);
        if (this.state !== "writable") return;
        this.queue.shift();
        this.size -= entry.size;
        entry.resolve();
        this.relax();
      }
      if (this.closing) {
        await this.sink.close?.(this.controller);
        this.state = "closed";
        this.closing.resolve();
        this.closed.resolve();
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.busy = false;
    }
  }
  fail(error) {
    if (this.state !== "writable") return;
    [this.state, this.error] = ["errored", error];
    for (const entry of this.queue.splice(0)) entry.reject(error);
    this.closing?.reject(error);
    this.closed.reject(error);
    this.ready.reject(error);
  }
  async abort(reason) {
    if (this.state !== "writable") return;
    this.fail(reason ?? new TypeError("This WritableStream was aborted."));
    await this.sink.abort?.(reason);
  }
}

let written;

export class WritableStream {
  #writing;
  constructor(sink = {}, strategy = {}) { this.#writing = new Writing(sink ?? {}, strategy); }
  static { written = (stream) => stream.#writing; }
  get locked() { return this.#writing.writer !== null; }
  getWriter() { return new WritableStreamDefaultWriter(this); }
  abort(reason) {
    if (this.locked) return Promise.reject(new TypeError("This WritableStream is currently locked to a writer."));
    return this.#writing.abort(reason);
  }
  close() {
    if (this.locked) return Promise.reject(new TypeError("This WritableStream is currently locked to a writer."));
    return this.#writing.close();
  }
}
finish("WritableStream", WritableStream);

export class WritableStreamDefaultWriter {
  #stream;
  constructor(stream) {
    if (stream.locked) throw new TypeError("This WritableStream is currently locked to a writer.");
    this.#stream = stream;
    written(stream).writer = this;
  }
  #writing() {
    if (!this.#stream) throw new TypeError("This WritableStream writer has been released.");
    return written(this.#stream);
  }
  get closed() { return this.#stream ? this.#writing().closed.promise : Promise.reject(new TypeError("This WritableStream writer has been released.")); }
  get ready() { return this.#writing().ready.promise; }
  get desiredSize() { return this.#writing().wanted; }
  async write(chunk) { return this.#writing().add(chunk); }
  async close() { return this.#writing().close(); }
  async abort(reason) { return this.#writing().abort(reason); }
  releaseLock() {
    if (!this.#stream) return;
    written(this.#stream).writer = null;
    this.#stream = null;
  }
}
finish("WritableStreamDefaultWriter", WritableStreamDefaultWriter);

export class TransformStream {
  #readable; #writable;
  constructor(transformer = {}, writableStrategy = {}, readableStrategy = {}) {
    let out;
    let room = deferred();
    this.#readable = new ReadableStream({
      start(controller) { out = controller; },
      pull() { room.resolve(); },
      cancel: (reason) => written(this.#writable).fail(reason ?? new TypeError("The readable end was cancelled.")),
    }, { highWaterMark: markOf(readableStrategy, 0), size: readableStrategy?.size });
    const controller = {
      get desiredSize() { return out.desiredSize; },
      enqueue: (chunk) => out.enqueue(chunk),
      error: (reason) => { out.error(reason); written(this.#writable).fail(reason); },
      terminate: () => { out.close(); written(this.#writable).fail(new TypeError("The stream was terminated.")); },
    };
    const guarded = async (work) => {
      try { return await work(); } catch (error) { out.error(error); throw error; }
    };
    this.#writable = new WritableStream({
      start: () => transformer?.start?.(controller),
      async write(chunk) {
        // Nobody is asked for more than the other end has room for.
        const reading = inner(readable());
        if (reading.requests.length === 0 && reading.wanted <= 0) {
          room = deferred();
          await room.promise;
        }
        await guarded(async () => {
          if (transformer?.transform) await transformer.transform(chunk, controller);
          else controller.enqueue(chunk);
        });
      },
      close: () => guarded(async () => {
        await transformer?.flush?.(controller);
        if (inner(readable()).state === "readable" && !inner(readable()).closing) out.close();
      }),
      abort: (reason) => out.error(reason),
    }, writableStrategy);
    const readable = () => this.#readable;
  }
  get readable() { return this.#readable; }
  get writable() { return this.#writable; }
}
finish("TransformStream", TransformStream);

export class IdentityTransformStream extends TransformStream {
  constructor(length) {
    let left = length ?? Infinity;
    super({
      transform(chunk, controller) {
        const bytes = typeof chunk === "string" ? host.encode(chunk) : bytesOf(chunk);
        if (bytes === undefined) throw new TypeError("This TransformStream is being used as a byte stream, but received an object of non-ArrayBuffer/ArrayBufferView type on its writable side.");
        left -= bytes.byteLength;
        if (left < 0) throw new TypeError("Attempt to write too many bytes through a FixedLengthStream.");
        if (bytes.byteLength > 0) controller.enqueue(bytes.slice());
      },
      flush() {
        if (left > 0 && left < Infinity) throw new TypeError("FixedLengthStream did not see all expected bytes before close().");
      },
    });
  }
}
export class FixedLengthStream extends IdentityTransformStream {
  constructor(length) {
    super(Number(length));
    inner(this.readable).length = Number(length);
  }
}

export class TextEncoderStream extends TransformStream {
  constructor() {
    // Half of a character, of which the other half is in the next chunk.
    let half = "";
    super({
      transform(chunk, controller) {
        let text = half + chunk;
        half = /[\ud800-\udbff]$/.exec(text)?.[0] ?? "";
        text = text.slice(0, text.length - half.length);
        if (text) controller.enqueue(new globalThis.TextEncoder().encode(text));
      },
      flush(controller) { if (half) controller.enqueue(new globalThis.TextEncoder().encode(half)); },
    });
  }
  get encoding() { return "utf-8"; }
}
export class TextDecoderStream extends TransformStream {
  constructor(label, options) {
    const decoder = new globalThis.TextDecoder(label, options);
    super({
      transform(chunk, controller) {
        const text = decoder.decode(chunk, { stream: true });
        if (text) controller.enqueue(text);
      },
      flush(controller) {
        const text = decoder.decode();
        if (text) controller.enqueue(text);
      },
    });
  }
}

export { inner, nodeStream };
