// https://w3c.github.io/webcrypto: digests, HMAC and Ed25519, done natively; randomness from the
// seed of the run.
const HASH_NUMBERS = new Map([["SHA-1", 0], ["SHA-256", 1], ["SHA-384", 2], ["SHA-512", 3]]);
const BLOCK_BITS = [512, 512, 1024, 1024];

function algorithmName(algorithm) {
  return String(typeof algorithm === "object" && algorithm ? algorithm.name : algorithm);
}

function hashNumber(algorithm) {
  const number = HASH_NUMBERS.get(algorithmName(algorithm).toUpperCase());
  if (number === undefined) throw unsupported(algorithm);
  return number;
}

function unsupported(algorithm) {
  return new DOMException(
    `${algorithmName(algorithm).slice(0, 100)} is not offered to exact functions`, "NotSupportedError",
  );
}

function lengthPrefix(size) {
  return new Uint8Array_([size & 255, (size >> 8) & 255, (size >> 16) & 255, (size >> 24) & 255]);
}

// Native functions throw strings, since they have no Error of this realm.
function native(name, chunks) {
  try {
    return host[name](copyOf(concat(chunks)));
  } catch (error) {
    throw typeof error === "string" ? new TypeError(error) : error;
  }
}

function randomBytes(count) {
  return new Uint8Array_(native("random", [lengthPrefix(count)]));
}

let keyBytes;
const keySecret = Symbol("made by crypto.subtle");
class CryptoKey {
  #bytes;
  static { keyBytes = (key) => key.#bytes; }
  constructor(secret, bytes, type, algorithm, extractable, usages) {
    if (secret !== keySecret) throw new TypeError("Illegal constructor");
    this.#bytes = bytes;
    Object.assign(this, { type, algorithm, extractable: !!extractable, usages: [...usages] });
    Object.freeze(this);
  }
}
const makeKey = (...parts) => new CryptoKey(keySecret, ...parts);

function requireUsage(key, usage, algorithm) {
  const name = algorithmName(algorithm).toUpperCase();
  if (!(key instanceof CryptoKey) || key.algorithm.name.toUpperCase() !== name ||
      !key.usages.includes(usage)) {
    throw new DOMException(`the key is not for ${usage} with ${name}`, "InvalidAccessError");
  }
}

function requireExtractable(key) {
  if (!key.extractable) throw new DOMException("the key is not extractable", "InvalidAccessError");
}

function base64url(bytes) {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

const fromBase64url = (words) => Uint8Array_.fromBase64(String(words), { alphabet: "base64url" });

// RFC 8410: the two fixed heads of DER around an Ed25519 key.
const SPKI = Uint8Array_.fromHex("302a300506032b6570032100");
const PKCS8 = Uint8Array_.fromHex("302e020100300506032b657004220420");

function withoutHead(bytes, head) {
  if (bytes.length !== head.length + 32 || !sameBytes(bytes.subarray(0, head.length), head)) {
    throw new DOMException("the key has a wrong form", "DataError");
  }
  return bytes.slice(head.length);
}

function hmacKey(bytes, hash, extractable, usages) {
  const number = hashNumber(hash);
  const name = [...HASH_NUMBERS.keys()][number];
  const algorithm = { name: "HMAC", hash: { name }, length: bytes.length * 8 };
  return makeKey(bytes, "secret", algorithm, extractable, usages);
}

function edKey(bytes, type, extractable, usages) {
  if (bytes.length !== 32) throw new DOMException("the key has a wrong size", "DataError");
  return makeKey(bytes, type, { name: "Ed25519" }, extractable, usages);
}

function importEd25519(format, data, extractable, usages) {
  if (format === "raw") return edKey(bytesOf(data).slice(), "public", true, usages);
  if (format === "spki") return edKey(withoutHead(bytesOf(data), SPKI), "public", true, usages);
  if (format === "pkcs8") return edKey(withoutHead(bytesOf(data), PKCS8), "private", extractable, usages);
  if (data.kty !== "OKP" || data.crv !== "Ed25519") {
    throw new DOMException("the key is not one of Ed25519", "DataError");
  }
  if (data.d !== undefined) return edKey(fromBase64url(data.d), "private", extractable, usages);
  return edKey(fromBase64url(data.x), "public", extractable, usages);
}

function exportEd25519(format, key) {
  const bytes = keyBytes(key), secret = key.type === "private";
  if (format === "raw" && !secret) return copyOf(bytes);
  if (format === "spki" && !secret) return copyOf(concat([SPKI, bytes]));
  if (format === "pkcs8" && secret) return copyOf(concat([PKCS8, bytes]));
  if (format !== "jwk") throw new DOMException("the key has no such form", "NotSupportedError");
  const open = secret ? new Uint8Array_(native("ed25519_public", [bytes])) : bytes;
  const jwk = { crv: "Ed25519", kty: "OKP", x: base64url(open), ext: key.extractable, key_ops: key.usages };
  return secret ? { ...jwk, d: base64url(bytes) } : jwk;
}

class SubtleCrypto {
  async digest(algorithm, data) {
    return native("digest", [new Uint8Array_([hashNumber(algorithm)]), bytesOf(data)]);
  }
  async importKey(format, data, algorithm, extractable, usages) {
    const name = algorithmName(algorithm).toUpperCase();
    if (name === "HMAC") {
      if (format !== "raw" && format !== "jwk") throw unsupported(format);
      const bytes = format === "jwk" ? fromBase64url(data.k) : bytesOf(data).slice();
      return hmacKey(bytes, algorithm.hash, extractable, usages);
    }
    if (name === "ED25519") return importEd25519(format, data, extractable, usages);
    throw unsupported(algorithm);
  }
  async exportKey(format, key) {
    requireExtractable(key);
    if (key.algorithm.name === "Ed25519") return exportEd25519(format, key);
    if (format === "raw") return copyOf(keyBytes(key));
    if (format !== "jwk") throw unsupported(format);
    const alg = "HS" + key.algorithm.hash.name.slice(4);
    return { kty: "oct", k: base64url(keyBytes(key)), alg, ext: true, key_ops: key.usages };
  }
  async generateKey(algorithm, extractable, usages) {
    const name = algorithmName(algorithm).toUpperCase();
    if (name === "HMAC") {
      const bits = algorithm.length ?? BLOCK_BITS[hashNumber(algorithm.hash)];
      return hmacKey(randomBytes(bits >> 3), algorithm.hash, extractable, usages);
    }
    if (name !== "ED25519") throw unsupported(algorithm);
    const seed = randomBytes(32);
    const open = new Uint8Array_(native("ed25519_public", [seed]));
    const only = (usage) => usages.filter((wanted) => wanted === usage);
    return {
      privateKey: edKey(seed, "private", extractable, only("sign")),
      publicKey: edKey(open, "public", true, only("verify")),
    };
  }
  async sign(algorithm, key, data) {
    requireUsage(key, "sign", algorithm);
    if (key.algorithm.name === "HMAC") return mac(key, data);
    return native("ed25519_sign", [keyBytes(key), bytesOf(data)]);
  }
  async verify(algorithm, key, signature, data) {
    requireUsage(key, "verify", algorithm);
    const given = bytesOf(signature);
    if (key.algorithm.name === "HMAC") return sameBytes(new Uint8Array_(mac(key, data)), given);
    if (given.length !== 64) return false;
    const answer = native("ed25519_verify", [keyBytes(key), given, bytesOf(data)]);
    return new Uint8Array_(answer)[0] === 1;
  }
}
for (const name of [
  "encrypt", "decrypt", "deriveBits", "deriveKey", "wrapKey", "unwrapKey",
]) {
  SubtleCrypto.prototype[name] = async function (algorithm) { throw unsupported(algorithm ?? name); };
}

function mac(key, data) {
  const bytes = keyBytes(key), number = new Uint8Array_([hashNumber(key.algorithm.hash)]);
  return native("hmac", [number, lengthPrefix(bytes.length), bytes, bytesOf(data)]);
}

class Crypto {
  #subtle = new SubtleCrypto();
  get subtle() { return this.#subtle; }
  getRandomValues(view) {
    if (!isView(view) || view instanceof DataView || /^Float/.test(apply(viewTag, view, []))) {
      throw new DOMException("not an array of integers", "TypeMismatchError");
    }
    if (view.byteLength > 65_536) {
      throw new DOMException("at most 65536 bytes at a time", "QuotaExceededError");
    }
    bytesOf(view).set(randomBytes(view.byteLength));
    return view;
  }
  randomUUID() {
    const bytes = randomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  }
}

// sfc32 (Chris Doty-Humphrey), seeded once per run with the first number that is asked for.
let sfc = null;
function random() {
  sfc ??= new Uint32Array(randomBytes(16).buffer);
  const mixed = (((sfc[0] + sfc[1]) >>> 0) + sfc[3]) >>> 0;
  sfc[3] += 1;
  sfc[0] = sfc[1] ^ (sfc[1] >>> 9);
  sfc[1] = sfc[2] + (sfc[2] << 3);
  sfc[2] = ((sfc[2] << 21) | (sfc[2] >>> 11)) + mixed;
  return mixed / 4294967296;
}
Object.defineProperty(Math, "random", { value: random, writable: true, configurable: true });

for (const type of [Crypto, SubtleCrypto, CryptoKey]) named(type, type.name);
expose({ Crypto, SubtleCrypto, CryptoKey, crypto: new Crypto() });
