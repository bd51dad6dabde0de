// What the other files of the prelude share. A function may change any global, so what has to hold
// afterwards is taken here, before it runs.
const { apply, ownKeys } = Reflect;
const [OUTPUT_BYTES_MAX, LOG_BYTES_MAX] = limits.split(" ").map(Number);
const state = { logs: [], logBytes: 0, logsDropped: 0, waiting: 0 };

const ArrayBuffer_ = ArrayBuffer, Uint8Array_ = Uint8Array, Promise_ = Promise, Error_ = Error;
const viewTag = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array_.prototype), Symbol.toStringTag,
).get;

function expose(values) {
  for (const name of ownKeys(values)) {
    Object.defineProperty(globalThis, name, {
      value: values[name], writable: true, enumerable: false, configurable: true,
    });
  }
}

function named(constructor, name) {
  Object.defineProperty(constructor.prototype, Symbol.toStringTag, {
    value: name, configurable: true,
  });
}

function enumerable(constructor, names) {
  for (const name of names) {
    Object.defineProperty(constructor.prototype, name, { enumerable: true });
  }
}

function isView(value) {
  return ArrayBuffer_.isView(value);
}

function isBuffer(value) {
  return value instanceof ArrayBuffer_ || value instanceof SharedArrayBuffer;
}

// The bytes of a BufferSource, as a view.
function bytesOf(source) {
  if (isView(source)) return new Uint8Array_(source.buffer, source.byteOffset, source.byteLength);
  if (isBuffer(source)) return new Uint8Array_(source);
  throw new TypeError("not an ArrayBuffer or a view of one");
}

// Exactly those bytes, in a buffer of their own.
function copyOf(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

function concat(chunks) {
  let size = 0;
  for (const chunk of chunks) size += chunk.byteLength;
  const whole = new Uint8Array_(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole;
}

function utf8(text) {
  return new Uint8Array_(host.utf8_encode(text));
}

function text(view) {
  return host.utf8_decode(copyOf(view));
}

// The text of anything thrown, whatever it does when it is looked at.
function describe(error) {
  try {
    if (error instanceof Error_) {
      const head = `${error.name}: ${error.message}`;
      return error.stack ? `${head}\n${error.stack}`.trimEnd() : head;
    }
    return String(error);
  } catch {
    return "an error that cannot be described";
  }
}
