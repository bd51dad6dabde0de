// https://encoding.spec.whatwg.org, for UTF-8 and UTF-16LE.
class TextEncoder {
  get encoding() { return "utf-8"; }
  encode(input = "") { return utf8(String(input)); }
  encodeInto(source, target) {
    let read = 0, written = 0;
    for (const character of String(source)) {
      const bytes = utf8(character);
      if (written + bytes.length > target.length) break;
      target.set(bytes, written);
      written += bytes.length;
      read += character.length;
    }
    return { read, written };
  }
}

const LABELS = new Map();
for (const [name, labels] of [
  ["utf-8", "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8"],
  ["utf-16le", "utf-16le utf-16 csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff"],
]) {
  for (const label of labels.split(" ")) LABELS.set(label, name);
}

// How many bytes at the end are the beginning of a character that is not complete.
function incompleteTail(bytes) {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back];
    if ((byte & 0xc0) === 0x80) continue;
    const size = byte >= 0xf0 && byte < 0xf5 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
    if (byte >= 0xf5 || size <= back) return 0;
    return validStart(bytes, bytes.length - back) ? back : 0;
  }
  return 0;
}

function validStart(bytes, at) {
  const second = bytes[at + 1];
  if (second === undefined) return true;
  const first = bytes[at];
  if (first === 0xe0) return second >= 0xa0;
  if (first === 0xed) return second < 0xa0;
  if (first === 0xf0) return second >= 0x90;
  if (first === 0xf4) return second < 0x90;
  return true;
}

class TextDecoder {
  #encoding;
  #fatal;
  #ignoreBOM;
  #rest = new Uint8Array_(0);
  #begun = false;
  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    this.#encoding = LABELS.get(String(label).trim().toLowerCase());
    if (this.#encoding === undefined) throw new RangeError(`the encoding ${label} is not offered`);
    this.#fatal = !!fatal;
    this.#ignoreBOM = !!ignoreBOM;
  }
  get encoding() { return this.#encoding; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#ignoreBOM; }
  decode(input, { stream = false } = {}) {
    let bytes = input === undefined ? new Uint8Array_(0) : bytesOf(input);
    if (this.#rest.length) bytes = concat([this.#rest, bytes]);
    const wide = this.#encoding === "utf-16le";
    const keep = stream ? (wide ? bytes.length % 2 : incompleteTail(bytes)) : 0;
    this.#rest = keep ? bytes.slice(bytes.length - keep) : new Uint8Array_(0);
    if (keep) bytes = bytes.subarray(0, bytes.length - keep);
    let decoded = wide ? this.#utf16(bytes) : this.#utf8(bytes);
    if (!this.#begun && !this.#ignoreBOM && decoded.charCodeAt(0) === 0xfeff) {
      decoded = decoded.slice(1);
    }
    this.#begun = stream && (this.#begun || decoded.length > 0);
    return decoded;
  }
  #utf8(bytes) {
    const decoded = text(bytes);
    if (this.#fatal && decoded.includes("\ufffd") && !sameBytes(utf8(decoded), bytes)) {
      this.#rest = new Uint8Array_(0);
      this.#begun = false;
      throw new TypeError("the bytes are not valid UTF-8");
    }
    return decoded;
  }
  #utf16(bytes) {
    let decoded = "";
    for (let at = 0; at + 1 < bytes.length; at += 2) {
      decoded += String.fromCharCode(bytes[at] | (bytes[at + 1] << 8));
    }
    const broken = bytes.length % 2 === 1;
    if (this.#fatal && (broken || !decoded.isWellFormed())) {
      throw new TypeError("the bytes are not valid UTF-16");
    }
    return decoded.toWellFormed() + (broken ? "\ufffd" : "");
  }
}

function sameBytes(a, b) {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

named(TextEncoder, "TextEncoder");
named(TextDecoder, "TextDecoder");
expose({ TextEncoder, TextDecoder });
