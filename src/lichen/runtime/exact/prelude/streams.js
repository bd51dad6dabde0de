// https://streams.spec.whatwg.org: default readers and writers, pull and backpressure, tee, pipes.
// Byte streams are served as default streams; there is no BYOB reader.
class CountQueuingStrategy {
  constructor({ highWaterMark }) { this.highWaterMark = highWaterMark; }
  size() { return 1; }
}
class ByteLengthQueuingStrategy {
  constructor({ highWaterMark }) { this.highWaterMark = highWaterMark; }
  size(chunk) { return chunk.byteLength; }
}

function deferred() {
  const made = Promise_.withResolvers();
  made.promise.catch(() => {}); // whoever waits for it hears of it; nobody has to
  return made;
}

class ReadableStreamDefaultController {
  #core;
  constructor(core) {
    if (!(core instanceof ReadableCore)) throw new TypeError("Illegal constructor");
    this.#core = core;
  }
  get desiredSize() { return this.#core.desiredSize(); }
  enqueue(chunk) { this.#core.enqueue(chunk); }
  close() { this.#core.close(); }
  error(reason) { this.#core.fail(reason); }
  get byobRequest() { return null; }
}

// The state behind a ReadableStream: a queue, those who wait for it, and where it comes from.
class ReadableCore {
  queue = [];
  size = 0;
  state = "readable";
  closing = false;
  reason = undefined;
  reader = null;
  disturbed = false;
  wants = [];
  pulling = false;
  again = false;
  started = false;
  constructor(source, { highWaterMark = 1, size = () => 1 } = {}) {
    if (!(highWaterMark >= 0)) throw new RangeError("highWaterMark is not a size");
    this.source = source;
    this.mark = highWaterMark;
    this.weigh = size;
    this.bytes = source.type === "bytes";
    this.controller = new ReadableStreamDefaultController(this);
    const started = source.start?.(this.controller);
    const go = () => {
      this.started = true;
      this.pull();
    };
    Promise_.resolve(started).then(go, (error) => this.fail(error));
  }
  desiredSize() {
    if (this.state === "errored") return null;
    return this.state === "closed" ? 0 : this.mark - this.size;
  }
  enqueue(chunk) {
    if (this.state !== "readable" || this.closing) throw new TypeError("the stream is closed");
    if (this.bytes && !isView(chunk)) throw new TypeError("a byte stream takes views of buffers");
    if (this.wants.length) {
      this.wants.shift().resolve({ value: chunk, done: false });
    } else {
      const size = Number(this.weigh(chunk));
      if (!(size >= 0 && size < Infinity)) throw new RangeError("a chunk's size is not a size");
      this.queue.push({ chunk, size });
      this.size += size;
    }
    this.pull();
  }
  close() {
    if (this.state !== "readable" || this.closing) throw new TypeError("the stream is closed");
    this.closing = true;
    if (!this.queue.length) this.end();
  }
  end() {
    this.state = "closed";
    for (const want of this.wants.splice(0)) want.resolve({ value: undefined, done: true });
    this.reader?.closedPromise.resolve();
  }
  fail(reason) {
    if (this.state !== "readable") return;
    this.state = "errored";
    this.reason = reason;
    this.queue = [];
    this.size = 0;
    for (const want of this.wants.splice(0)) want.reject(reason);
    this.reader?.closedPromise.reject(reason);
  }
  pull() {
    const wanted = this.state === "readable" && !this.closing && this.started &&
      (this.wants.length > 0 || this.desiredSize() > 0);
    if (!wanted || !this.source.pull) return;
    if (this.pulling) {
      this.again = true;
      return;
    }
    this.pulling = true;
    const after = () => {
      this.pulling = false;
      if (this.again) {
        this.again = false;
        this.pull();
      }
    };
    new Promise_((resolve) => resolve(this.source.pull(this.controller)))
      .then(after, (error) => this.fail(error));
  }
  read() {
    this.disturbed = true;
    if (this.state === "errored") return Promise_.reject(this.reason);
    if (this.queue.length) {
      const { chunk, size } = this.queue.shift();
      this.size -= size;
      if (this.closing && !this.queue.length) this.end();
      else this.pull();
      return Promise_.resolve({ value: chunk, done: false });
    }
    if (this.state === "closed") return Promise_.resolve({ value: undefined, done: true });
    const want = Promise_.withResolvers();
    this.wants.push(want);
    this.pull();
    return want.promise;
  }
  async cancel(reason) {
    this.disturbed = true;
    if (this.state === "errored") throw this.reason;
    if (this.state === "closed") return;
    this.queue = [];
    this.end();
    await this.source.cancel?.(reason);
  }
}

class ReadableStreamDefaultReader {
  #stream;
  constructor(stream) {
    const core = coreOf(stream);
    if (core.reader) throw new TypeError("the stream is locked");
    this.#stream = stream;
    attach(core, this);
  }
  get closed() { return readerCore.get(this)?.closedPromise.promise ?? unlocked(); }
  async read() { return (this.#core()).read(); }
  async cancel(reason) { return (this.#core()).cancel(reason); }
  releaseLock() {
    if (!this.#stream) return;
    const core = coreOf(this.#stream);
    const error = new TypeError("the reader was released");
    for (const want of core.wants.splice(0)) want.reject(error);
    core.reader.closedPromise.reject(error);
    core.reader = null;
    this.#stream = null;
  }
  #core() {
    if (!this.#stream) throw new TypeError("the reader was released");
    return coreOf(this.#stream);
  }
}
const readerCore = new WeakMap();
const unlocked = () => Promise_.reject(new TypeError("the reader was released"));

function attach(core, reader) {
  const closedPromise = deferred();
  core.reader = { closedPromise };
  readerCore.set(reader, core.reader);
  if (core.state === "closed") closedPromise.resolve();
  if (core.state === "errored") closedPromise.reject(core.reason);
}

let coreOf;
class ReadableStream {
  #core;
  static { coreOf = (stream) => stream.#core; }
  constructor(source = {}, strategy = {}) {
    this.#core = new ReadableCore(source ?? {}, {
      highWaterMark: strategy.highWaterMark ?? (source?.type === "bytes" ? 0 : 1),
      size: strategy.size ? (chunk) => strategy.size(chunk) : undefined,
    });
  }
  static from(iterable) {
    const iterator = (iterable[Symbol.asyncIterator] ?? iterable[Symbol.iterator]).call(iterable);
    return new ReadableStream({
      async pull(controller) {
        const { value, done } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(await value);
      },
      async cancel(reason) { await iterator.return?.(reason); },
    }, { highWaterMark: 0 });
  }
  get locked() { return this.#core.reader !== null; }
  getReader({ mode } = {}) {
    if (mode !== undefined) throw new TypeError("BYOB readers are not offered");
    return new ReadableStreamDefaultReader(this);
  }
  async cancel(reason) {
    if (this.locked) throw new TypeError("the stream is locked");
    return this.#core.cancel(reason);
  }
  async *values({ preventCancel = false } = {}) {
    const reader = this.getReader();
    let finished = false;
    try {
      while (true) {
        const { value, done } = await reader.read();
        if (done) {
          finished = true;
          return;
        }
        yield value;
      }
    } catch (error) {
      finished = true;
      throw error;
    } finally {
      if (!finished && !preventCancel) await reader.cancel();
      reader.releaseLock();
    }
  }
  [Symbol.asyncIterator](options) { return this.values(options); }
  tee() {
    const reader = this.getReader();
    const branches = [null, null], cancelled = [false, false];
    let reading = null;
    const pull = () => {
      reading ??= reader.read().then(({ value, done }) => {
        reading = null;
        branches.forEach((controller, index) => {
          if (cancelled[index]) return;
          if (done) controller.close();
          else controller.enqueue(value);
        });
      }, (error) => branches.forEach((controller) => controller.error(error)));
      return reading;
    };
    const branch = (index) => new ReadableStream({
      start(controller) { branches[index] = controller; },
      pull,
      cancel(reason) {
        cancelled[index] = true;
        return cancelled[0] && cancelled[1] ? reader.cancel(reason) : undefined;
      },
    }, { highWaterMark: 0 });
    return [branch(0), branch(1)];
  }
  async pipeTo(target, { preventClose, preventAbort, preventCancel, signal } = {}) {
    const reader = this.getReader(), writer = target.getWriter();
    try {
      while (true) {
        signal?.throwIfAborted();
        await writer.ready;
        const { value, done } = await reader.read();
        if (done) break;
        await writer.write(value);
      }
      if (!preventClose) await writer.close();
    } catch (error) {
      if (!preventCancel) await reader.cancel(error).catch(() => {});
      if (!preventAbort) await writer.abort(error).catch(() => {});
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
}

class WritableStreamDefaultController {
  #core;
  #aborter = new AbortController();
  constructor(core) { this.#core = core; }
  get signal() { return this.#aborter.signal; }
  error(reason) { this.#core.fail(reason); }
}

class WritableCore {
  state = "writable";
  reason = undefined;
  writer = null;
  size = 0;
  chain = Promise_.resolve();
  closedPromise = deferred();
  ready = deferred();
  constructor(sink, { highWaterMark = 1, size = () => 1 } = {}) {
    this.sink = sink;
    this.mark = highWaterMark;
    this.weigh = size;
    this.controller = new WritableStreamDefaultController(this);
    const started = sink.start?.(this.controller);
    this.chain = Promise_.resolve(started).then(() => {}, (error) => this.fail(error));
    if (this.mark > 0) this.ready.resolve();
  }
  fail(reason) {
    if (this.state !== "writable" && this.state !== "closing") return;
    this.state = "errored";
    this.reason = reason;
    this.closedPromise.reject(reason);
    this.ready.reject(reason);
  }
  step(work) {
    const done = this.chain.then(() => {
      if (this.state === "errored") throw this.reason;
      return work();
    });
    this.chain = done.catch((error) => this.fail(error));
    return done;
  }
  async write(chunk) {
    if (this.state === "errored") throw this.reason;
    if (this.state !== "writable") throw new TypeError("the stream is closed");
    const size = this.weigh(chunk);
    this.size += size;
    if (this.size >= this.mark) this.ready = deferred();
    await this.step(() => this.sink.write?.(chunk, this.controller));
    this.size -= size;
    if (this.size < this.mark) this.ready.resolve();
  }
  async close() {
    if (this.state !== "writable") throw new TypeError("the stream is closed");
    this.state = "closing";
    await this.step(() => this.sink.close?.());
    this.state = "closed";
    this.closedPromise.resolve();
  }
  async abort(reason) {
    if (this.state === "closed" || this.state === "errored") return;
    this.fail(reason);
    await this.sink.abort?.(reason);
  }
}

let sinkOf;
class WritableStream {
  #core;
  static { sinkOf = (stream) => stream.#core; }
  constructor(sink = {}, strategy = {}) {
    this.#core = new WritableCore(sink ?? {}, {
      highWaterMark: strategy.highWaterMark,
      size: strategy.size ? (chunk) => strategy.size(chunk) : undefined,
    });
  }
  get locked() { return this.#core.writer !== null; }
  getWriter() { return new WritableStreamDefaultWriter(this); }
  async close() { return this.#free().close(); }
  async abort(reason) { return this.#free().abort(reason); }
  #free() {
    if (this.locked) throw new TypeError("the stream is locked");
    return this.#core;
  }
}

class WritableStreamDefaultWriter {
  #core;
  constructor(stream) {
    this.#core = sinkOf(stream);
    if (this.#core.writer) throw new TypeError("the stream is locked");
    this.#core.writer = this;
  }
  get closed() { return this.#held().closedPromise.promise; }
  get ready() { return this.#held().ready.promise; }
  get desiredSize() {
    const core = this.#held();
    return core.state === "errored" ? null : core.state === "closed" ? 0 : core.mark - core.size;
  }
  async write(chunk) { return this.#held().write(chunk); }
  async close() { return this.#held().close(); }
  async abort(reason) { return this.#held().abort(reason); }
  releaseLock() {
    if (this.#core) this.#core.writer = null;
    this.#core = null;
  }
  #held() {
    if (!this.#core) throw new TypeError("the writer was released");
    return this.#core;
  }
}

class TransformStream {
  #readable;
  #writable;
  constructor(transformer = {}, writableStrategy = {}, readableStrategy = {}) {
    let out, room = deferred();
    const face = {
      enqueue: (chunk) => out.enqueue(chunk),
      error: (reason) => {
        out.error(reason);
        sinkOf(this.#writable).fail(reason);
      },
      terminate: () => {
        out.close();
        sinkOf(this.#writable).fail(new TypeError("the stream was terminated"));
      },
      get desiredSize() { return out.desiredSize; },
    };
    this.#readable = new ReadableStream({
      start(controller) { out = controller; },
      pull() {
        room.resolve();
        room = deferred();
      },
      cancel: (reason) => {
        sinkOf(this.#writable).fail(reason);
        return transformer.cancel?.(reason);
      },
    }, { highWaterMark: 0, ...readableStrategy });
    const guarded = async (work) => {
      try {
        await work();
      } catch (error) {
        out.error(error);
        throw error;
      }
    };
    this.#writable = new WritableStream({
      start: () => transformer.start?.(face),
      write: (chunk) => guarded(async () => {
        const core = coreOf(this.#readable);
        if (core.desiredSize() <= 0 && !core.wants.length) await room.promise;
        if (transformer.transform) await transformer.transform(chunk, face);
        else out.enqueue(chunk);
      }),
      close: () => guarded(async () => {
        await transformer.flush?.(face);
        if (coreOf(this.#readable).state === "readable") out.close();
      }),
      abort: (reason) => {
        out.error(reason);
        return transformer.cancel?.(reason);
      },
    }, writableStrategy);
  }
  get readable() { return this.#readable; }
  get writable() { return this.#writable; }
}

class TextEncoderStream {
  #inner;
  constructor() {
    const encoder = new TextEncoder();
    let high = "";
    this.#inner = new TransformStream({
      transform(chunk, controller) {
        let piece = high + String(chunk);
        const last = piece.charCodeAt(piece.length - 1);
        high = last >= 0xd800 && last < 0xdc00 ? piece.at(-1) : "";
        if (high) piece = piece.slice(0, -1);
        if (piece) controller.enqueue(encoder.encode(piece));
      },
      flush(controller) { if (high) controller.enqueue(encoder.encode(high)); },
    });
  }
  get encoding() { return "utf-8"; }
  get readable() { return this.#inner.readable; }
  get writable() { return this.#inner.writable; }
}

class TextDecoderStream {
  #inner;
  #decoder;
  constructor(label, options) {
    const decoder = this.#decoder = new TextDecoder(label, options);
    this.#inner = new TransformStream({
      transform(chunk, controller) {
        const piece = decoder.decode(chunk, { stream: true });
        if (piece) controller.enqueue(piece);
      },
      flush(controller) {
        const piece = decoder.decode();
        if (piece) controller.enqueue(piece);
      },
    });
  }
  get encoding() { return this.#decoder.encoding; }
  get fatal() { return this.#decoder.fatal; }
  get ignoreBOM() { return this.#decoder.ignoreBOM; }
  get readable() { return this.#inner.readable; }
  get writable() { return this.#inner.writable; }
}

const streams = {
  CountQueuingStrategy, ByteLengthQueuingStrategy, ReadableStream, ReadableStreamDefaultReader,
  ReadableStreamDefaultController, WritableStream, WritableStreamDefaultWriter,
  WritableStreamDefaultController, TransformStream, TextEncoderStream, TextDecoderStream,
};
for (const name of Object.keys(streams)) named(streams[name], name);
expose(streams);
