// https://fetch.spec.whatwg.org/#body-mixin. A body is bytes until somebody asks for a stream.
let boundaries = 0;

function extractBody(value) {
  if (value === null || value === undefined) return { bytes: null, stream: null, type: null };
  if (value instanceof ReadableStream) {
    if (value.locked || coreOf(value).disturbed) throw new TypeError("the body is used already");
    return { bytes: null, stream: value, type: null };
  }
  if (typeof value === "object") {
    if (isView(value) || isBuffer(value)) {
      return { bytes: bytesOf(value).slice(), stream: null, type: null };
    }
    if (value instanceof Blob) {
      return { bytes: blobBytes(value), stream: null, type: value.type || null };
    }
    if (value instanceof URLSearchParams) {
      const type = "application/x-www-form-urlencoded;charset=UTF-8";
      return { bytes: utf8(value.toString()), stream: null, type };
    }
    if (value instanceof FormData) {
      const boundary = `----lichen-form-${++boundaries}`;
      const type = `multipart/form-data; boundary=${boundary}`;
      return { bytes: writeMultipart(value, boundary), stream: null, type };
    }
  }
  return { bytes: null, text: String(value), stream: null, type: "text/plain;charset=UTF-8" };
}

async function readStream(stream) {
  const reader = stream.getReader(), chunks = [];
  while (true) {
    const { value, done } = await reader.read();
    if (done) return concat(chunks);
    if (!isView(value) && !isBuffer(value)) throw new TypeError("a body consists of bytes");
    chunks.push(bytesOf(value).slice());
  }
}

let takeBody, cloneBody, hasBody;
class Body {
  #content = { bytes: null, stream: null };
  #used = false;
  static {
    // All of the body, as bytes; a second time is a TypeError.
    takeBody = async (body) => {
      if (body.bodyUsed || body.#content.stream?.locked) throw new TypeError("Body is unusable");
      const { stream, bytes, text: words } = body.#content;
      body.#used = body.#used || hasBody(body);
      if (stream) return readStream(stream);
      return words === undefined ? bytes ?? new Uint8Array_(0) : utf8(words);
    };
    cloneBody = (body) => {
      if (body.bodyUsed || body.#content.stream?.locked) throw new TypeError("Body is unusable");
      const { stream } = body.#content;
      if (!stream) return { ...body.#content };
      const [kept, given] = stream.tee();
      body.#content = { bytes: null, stream: kept };
      return { bytes: null, stream: given };
    };
    hasBody = (body) => {
      const { bytes, stream, text: words } = body.#content;
      return bytes !== null || stream !== null || words !== undefined;
    };
  }
  constructor(content) { if (content) this.#content = content; }
  get body() {
    const content = this.#content;
    if (!hasBody(this)) return null;
    if (!content.stream) {
      const bytes = content.text === undefined ? content.bytes : utf8(content.text);
      const stream = streamOf(bytes);
      if (this.#used) stream.cancel();
      this.#content = { bytes: null, stream };
    }
    return this.#content.stream;
  }
  get bodyUsed() {
    const { stream } = this.#content;
    return this.#used || (stream !== null && coreOf(stream).disturbed);
  }
  async bytes() { return (await takeBody(this)).slice(); }
  async arrayBuffer() { return copyOf(await takeBody(this)); }
  async text() {
    const { text: words } = this.#content;
    if (words !== undefined && !this.#used) {
      this.#used = true;
      return words.toWellFormed();
    }
    return stripBOM(text(await takeBody(this)));
  }
  async json() { return JSON.parse(stripBOM(await this.text())); }
  async blob() {
    const bytes = await takeBody(this);
    return new Blob([bytes], { type: this.headers.get("content-type") ?? "" });
  }
  async formData() {
    const type = this.headers.get("content-type") ?? "";
    const bytes = await takeBody(this);
    if (/^multipart\/form-data/i.test(type)) {
      const match = /boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(type);
      if (!match) throw new TypeError("the content type names no boundary");
      return readMultipart(bytes, match[1] ?? match[2]);
    }
    if (!/^application\/x-www-form-urlencoded/i.test(type)) {
      throw new TypeError("the content type is not that of a form");
    }
    const form = new FormData();
    for (const [name, value] of parseForm(text(bytes))) form.append(name, value);
    return form;
  }
}

function stripBOM(words) {
  return words.charCodeAt(0) === 0xfeff ? words.slice(1) : words;
}
