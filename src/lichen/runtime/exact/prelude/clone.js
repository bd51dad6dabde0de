// https://html.spec.whatwg.org/#structuredserializeinternal, for values (no transfer of ports).
const PRIMITIVE_WRAPPERS = [Boolean, Number, String, BigInt];
const CLONED_ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

function structuredClone(value, { transfer = [] } = {}) {
  const copy = cloneValue(value, new Map());
  for (const item of transfer) {
    if (!(item instanceof ArrayBuffer_)) throw uncloneable(item);
    item.transfer();
  }
  return copy;
}

function uncloneable(value) {
  let words = typeof value;
  if (words === "symbol" || words === "object") words = Object.prototype.toString.call(value);
  return new DOMException(`${words} could not be cloned.`, "DataCloneError");
}

function cloneValue(value, seen) {
  if (typeof value === "symbol" || typeof value === "function") throw uncloneable(value);
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const keep = (copy) => {
    seen.set(value, copy);
    return copy;
  };
  if (value instanceof Date) return keep(new Date(value.getTime()));
  if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
  if (PRIMITIVE_WRAPPERS.some((type) => value instanceof type)) return keep(Object(value.valueOf()));
  if (value instanceof ArrayBuffer_) return keep(value.slice(0));
  if (isView(value)) {
    const buffer = cloneValue(value.buffer, seen);
    const size = value instanceof DataView ? value.byteLength : value.length;
    const type = value instanceof DataView ? DataView : globalThis[apply(viewTag, value, [])];
    return keep(new type(buffer, value.byteOffset, size));
  }
  if (value instanceof Map) return cloneMap(value, keep(new Map()), seen);
  if (value instanceof Set) return cloneSet(value, keep(new Set()), seen);
  if (value instanceof File) {
    return keep(new File([value], value.name, { type: value.type, lastModified: value.lastModified }));
  }
  if (value instanceof Blob) return keep(new Blob([value], { type: value.type }));
  if (value instanceof Error_) return cloneError(value, keep, seen);
  if (Array.isArray(value)) return cloneProperties(value, keep(new Array(value.length)), seen);
  const plain = Object.prototype.toString.call(value) === "[object Object]" &&
    !(value instanceof Promise_) && !(value instanceof WeakMap) && !(value instanceof WeakSet);
  if (!plain) throw uncloneable(value);
  return cloneProperties(value, keep({}), seen);
}

function cloneMap(value, copy, seen) {
  for (const [key, item] of [...value]) copy.set(cloneValue(key, seen), cloneValue(item, seen));
  return copy;
}

function cloneSet(value, copy, seen) {
  for (const item of [...value]) copy.add(cloneValue(item, seen));
  return copy;
}

function cloneError(value, keep, seen) {
  if (value instanceof DOMException) return keep(new DOMException(value.message, value.name));
  const copy = keep(new (CLONED_ERRORS[value.name] ?? Error_)(value.message));
  if (typeof value.stack === "string") copy.stack = value.stack;
  if ("cause" in value) copy.cause = cloneValue(value.cause, seen);
  return copy;
}

function cloneProperties(value, copy, seen) {
  for (const key of Object.keys(value)) {
    Object.defineProperty(copy, key, {
      value: cloneValue(value[key], seen), writable: true, enumerable: true, configurable: true,
    });
  }
  return copy;
}
expose({ structuredClone });
