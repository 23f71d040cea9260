// Web Crypto: vectors that OpenSSL has made, and those of the standards.
import vectors from "./vectors.json";

const { subtle } = crypto;
const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const text = (value) => new TextEncoder().encode(value);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (digits) => Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const MESSAGE = text("a message for the battery");
const failing = async (work) => { try { return await work(); } catch (error) { return error.name; } };

/** Whether the signature holds, and whether it still does for another message and with another byte in it. */
async function verified(format, key, imported, algorithm, signature) {
  const held = await subtle.importKey(format, key, imported, true, ["verify"]);
  const wrong = signature.slice();
  wrong[5] ^= 1;
  return [await subtle.verify(algorithm, held, signature, MESSAGE), await subtle.verify(algorithm, held, signature, text("another")), await subtle.verify(algorithm, held, wrong, MESSAGE), held.type, held.algorithm.name];
}

export const cases = {
  async rsaPkcs1() {
    const of = (hash) => verified("spki", bytes(vectors.rsa), { name: "RSASSA-PKCS1-v1_5", hash: `SHA-${hash}` }, "RSASSA-PKCS1-v1_5", bytes(vectors[`pkcs1_${hash}`]));
    return Promise.all([1, 256, 384, 512].map(of));
  },
  async rsaPss() {
    const of = ([hash, saltLength]) => verified("spki", bytes(vectors.rsa), { name: "RSA-PSS", hash: `SHA-${hash}` }, { name: "RSA-PSS", saltLength }, bytes(vectors[`pss_${hash}`]));
    return Promise.all([[256, 32], [384, 48], [512, 64]].map(of));
  },
  async ed25519() { return verified("spki", bytes(vectors.ed), "Ed25519", "Ed25519", bytes(vectors.ed_sig)); },
  async ed25519Rfc8032() {
    const key = await subtle.importKey("raw", unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"), "Ed25519", false, ["verify"]);
    return subtle.verify("Ed25519", key, unhex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"), new Uint8Array());
  },
  async ecdsa() {
    return [await verified("spki", bytes(vectors.p256), { name: "ECDSA", namedCurve: "P-256" }, { name: "ECDSA", hash: "SHA-256" }, bytes(vectors.p256_sig)),
      await verified("spki", bytes(vectors.p384), { name: "ECDSA", namedCurve: "P-384" }, { name: "ECDSA", hash: "SHA-384" }, bytes(vectors.p384_sig))];
  },
  async rsaJwk() {
    const spki = bytes(vectors.rsa), urlSafe = (part) => btoa(String.fromCharCode(...part)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    const jwk = { kty: "RSA", n: urlSafe(spki.slice(spki.length - 261, spki.length - 5)), e: "AQAB" };
    return verified("jwk", jwk, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, "RSASSA-PKCS1-v1_5", bytes(vectors.pkcs1_256));
  },
  async digests() { return Promise.all(["SHA-1", "SHA-256", "SHA-384", "SHA-512", "MD5", "sha-256"].map((name) => failing(async () => hex(await subtle.digest(name, text("The quick brown fox")))))); },
  async digestInputs() { return [hex(await subtle.digest("SHA-256", new ArrayBuffer(0))), hex(await subtle.digest({ name: "SHA-1" }, new DataView(text("xabc").buffer, 1))), await failing(() => subtle.digest("SHA-1", "text"))]; },
  async hmacRfc4231() {
    const tag = async (hash) => hex(await subtle.sign("HMAC", await subtle.importKey("raw", text("Jefe"), { name: "HMAC", hash }, false, ["sign"]), text("what do ya want for nothing?")));
    return Promise.all(["SHA-1", "SHA-256", "SHA-384", "SHA-512"].map(tag));
  },
  async hmacKeys() {
    const key = await subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, true, ["sign", "verify"]);
    const jwk = await subtle.exportKey("jwk", key);
    const raw = await subtle.exportKey("raw", key);
    const again = await subtle.importKey("jwk", jwk, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
    const tag = await subtle.sign("HMAC", key, MESSAGE);
    return [key.type, key.extractable, key.usages, key.algorithm.hash.name, key.algorithm.length, raw.byteLength, jwk.kty, jwk.alg, jwk.ext, await subtle.verify("HMAC", again, tag, MESSAGE), await failing(() => subtle.sign("HMAC", again, MESSAGE)), await failing(() => subtle.exportKey("raw", again))];
  },
  async aesGcmNist() {
    const key = await subtle.importKey("raw", unhex("feffe9928665731c6d6a8f9467308308"), "AES-GCM", false, ["encrypt", "decrypt"]);
    const plain = unhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    const algorithm = { name: "AES-GCM", iv: unhex("cafebabefacedbaddecaf888"), additionalData: unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2") };
    const sealed = await subtle.encrypt(algorithm, key, plain);
    return [hex(sealed), hex(await subtle.decrypt(algorithm, key, sealed)) === hex(plain), await failing(() => subtle.decrypt({ ...algorithm, additionalData: text("x") }, key, sealed))];
  },
  async deriveKeys() {
    const password = await subtle.importKey("raw", text("passwd"), "PBKDF2", false, ["deriveBits", "deriveKey"]);
    const algorithm = { name: "PBKDF2", hash: "SHA-256", salt: text("salt"), iterations: 1 };
    const key = await subtle.deriveKey(algorithm, password, { name: "AES-GCM", length: 256 }, true, ["encrypt"]);
    return [hex(await subtle.deriveBits(algorithm, password, 512)), hex(await subtle.exportKey("raw", key)), key.usages, await failing(() => subtle.deriveBits({ ...algorithm, iterations: 1_000_000 }, password, 256)), await failing(() => subtle.deriveBits(algorithm, password, 7))];
  },
  async hkdfRfc5869() { const key = await subtle.importKey("raw", unhex("0b".repeat(22)), "HKDF", false, ["deriveBits"]); return hex(await subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: unhex("000102030405060708090a0b0c"), info: unhex("f0f1f2f3f4f5f6f7f8f9") }, key, 336)); },
  async unknownAlgorithms() { return [await failing(() => subtle.importKey("raw", new Uint8Array(16), "NONE", false, [])), await failing(() => subtle.digest("SHA-3", text(""))), await failing(() => subtle.generateKey("NONE", false, []))]; },
  async randomLimits() { return [await failing(() => crypto.getRandomValues(new Uint8Array(65_537))), await failing(() => crypto.getRandomValues(new Float64Array(1))), crypto.getRandomValues(new Uint32Array(2)).length, crypto.getRandomValues(new BigUint64Array(1)).length]; },
  async equalTimes() { return [subtle.timingSafeEqual(text("a"), text("a")), subtle.timingSafeEqual(text("a"), text("b")), await failing(() => subtle.timingSafeEqual(text("a"), text("ab")))]; },
};
