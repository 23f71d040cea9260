// Web Crypto: the node computes, this keeps keys and reads what describes them.
import { bufferOf, bytesOf, finish, host, text } from "starling:host";
import { DOMException } from "starling:events";

const DIGESTS = { "SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128 };

const fail = (name, message) => { throw new DOMException(message, name); };
const named = (algorithm) => (typeof algorithm === "string" ? { name: algorithm } : { ...algorithm });
const upper = (algorithm) => { const given = named(algorithm); return { ...given, name: text(given.name).toUpperCase() }; };
const digestOf = (hash) => {
  const name = text(named(hash ?? {}).name).toUpperCase();
  return name in DIGESTS ? name : fail("NotSupportedError", `Unrecognized or unimplemented digest algorithm requested ("${name}").`);
};
const input = (data) => bytesOf(data) ?? (() => { throw new TypeError("The data must be an ArrayBuffer or a view of one."); })();
const urlSafe = (bytes) => host.toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const fromUrlSafe = (value) => host.fromBase64(text(value).replaceAll("-", "+").replaceAll("_", "/")) ?? fail("DataError", "The JSON Web Key holds something that is not base64url.");

const ONLY_HERE = Symbol("made by the platform");
let secretOf;

export class CryptoKey {
  #bytes; #type; #algorithm; #extractable; #usages;
  constructor(token, bytes, type, algorithm, extractable, usages) {
    if (token !== ONLY_HERE) throw new TypeError("Illegal constructor");
    [this.#bytes, this.#type, this.#algorithm, this.#extractable, this.#usages] = [bytes, type, algorithm, extractable, [...usages]];
  }
  static { secretOf = (key) => key.#bytes; }
  get type() { return this.#type; }
  get algorithm() { return this.#algorithm; }
  get extractable() { return this.#extractable; }
  get usages() { return this.#usages; }
}
finish("CryptoKey", CryptoKey);

function use(key, usage, name) {
  if (!key.usages.includes(usage)) fail("InvalidAccessError", `Requested key usage "${usage}" does not match any usage listed in this CryptoKey.`);
  if (key.algorithm.name !== name) fail("InvalidAccessError", `Requested algorithm "${name}" does not match this CryptoKey ("${key.algorithm.name}").`);
  return secretOf(key);
}

/** The content of a public key's SubjectPublicKeyInfo (RFC 5280). */
function fromSpki(bytes) {
  const open = (at, tag) => {
    if (bytes[at] !== tag) fail("DataError", "Invalid SPKI input.");
    let [length, start] = [bytes[at + 1], at + 2];
    if (length & 0x80) {
      const count = length & 0x7f;
      length = 0;
      for (let i = 0; i < count; i++) length = length * 256 + bytes[start++];
    }
    return { start, end: start + length };
  };
  const algorithm = open(open(0, 0x30).start, 0x30);
  const content = open(algorithm.end, 0x03);
  return bytes.slice(content.start + 1, content.end);
}

/** RSAPublicKey (RFC 8017) of a modulus and an exponent. */
function rsaPublicKey(modulus, exponent) {
  const wrap = (tag, content) => {
    const length = content.length < 128 ? [content.length] : content.length < 256 ? [0x81, content.length] : [0x82, content.length >> 8, content.length & 255];
    return [tag, ...length, ...content];
  };
  const number = (bytes) => wrap(2, bytes[0] & 0x80 ? [0, ...bytes] : [...bytes]);
  return new Uint8Array(wrap(0x30, [...number(modulus), ...number(exponent)]));
}

const CURVES = { "P-256": 32, "P-384": 48 };

function importPublic(format, data, algorithm) {
  const isEc = algorithm.name === "ECDSA", isEd = algorithm.name === "ED25519";
  if (isEc && !(algorithm.namedCurve in CURVES)) fail("NotSupportedError", `Unrecognized or unimplemented EC curve "${algorithm.namedCurve}" requested.`);
  if (format === "jwk") {
    if (data.d !== undefined) fail("NotSupportedError", "Private keys are not supported by the embedded engine; workerd has them.");
    if (isEc) return new Uint8Array([4, ...fromUrlSafe(data.x), ...fromUrlSafe(data.y)]);
    if (isEd) return fromUrlSafe(data.x);
    return rsaPublicKey(fromUrlSafe(data.n), fromUrlSafe(data.e));
  }
  if (format === "spki") return fromSpki(input(data));
  if (format === "raw" && (isEc || isEd)) return input(data).slice();
  return fail("NotSupportedError", `Unsupported format "${format}" of a key for ${algorithm.name}.`);
}

async function importKey(format, data, algorithm, extractable, usages) {
  const given = upper(algorithm);
  const { name } = given;
  const make = (bytes, type, described) => new CryptoKey(ONLY_HERE, bytes, type, described, Boolean(extractable), usages);
  switch (name) {
    case "ECDSA": return make(importPublic(format, data, given), "public", { name, namedCurve: given.namedCurve });
    case "ED25519": return make(importPublic(format, data, given), "public", { name: "Ed25519" });
    case "RSASSA-PKCS1-V1_5": return make(importPublic(format, data, given), "public", { name: "RSASSA-PKCS1-v1_5", hash: { name: digestOf(given.hash) } });
    case "RSA-PSS": return make(importPublic(format, data, given), "public", { name, hash: { name: digestOf(given.hash) } });
  }
  const bytes = format === "raw" ? input(data).slice() : format === "jwk" && data.kty === "oct" ? fromUrlSafe(data.k)
    : fail("NotSupportedError", `Unsupported format "${format}" of a key for ${name}.`);
  switch (name) {
    case "HMAC":
      if (bytes.length === 0) fail("DataError", "Imported HMAC key length (0) must be a non-zero value up to 7 bits less than, and no greater than, the bit length of the raw key data (0).");
      return make(bytes, "secret", { name, hash: { name: digestOf(given.hash) }, length: bytes.length * 8 });
    case "AES-GCM":
      if (![16, 32].includes(bytes.length)) fail("DataError", `Imported AES key length must be 128 or 256 bits but provided ${bytes.length * 8}.`);
      return make(bytes, "secret", { name, length: bytes.length * 8 });
    case "PBKDF2": case "HKDF":
      return make(bytes, "secret", { name });
    default:
      return fail("NotSupportedError", `Unrecognized or unimplemented algorithm "${name}" requested.`);
  }
}

async function generateKey(algorithm, extractable, usages) {
  const given = upper(algorithm);
  if (given.name === "HMAC") {
    const bytes = getRandomValues(new Uint8Array(given.length ? Math.ceil(given.length / 8) : DIGESTS[digestOf(given.hash)]));
    return importKey("raw", bytes, given, extractable, usages);
  }
  if (given.name === "AES-GCM") return importKey("raw", getRandomValues(new Uint8Array(given.length / 8)), given, extractable, usages);
  return fail("NotSupportedError", `The embedded engine makes no keys for "${given.name}"; workerd does.`);
}

async function exportKey(format, key) {
  if (!key.extractable) fail("InvalidAccessError", "Attempt to export non-extractable CryptoKey.");
  const bytes = secretOf(key);
  if (format === "raw") return bufferOf(bytes.slice());
  if (format === "jwk" && key.type === "secret") {
    const { name, hash, length } = key.algorithm;
    const alg = name === "HMAC" ? `HS${hash.name.slice(4)}` : `A${length}GCM`;
    return { kty: "oct", k: urlSafe(bytes), alg, key_ops: key.usages, ext: true };
  }
  return fail("NotSupportedError", `Unsupported format "${format}" of a key for ${key.algorithm.name}.`);
}

async function sign(algorithm, key, data) {
  if (upper(algorithm).name !== "HMAC") fail("NotSupportedError", `The embedded engine does not sign with "${named(algorithm).name}"; workerd does.`);
  return bufferOf(host.hmac(key.algorithm.hash.name, use(key, "sign", "HMAC"), input(data)));
}

async function verify(algorithm, key, signature, data) {
  const given = upper(algorithm);
  switch (given.name) {
    case "HMAC": return host.hmacVerify(key.algorithm.hash.name, use(key, "verify", "HMAC"), input(data), input(signature));
    case "ECDSA": return host.verify(`${key.algorithm.namedCurve} ${digestOf(given.hash)}`, use(key, "verify", "ECDSA"), input(data), input(signature));
    case "ED25519": return host.verify("Ed25519", use(key, "verify", "Ed25519"), input(data), input(signature));
    case "RSASSA-PKCS1-V1_5": return host.verify(`PKCS1 ${key.algorithm.hash.name}`, use(key, "verify", "RSASSA-PKCS1-v1_5"), input(data), input(signature));
    case "RSA-PSS": return host.verify(`PSS ${key.algorithm.hash.name}`, use(key, "verify", "RSA-PSS"), input(data), input(signature));
    default: return fail("NotSupportedError", `Unrecognized or unimplemented algorithm "${given.name}" requested.`);
  }
}

function sealed(usage, algorithm, key, data) {
  const given = upper(algorithm);
  if (given.name !== "AES-GCM") fail("NotSupportedError", `Unrecognized or unimplemented algorithm "${given.name}" requested.`);
  const iv = input(given.iv);
  if (iv.length !== 12) fail("NotSupportedError", "The embedded engine takes an AES-GCM iv of 12 bytes.");
  if (given.tagLength !== undefined && given.tagLength !== 128) fail("NotSupportedError", "The embedded engine makes AES-GCM tags of 128 bits.");
  const associated = given.additionalData === undefined ? new Uint8Array() : input(given.additionalData);
  const result = host.aesGcm(usage === "encrypt", use(key, usage, "AES-GCM"), iv, associated, input(data));
  return result === undefined ? fail("OperationError", "Decryption failed. This could be due to a ciphertext authentication failure, bad padding, incorrect CryptoKey, or another algorithm-specific reason.") : bufferOf(result);
}

async function deriveBits(algorithm, key, length) {
  const given = upper(algorithm);
  if (!(length > 0) || length % 8 !== 0) fail("OperationError", "The length must be a multiple of 8 that is not zero.");
  if (given.name === "PBKDF2") {
    if (!(given.iterations > 0) || given.iterations > 100_000) {
      fail("NotSupportedError", `Pbkdf2 failed: iteration counts above 100000 are not supported (requested ${given.iterations}).`);
    }
    return bufferOf(host.pbkdf2(digestOf(given.hash), use(key, "deriveBits", "PBKDF2"), input(given.salt), given.iterations, length / 8));
  }
  if (given.name !== "HKDF") fail("NotSupportedError", `Unrecognized or unimplemented algorithm "${given.name}" requested.`);
  const bits = host.hkdf(digestOf(given.hash), use(key, "deriveBits", "HKDF"), input(given.salt), input(given.info), length / 8);
  return bits === undefined ? fail("OperationError", "HKDF can't derive that many bits.") : bufferOf(bits);
}

async function deriveKey(algorithm, key, derived, extractable, usages) {
  const into = upper(derived);
  const length = into.length ?? (into.name === "HMAC" ? DIGESTS[digestOf(into.hash)] * 8 : undefined);
  const base = new CryptoKey(ONLY_HERE, use(key, "deriveKey", key.algorithm.name), "secret", key.algorithm, false, ["deriveBits"]);
  return importKey("raw", await deriveBits(algorithm, base, length), into, extractable, usages);
}

export class SubtleCrypto {
  async digest(algorithm, data) { return bufferOf(host.digest(digestOf(algorithm), input(data))); }
  async importKey(...args) { return importKey(...args); }
  async exportKey(...args) { return exportKey(...args); }
  async generateKey(...args) { return generateKey(...args); }
  async sign(...args) { return sign(...args); }
  async verify(...args) { return verify(...args); }
  async encrypt(algorithm, key, data) { return sealed("encrypt", algorithm, key, data); }
  async decrypt(algorithm, key, data) { return sealed("decrypt", algorithm, key, data); }
  async deriveBits(...args) { return deriveBits(...args); }
  async deriveKey(...args) { return deriveKey(...args); }
  timingSafeEqual(a, b) {
    const [one, other] = [input(a), input(b)];
    if (one.length !== other.length) throw new TypeError("Input buffers must have the same byte length.");
    return host.equal(one, other);
  }
}
finish("SubtleCrypto", SubtleCrypto);

function getRandomValues(array) {
  if (!ArrayBuffer.isView(array) || array instanceof Float32Array || array instanceof Float64Array || array instanceof DataView) {
    fail("TypeMismatchError", "The data must be an array of integers.");
  }
  if (array.byteLength > 65536) fail("QuotaExceededError", `getRandomValues() only accepts buffers of size <= 64K but provided ${array.byteLength} bytes.`);
  bytesOf(array).set(host.random(array.byteLength));
  return array;
}

export class Crypto {
  #subtle = new SubtleCrypto();
  get subtle() { return this.#subtle; }
  getRandomValues(array) { return getRandomValues(array); }
  randomUUID() {
    const bytes = host.random(16);
    [bytes[6], bytes[8]] = [bytes[6] & 15 | 64, bytes[8] & 63 | 128];
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }
}
finish("Crypto", Crypto);
