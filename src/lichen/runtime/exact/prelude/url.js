// https://url.spec.whatwg.org: the basic URL parser as its state machine, and class URL.
const SPECIAL = new Map([
  ["http:", "80"], ["https:", "443"], ["ws:", "80"], ["wss:", "443"], ["ftp:", "21"], ["file:", ""],
]);
const HEX = "0123456789ABCDEF";
const members = (characters) => new Set(Array.from(characters, (c) => c.charCodeAt(0)));
const QUERY = members(' "#<>'), FRAGMENT = members(' "<>`'), PATH = members(' "#<>?^`{}');
const USERINFO = members(' "#<>?^`{}/:;=@[\\]|');
const isC0 = (code) => code < 0x20 || code > 0x7e;
const isFragment = (code) => isC0(code) || FRAGMENT.has(code);
const isQuery = (code) => isC0(code) || QUERY.has(code);
const isSpecialQuery = (code) => isQuery(code) || code === 0x27;
const isPath = (code) => isC0(code) || PATH.has(code);
const isUserinfo = (code) => isC0(code) || USERINFO.has(code);

function percentEncode(input, encodes) {
  let plain = true;
  for (let at = 0; at < input.length && plain; at++) plain = !encodes(input.charCodeAt(at));
  if (plain) return input;
  let output = "";
  for (const byte of utf8(input)) {
    output += encodes(byte) ? "%" + HEX[byte >> 4] + HEX[byte & 15] : String.fromCharCode(byte);
  }
  return output;
}

function percentDecode(input) {
  const bytes = utf8(input);
  if (!input.includes("%")) return bytes;
  const output = [];
  for (let at = 0; at < bytes.length; at++) {
    const pair = bytes[at] === 0x25 ? String.fromCharCode(bytes[at + 1], bytes[at + 2]) : "";
    if (/^[0-9A-Fa-f]{2}$/.test(pair)) {
      output.push(parseInt(pair, 16));
      at += 2;
    } else {
      output.push(bytes[at]);
    }
  }
  return new Uint8Array_(output);
}

const isSpecial = (url) => SPECIAL.has(url.scheme);
const isDriveLetter = (part) => /^[A-Za-z][:|]$/.test(part);
const startsWithDrive = (rest) => /^[A-Za-z][:|]([/\\?#]|$)/.test(rest);
const isDot = (part) => part === "." || /^%2e$/i.test(part);
const isDotDot = (part) => /^(\.|%2e){2}$/i.test(part);

function shorten(url) {
  const { path } = url;
  if (url.scheme === "file:" && path.length === 1 && /^[A-Za-z]:$/.test(path[0])) return;
  path.pop();
}

function blankURL() {
  return {
    scheme: "", username: "", password: "", host: null, port: "", path: [], opaque: null,
    query: null, fragment: null,
  };
}

function parseURL(input, base) {
  const cleaned = input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
  let rest = cleaned, fragment = null, query = null;
  const hash = rest.indexOf("#");
  if (hash >= 0) [rest, fragment] = [rest.slice(0, hash), rest.slice(hash + 1)];
  const match = /^([A-Za-z][A-Za-z0-9+\-.]*):/.exec(rest);
  const url = blankURL();
  if (match) {
    url.scheme = match[1].toLowerCase() + ":";
    rest = rest.slice(match[0].length);
  } else if (!base) {
    return null;
  }
  const opaqueBase = base && base.opaque !== null;
  if (!match && opaqueBase && (rest !== "" || fragment === null)) return null;
  const mark = rest.indexOf("?");
  if (mark >= 0) [rest, query] = [rest.slice(0, mark), rest.slice(mark + 1)];
  const relative = !match || (isSpecial(url) && base && base.scheme === url.scheme &&
    !opaqueBase && !/^[/\\]{2}/.test(rest) && url.scheme !== "file:");
  if (!match) url.scheme = base.scheme;
  const read = url.scheme === "file:" ? readFile
    : relative ? readRelative : readAbsolute;
  if (!read(url, rest, query, match ? (relative ? base : null) : base, match)) return null;
  if (query !== null) {
    url.query = percentEncode(query, isSpecial(url) ? isSpecialQuery : isQuery);
  }
  if (fragment !== null) url.fragment = percentEncode(fragment, isFragment);
  return url;
}

function readAbsolute(url, rest) {
  if (isSpecial(url)) return readAuthority(url, rest.replace(/^[/\\]*/, ""));
  if (rest.startsWith("//")) return readAuthority(url, rest.slice(2));
  if (rest.startsWith("/")) return readPath(url, rest);
  url.opaque = percentEncode(rest, isC0);
  return true;
}

function readRelative(url, rest, query, base) {
  const slash = isSpecial(url) ? /^[/\\]/ : /^\//;
  const two = isSpecial(url) ? /^[/\\]{2}/ : /^\/\//;
  if (two.test(rest)) {
    return readAuthority(url, isSpecial(url) ? rest.replace(/^[/\\]*/, "") : rest.slice(2));
  }
  for (const key of ["username", "password", "host", "port", "opaque"]) url[key] = base[key];
  if (slash.test(rest)) return readPath(url, rest);
  url.path = [...base.path];
  if (rest !== "") {
    shorten(url);
    return readPath(url, rest);
  }
  if (query === null) url.query = base.query;
  return true;
}

function readFile(url, rest, query, base, match) {
  url.host = "";
  const from = base && base.scheme === "file:" ? base : null;
  if (/^[/\\]{2}/.test(rest)) {
    const [host] = /^[^/\\]*/.exec(rest.slice(2));
    if (isDriveLetter(host)) return readPath(url, rest.slice(2));
    if (host !== "") {
      const parsed = parseHost(host, true);
      if (parsed === null) return false;
      url.host = parsed === "localhost" ? "" : parsed;
    }
    return readPath(url, rest.slice(2 + host.length));
  }
  if (/^[/\\]/.test(rest)) {
    if (from) {
      url.host = from.host;
      if (!startsWithDrive(rest.slice(1)) && /^[A-Za-z]:$/.test(from.path[0] ?? "")) {
        url.path = [from.path[0]];
      }
    }
    return readPath(url, rest);
  }
  if (!from) return readPath(url, rest);
  url.host = from.host;
  url.path = [...from.path];
  if (rest === "") {
    if (query === null) url.query = from.query;
    return true;
  }
  if (startsWithDrive(rest)) url.path = [];
  else shorten(url);
  return readPath(url, rest);
}

function readAuthority(url, rest) {
  const [authority] = (isSpecial(url) ? /^[^/\\]*/ : /^[^/]*/).exec(rest);
  const at = authority.lastIndexOf("@");
  const hostPort = authority.slice(at + 1);
  if (at >= 0) {
    const credentials = authority.slice(0, at);
    const colon = credentials.indexOf(":");
    const user = colon < 0 ? credentials : credentials.slice(0, colon);
    url.username = percentEncode(user, isUserinfo);
    if (colon >= 0) url.password = percentEncode(credentials.slice(colon + 1), isUserinfo);
    if (hostPort === "") return false;
  }
  const split = /^((?:\[[^\]]*\]?|[^:])*)(?::(.*))?$/s.exec(hostPort);
  if (!split) return false;
  const [, host, port] = split;
  if (host === "" && (isSpecial(url) || port !== undefined)) return false;
  const parsed = host === "" ? "" : parseHost(host, isSpecial(url));
  if (parsed === null || (port !== undefined && !setPort(url, port))) return false;
  url.host = parsed;
  return readPath(url, rest.slice(authority.length));
}

function setPort(url, port) {
  if (!/^[0-9]*$/.test(port)) return false;
  const number = Number(port);
  if (number > 65_535) return false;
  url.port = port === "" || String(number) === SPECIAL.get(url.scheme) ? "" : String(number);
  return true;
}

function readPath(url, rest) {
  const special = isSpecial(url);
  if (rest === "" && !special) return true;
  const parts = (special ? rest.replace(/\\/g, "/") : rest).split("/");
  if (parts[0] === "" && parts.length > 1) parts.shift();
  parts.forEach((part, index) => {
    const last = index === parts.length - 1;
    if (isDotDot(part)) {
      shorten(url);
      if (last) url.path.push("");
    } else if (isDot(part)) {
      if (last) url.path.push("");
    } else {
      let encoded = percentEncode(part, isPath);
      if (url.scheme === "file:" && url.path.length === 0 && isDriveLetter(encoded)) {
        encoded = encoded[0] + ":";
      }
      url.path.push(encoded);
    }
  });
  return true;
}

function writePath(url) {
  if (url.opaque !== null) return url.opaque;
  return url.path.length ? "/" + url.path.join("/") : "";
}

function writeURL(url, withFragment = true) {
  let output = url.scheme;
  if (url.host !== null) {
    output += "//";
    if (url.username || url.password) {
      output += url.username + (url.password ? ":" + url.password : "") + "@";
    }
    output += url.host + (url.port ? ":" + url.port : "");
  } else if (url.opaque === null && url.path.length > 1 && url.path[0] === "") {
    output += "/.";
  }
  output += writePath(url);
  if (url.query !== null) output += "?" + url.query;
  if (withFragment && url.fragment !== null) output += "#" + url.fragment;
  return output;
}

function canHaveCredentials(url) {
  return url.host !== null && url.host !== "" && url.scheme !== "file:";
}

class URL {
  #url;
  #params = null;
  constructor(input, base) {
    const parsedBase = base === undefined ? null : parseURL(String(base).toWellFormed(), null);
    const parsed = base !== undefined && parsedBase === null
      ? null : parseURL(String(input).toWellFormed(), parsedBase);
    if (parsed === null) throw new TypeError(`Invalid URL: ${String(input).slice(0, 200)}`);
    this.#url = parsed;
  }
  static canParse(input, base) { return URL.parse(input, base) !== null; }
  static parse(input, base) {
    try {
      return new URL(input, base);
    } catch {
      return null;
    }
  }
  get href() { return writeURL(this.#url); }
  set href(value) {
    const parsed = parseURL(String(value).toWellFormed(), null);
    if (parsed === null) throw new TypeError("Invalid URL");
    this.#url = parsed;
    this.#refresh();
  }
  get origin() {
    const { scheme, host, port, opaque } = this.#url;
    if (scheme === "blob:") {
      const inner = opaque === null ? null : parseURL(opaque, null);
      return inner && /^https?:$/.test(inner.scheme)
        ? `${inner.scheme}//${inner.host}${inner.port ? ":" + inner.port : ""}` : "null";
    }
    if (!SPECIAL.has(scheme) || scheme === "file:") return "null";
    return `${scheme}//${host}${port ? ":" + port : ""}`;
  }
  get protocol() { return this.#url.scheme; }
  set protocol(value) {
    const match = /^([A-Za-z][A-Za-z0-9+\-.]*)(:|$)/.exec(String(value));
    if (!match) return;
    const scheme = match[1].toLowerCase() + ":";
    const url = this.#url;
    if (SPECIAL.has(scheme) !== isSpecial(url)) return;
    if (scheme === "file:" && (url.username || url.password || url.port)) return;
    if (url.scheme === "file:" && url.host === "") return;
    url.scheme = scheme;
    if (url.port === SPECIAL.get(scheme)) url.port = "";
  }
  get username() { return this.#url.username; }
  set username(value) {
    if (canHaveCredentials(this.#url)) this.#url.username = percentEncode(String(value), isUserinfo);
  }
  get password() { return this.#url.password; }
  set password(value) {
    if (canHaveCredentials(this.#url)) this.#url.password = percentEncode(String(value), isUserinfo);
  }
  get host() {
    const { host, port } = this.#url;
    return host === null ? "" : host + (port ? ":" + port : "");
  }
  set host(value) { this.#setHost(value, true); }
  get hostname() { return this.#url.host ?? ""; }
  set hostname(value) { this.#setHost(value, false); }
  get port() { return this.#url.port; }
  set port(value) {
    if (!canHaveCredentials(this.#url)) return;
    const [digits] = /^[0-9]*/.exec(String(value).replace(/[\t\n\r]/g, ""));
    if (digits !== "" || String(value) === "") setPort(this.#url, digits);
  }
  get pathname() { return writePath(this.#url); }
  set pathname(value) {
    const url = this.#url;
    if (url.opaque !== null) return;
    url.path = [];
    const escaped = String(value).toWellFormed().replace(/[\t\n\r]/g, "")
      .replace(/[?#]/g, (mark) => (mark === "?" ? "%3F" : "%23"));
    readPath(url, escaped);
  }
  get search() { return this.#url.query ? "?" + this.#url.query : ""; }
  set search(value) {
    const query = String(value).toWellFormed().replace(/[\t\n\r]/g, "").replace(/^\?/, "");
    const encodes = isSpecial(this.#url) ? isSpecialQuery : isQuery;
    this.#url.query = String(value) === "" ? null : percentEncode(query, encodes);
    this.#refresh();
  }
  get searchParams() {
    this.#params ??= paramsFor(this.#url.query ?? "", (query) => {
      this.#url.query = query === "" ? null : query;
    });
    return this.#params;
  }
  get hash() { return this.#url.fragment ? "#" + this.#url.fragment : ""; }
  set hash(value) {
    const fragment = String(value).toWellFormed().replace(/[\t\n\r]/g, "").replace(/^#/, "");
    this.#url.fragment = String(value) === "" ? null : percentEncode(fragment, isFragment);
  }
  toString() { return this.href; }
  toJSON() { return this.href; }
  #setHost(value, withPort) {
    const url = this.#url;
    if (url.opaque !== null) return;
    const cut = String(value).toWellFormed().replace(/[\t\n\r]/g, "");
    const [authority] = (isSpecial(url) ? /^[^/\\?#]*/ : /^[^/?#]*/).exec(cut);
    const [, host, port] = /^((?:\[[^\]]*\]?|[^:])*)(?::(.*))?$/s.exec(authority);
    if (host === "" && (isSpecial(url) || url.username || url.port)) return;
    if (!withPort && port !== undefined) return;
    const parsed = host === "" ? "" : parseHost(host, isSpecial(url));
    if (parsed === null) return;
    url.host = parsed;
    const [digits] = /^[0-9]*/.exec(port ?? "");
    if (digits !== "") setPort(url, digits);
  }
  #refresh() {
    if (this.#params) resetParams(this.#params, this.#url.query ?? "");
  }
}
named(URL, "URL");
enumerable(URL, [
  "href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname",
  "search", "searchParams", "hash", "toString", "toJSON",
]);
expose({ URL });
