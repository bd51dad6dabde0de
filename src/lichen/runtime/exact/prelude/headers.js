// https://fetch.spec.whatwg.org/#headers-class, without guards: there are no forbidden names here.
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

function headerName(name) {
  const lower = String(name).toLowerCase();
  if (!TOKEN.test(lower)) throw new TypeError(`Invalid header name: ${lower.slice(0, 100)}`);
  return lower;
}

const isSpace = (code) => code === 32 || (code >= 9 && code <= 13 && code !== 11 && code !== 12);

function headerValue(value) {
  let trimmed = String(value);
  const last = trimmed.length - 1;
  if (isSpace(trimmed.charCodeAt(0)) || isSpace(trimmed.charCodeAt(last))) {
    trimmed = trimmed.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  }
  if (/[\0\n\r]|[^\0-\xff]/.test(trimmed)) throw new TypeError("Invalid header value");
  return trimmed;
}

let rawHeaders, defaultHeader, receivedHeaders;
class Headers {
  #map = new Map(); // name -> list of values
  static {
    rawHeaders = (headers) => {
      const pairs = [];
      for (const [name, values] of headers.#map) {
        if (name === "set-cookie") for (const value of values) pairs.push([name, value]);
        else pairs.push([name, values.join(", ")]);
      }
      return pairs;
    };
    // Set what is known to be well-formed, unless it is there.
    defaultHeader = (headers, name, value) => {
      if (!headers.#map.has(name)) headers.#map.set(name, [value]);
    };
    // The headers of the request, which the host has checked.
    receivedHeaders = (pairs) => {
      const headers = new Headers();
      for (const [name, value] of pairs) {
        const values = headers.#map.get(name);
        if (values) values.push(value);
        else headers.#map.set(name, [value]);
      }
      return headers;
    };
  }
  constructor(init) {
    if (init == null) {
      if (init === null) throw new TypeError("Headers cannot be made of null");
      return;
    }
    if (init instanceof Headers) {
      for (const [name, values] of init.#map) this.#map.set(name, [...values]);
    } else if (typeof init !== "object") {
      throw new TypeError("Headers are made of pairs, or of an object");
    } else if (typeof init[Symbol.iterator] === "function") {
      for (const pair of init) {
        const parts = [...pair];
        if (parts.length !== 2) throw new TypeError("a pair has two parts");
        this.append(parts[0], parts[1]);
      }
    } else {
      for (const name of ownKeys(init)) {
        if (Object.getOwnPropertyDescriptor(init, name)?.enumerable) this.append(name, init[name]);
      }
    }
  }
  append(name, value) {
    const key = headerName(name), values = this.#map.get(key);
    if (values) values.push(headerValue(value));
    else this.#map.set(key, [headerValue(value)]);
  }
  set(name, value) { this.#map.set(headerName(name), [headerValue(value)]); }
  get(name) { return this.#map.get(headerName(name))?.join(", ") ?? null; }
  has(name) { return this.#map.has(headerName(name)); }
  delete(name) { this.#map.delete(headerName(name)); }
  getSetCookie() { return [...(this.#map.get("set-cookie") ?? [])]; }
  forEach(callback, self) {
    for (const [name, value] of this) apply(callback, self, [value, name, this]);
  }
  *entries() {
    for (const [name, value] of rawHeaders(this).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0))) {
      yield [name, value];
    }
  }
  *keys() { for (const [name] of this.entries()) yield name; }
  *values() { for (const [, value] of this.entries()) yield value; }
  [Symbol.iterator]() { return this.entries(); }
}
named(Headers, "Headers");
enumerable(Headers, ["append", "set", "get", "has", "delete", "getSetCookie", "forEach"]);
expose({ Headers });
