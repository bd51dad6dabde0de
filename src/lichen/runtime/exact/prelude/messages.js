// https://fetch.spec.whatwg.org/#request-class and #response-class, of which fetch itself is not
// offered: the result of a run may depend on nothing but its input.
const METHODS = new Map(["delete", "get", "head", "options", "post", "put"].map(
  (name) => [name, name.toUpperCase()],
));
const CLONED = Symbol("the body of a clone"), RECEIVED = Symbol("what the host hands in");
let receiveRequest;
const NO_BODY = new Set([101, 103, 204, 205, 304]);

// Tell of most URLs that parsing would not change them, for a fiftieth of what parsing costs.
const NORMAL = /^https?:\/\/[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*(:(?!80\/|443\/)[1-9]\d{0,3})?\/[A-Za-z0-9\-_~/?=&+,;:@!$*.%]*$/;
const isNormal = (url) => NORMAL.test(url) && !url.includes("/.") && !/\/%2e/i.test(url);

function methodName(name) {
  if (!TOKEN.test(name) || /^(connect|trace|track)$/i.test(name)) {
    throw new TypeError(`Invalid method: ${name.slice(0, 100)}`);
  }
  return METHODS.get(name.toLowerCase()) ?? name;
}

class Request extends Body {
  #method;
  #url;
  #headers;
  #signal;
  #init;
  #written = null; // the URL as it was received, until somebody asks for it
  static {
    receiveRequest = ({ method, url, headers }, body) => {
      const received = new Request(RECEIVED, { body });
      received.#method = method;
      received.#written = url;
      received.#headers = receivedHeaders(headers);
      return received;
    };
  }
  constructor(input, init = {}) {
    if (input === RECEIVED) {
      super(init.body === null ? null : { bytes: init.body, stream: null });
      this.#init = { redirect: "follow" };
      return;
    }
    const from = input instanceof Request ? input : null;
    const method = methodName(String(init.method ?? from?.method ?? "GET"));
    const given = init.body !== undefined && init.body !== null;
    if (given && (method === "GET" || method === "HEAD")) {
      throw new TypeError("a GET or HEAD request has no body");
    }
    const content = init[CLONED] ??
      (given ? extractBody(init.body) : from && hasBody(from) ? moved(from) : null);
    super(content);
    this.#method = method;
    this.#url = from ? from.url : new URL(input).href;
    this.#headers = new Headers(init.headers ?? from?.headers);
    if (content?.type) defaultHeader(this.#headers, "content-type", content.type);
    this.#signal = init.signal ?? from?.signal;
    this.#init = {
      redirect: init.redirect ?? from?.redirect ?? "follow",
      cf: init.cf ?? from?.cf,
    };
  }
  get method() { return this.#method; }
  get url() {
    if (this.#written !== null) {
      this.#url = isNormal(this.#written) ? this.#written : new URL(this.#written).href;
      this.#written = null;
    }
    return this.#url;
  }
  get headers() { return this.#headers; }
  get signal() { return (this.#signal ??= new AbortController().signal); }
  get redirect() { return this.#init.redirect; }
  get cf() { return this.#init.cf; }
  get cache() { return "default"; }
  get credentials() { return "same-origin"; }
  get integrity() { return ""; }
  get keepalive() { return false; }
  get mode() { return "cors"; }
  get referrer() { return "about:client"; }
  get duplex() { return "half"; }
  clone() { return new Request(this, { [CLONED]: cloneBody(this) }); }
}

function moved(request) {
  const content = cloneBody(request);
  takeBody(request).catch(() => {});
  return content;
}

class Response extends Body {
  #status;
  #statusText;
  #headers;
  #type = "default";
  #url = "";
  constructor(body = null, init = {}) {
    const status = init?.status === undefined ? 200 : Math.trunc(Number(init.status));
    if (!(status >= 200 && status <= 599)) throw new RangeError("status is 200 to 599");
    const words = String(init?.statusText ?? "");
    if (words !== "" && /[^\t\x20-\x7e\x80-\xff]/.test(words)) throw new TypeError("Invalid statusText");
    if (body !== null && body !== undefined && NO_BODY.has(status)) {
      throw new TypeError(`a response with status ${status} has no body`);
    }
    const content = extractBody(body);
    super(content);
    this.#status = status;
    this.#statusText = words;
    this.#headers = new Headers(init?.headers ?? undefined);
    if (content.type) defaultHeader(this.#headers, "content-type", content.type);
  }
  get status() { return this.#status; }
  get statusText() { return this.#statusText; }
  get headers() { return this.#headers; }
  get ok() { return this.#status >= 200 && this.#status < 300; }
  get redirected() { return false; }
  get type() { return this.#type; }
  get url() { return this.#url; }
  get webSocket() { return null; }
  clone() {
    const content = cloneBody(this);
    return new Response(content.stream ?? content.text ?? content.bytes, {
      status: this.#status, statusText: this.#statusText, headers: this.#headers,
    });
  }
  static json(data, init = {}) {
    const words = JSON.stringify(data);
    if (words === undefined) throw new TypeError("the data has no form in JSON");
    const headers = new Headers(init.headers ?? undefined);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Response(words, { ...init, headers });
  }
  static redirect(url, status = 302) {
    if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError("not a redirect status");
    return new Response(null, { status, headers: { location: new URL(url).href } });
  }
  static error() {
    const made = new Response();
    made.#type = "error";
    made.#status = 0;
    return made;
  }
}

async function fetch() {
  throw new TypeError(
    "fetch is not offered to exact functions: a result depends on its input only; " +
    'use runtime = "js" for functions that need the network',
  );
}

const BODY = ["body", "bodyUsed", "bytes", "arrayBuffer", "text", "json", "blob", "formData"];
enumerable(Body, BODY);
enumerable(Request, ["method", "url", "headers", "signal", "redirect", "clone"]);
enumerable(Response, ["status", "statusText", "headers", "ok", "type", "url", "clone"]);
named(Request, "Request");
named(Response, "Response");
expose({ Request, Response, fetch });
