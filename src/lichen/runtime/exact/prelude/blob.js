// Blob, File and FormData: https://w3c.github.io/FileAPI, https://xhr.spec.whatwg.org/#formdata
let blobBytes;
class Blob {
  #bytes;
  #type;
  static { blobBytes = (blob) => blob.#bytes; }
  constructor(parts = [], { type = "" } = {}) {
    this.#bytes = concat(Array.from(parts, (part) =>
      part instanceof Blob ? part.#bytes
        : isView(part) || isBuffer(part) ? bytesOf(part).slice() : utf8(String(part))));
    this.#type = /^[\x20-\x7e]*$/.test(type) ? String(type).toLowerCase() : "";
  }
  get size() { return this.#bytes.length; }
  get type() { return this.#type; }
  slice(start = 0, end = this.size, type = "") {
    return new Blob([this.#bytes.slice(start, end)], { type });
  }
  async text() { return text(this.#bytes); }
  async arrayBuffer() { return copyOf(this.#bytes); }
  async bytes() { return this.#bytes.slice(); }
  stream() { return streamOf(this.#bytes.slice()); }
}

class File extends Blob {
  #name;
  #lastModified;
  constructor(parts, name, options = {}) {
    super(parts, options);
    this.#name = String(name);
    this.#lastModified = options.lastModified ?? Date.now();
  }
  get name() { return this.#name; }
  get lastModified() { return this.#lastModified; }
}

function streamOf(bytes) {
  return new ReadableStream({
    start(controller) {
      if (bytes.length) controller.enqueue(bytes);
      controller.close();
    },
  });
}

class FormData {
  #entries = [];
  append(name, value, filename) {
    this.#entries.push([String(name).toWellFormed(), formValue(value, filename)]);
  }
  set(name, value, filename) {
    const key = String(name).toWellFormed();
    const first = this.#entries.findIndex((entry) => entry[0] === key);
    if (first < 0) return this.append(name, value, filename);
    this.#entries[first][1] = formValue(value, filename);
    this.#entries = this.#entries.filter((entry, index) => index <= first || entry[0] !== key);
  }
  get(name) { return this.#entries.find((entry) => entry[0] === String(name))?.[1] ?? null; }
  getAll(name) {
    return this.#entries.filter((entry) => entry[0] === String(name)).map((entry) => entry[1]);
  }
  has(name) { return this.#entries.some((entry) => entry[0] === String(name)); }
  delete(name) { this.#entries = this.#entries.filter((entry) => entry[0] !== String(name)); }
  forEach(callback, self) {
    for (const [name, value] of this) apply(callback, self, [value, name, this]);
  }
  *entries() { for (const entry of this.#entries) yield [...entry]; }
  *keys() { for (const [name] of this.#entries) yield name; }
  *values() { for (const [, value] of this.#entries) yield value; }
  [Symbol.iterator]() { return this.entries(); }
}

function formValue(value, filename) {
  if (!(value instanceof Blob)) return String(value).toWellFormed();
  if (value instanceof File && filename === undefined) return value;
  return new File([value], filename ?? "blob", { type: value.type });
}

// RFC 7578, as https://fetch.spec.whatwg.org/#concept-body-consume-body describes it.
function writeMultipart(form, boundary) {
  const quote = (name) => name.replace(/\r\n|\r|\n/g, "%0D%0A").replace(/"/g, "%22");
  const parts = [];
  for (const [name, value] of form) {
    let head = `--${boundary}\r\ncontent-disposition: form-data; name="${quote(name)}"`;
    if (typeof value === "string") {
      parts.push(utf8(`${head}\r\n\r\n${value}\r\n`));
    } else {
      head += `; filename="${quote(value.name)}"`;
      head += `\r\ncontent-type: ${value.type || "application/octet-stream"}\r\n\r\n`;
      parts.push(utf8(head), blobBytes(value), utf8("\r\n"));
    }
  }
  parts.push(utf8(`--${boundary}--\r\n`));
  return concat(parts);
}

function indexOfBytes(bytes, wanted, from) {
  let at = bytes.indexOf(wanted[0], from);
  while (at >= 0 && at + wanted.length <= bytes.length) {
    let same = 1;
    while (same < wanted.length && bytes[at + same] === wanted[same]) same++;
    if (same === wanted.length) return at;
    at = bytes.indexOf(wanted[0], at + 1);
  }
  return -1;
}

function readMultipart(bytes, boundary) {
  const form = new FormData();
  const mark = utf8(`\r\n--${boundary}`), blank = utf8("\r\n\r\n");
  const whole = concat([utf8("\r\n"), bytes]);
  let at = indexOfBytes(whole, mark, 0);
  while (at >= 0) {
    at += mark.length;
    if (whole[at] === 0x2d && whole[at + 1] === 0x2d) return form;
    const headEnd = indexOfBytes(whole, blank, at);
    const end = headEnd < 0 ? -1 : indexOfBytes(whole, mark, headEnd + 2);
    if (end < 0) break;
    readPart(form, text(whole.subarray(at, headEnd)), whole.slice(headEnd + 4, Math.max(end, headEnd + 4)));
    at = end;
  }
  throw new TypeError("the body is not multipart/form-data");
}

function readPart(form, head, body) {
  const name = /;\s*name="([^"]*)"/i.exec(head)?.[1];
  if (name === undefined) throw new TypeError("a part of the body has no name");
  const unquote = (value) => value.replace(/%0D%0A/gi, "\r\n").replace(/%22/g, '"');
  const filename = /;\s*filename="([^"]*)"/i.exec(head)?.[1];
  if (filename === undefined) return form.append(unquote(name), text(body));
  const type = /\ncontent-type:\s*([^\r\n]*)/i.exec(head)?.[1] ?? "text/plain";
  form.append(unquote(name), new File([body], unquote(filename), { type }));
}

for (const type of [Blob, File, FormData]) named(type, type.name);
expose({ Blob, File, FormData });
