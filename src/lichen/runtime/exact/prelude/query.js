// https://url.spec.whatwg.org/#interface-urlsearchparams
const FORM_SAFE = /^[A-Za-z0-9*\-._]$/;

function encodeForm(value) {
  let output = "";
  for (const byte of utf8(value)) {
    const character = String.fromCharCode(byte);
    if (byte === 0x20) output += "+";
    else if (FORM_SAFE.test(character)) output += character;
    else output += "%" + HEX[byte >> 4] + HEX[byte & 15];
  }
  return output;
}

function decodeForm(value) {
  const spaced = value.replace(/\+/g, " ");
  return spaced.includes("%") ? text(percentDecode(spaced)) : spaced;
}

function parseForm(query) {
  const pairs = [];
  for (const piece of query.split("&")) {
    if (piece === "") continue;
    const equals = piece.indexOf("=");
    const name = equals < 0 ? piece : piece.slice(0, equals);
    pairs.push([decodeForm(name), decodeForm(equals < 0 ? "" : piece.slice(equals + 1))]);
  }
  return pairs;
}

class URLSearchParams {
  #pairs = [];
  #changed = null;
  constructor(init = "") {
    if (typeof init === "object" && init !== null || typeof init === "function") {
      if (typeof init[Symbol.iterator] === "function") {
        for (const pair of init) {
          const [name, value, ...more] = pair;
          if ([...pair].length !== 2 || more.length) throw new TypeError("a pair has two parts");
          this.#pairs.push([String(name).toWellFormed(), String(value).toWellFormed()]);
        }
      } else {
        for (const name of Object.keys(init)) {
          this.#pairs.push([name.toWellFormed(), String(init[name]).toWellFormed()]);
        }
      }
    } else {
      this.#pairs = parseForm(String(init).toWellFormed().replace(/^\?/, ""));
    }
  }
  static bind(params, query, changed) {
    params.#pairs = parseForm(query);
    if (changed) params.#changed = changed;
    return params;
  }
  get size() { return this.#pairs.length; }
  append(name, value) {
    this.#pairs.push([String(name).toWellFormed(), String(value).toWellFormed()]);
    this.#tell();
  }
  delete(name, value) {
    this.#pairs = this.#pairs.filter(
      (pair) => pair[0] !== String(name) || (value !== undefined && pair[1] !== String(value)),
    );
    this.#tell();
  }
  get(name) { return this.#pairs.find((pair) => pair[0] === String(name))?.[1] ?? null; }
  getAll(name) {
    return this.#pairs.filter((pair) => pair[0] === String(name)).map((pair) => pair[1]);
  }
  has(name, value) {
    return this.#pairs.some(
      (pair) => pair[0] === String(name) && (value === undefined || pair[1] === String(value)),
    );
  }
  set(name, value) {
    const first = this.#pairs.findIndex((pair) => pair[0] === String(name));
    if (first < 0) return this.append(name, value);
    this.#pairs[first][1] = String(value).toWellFormed();
    this.#pairs = this.#pairs.filter((pair, index) => index <= first || pair[0] !== String(name));
    this.#tell();
  }
  sort() {
    this.#pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    this.#tell();
  }
  forEach(callback, self) {
    for (const [name, value] of this) apply(callback, self, [value, name, this]);
  }
  *entries() { for (let at = 0; at < this.#pairs.length; at++) yield [...this.#pairs[at]]; }
  *keys() { for (const [name] of this.entries()) yield name; }
  *values() { for (const [, value] of this.entries()) yield value; }
  [Symbol.iterator]() { return this.entries(); }
  toString() {
    return this.#pairs.map(([name, value]) => `${encodeForm(name)}=${encodeForm(value)}`).join("&");
  }
  #tell() { this.#changed?.(this.toString()); }
}
const bindParams = URLSearchParams.bind;
delete URLSearchParams.bind;
const paramsFor = (query, changed) => bindParams(new URLSearchParams(), query, changed);
const resetParams = (params, query) => bindParams(params, query, null);
named(URLSearchParams, "URLSearchParams");
expose({ URLSearchParams });
