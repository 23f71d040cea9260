// A seeded sequence of KV operations, carried out by one and the same Worker on workerd with a node behind it and in
// miniflare. Every answer is compared: values, metadata, expirations, lists, error names and messages.
//
// Replay a seed: tests/conformance/run differential --seed N [--operations M]

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { cases } from "./cases.mjs";

const options = JSON.parse(process.argv[2]);
const require = createRequire(`${process.argv[3]}/`);
const { Miniflare } = require("miniflare");
const run = cases();

/** Operations in one request: few, so that neither side runs far ahead and their clocks mean the same. */
const BATCH = 50;

/** mulberry32: small, seeded, good enough to choose operations. */
function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit) => Math.floor(next() * limit);
  const pick = (items) => items[below(items.length)];
  return { below, pick, chance: (probability) => next() < probability };
}

/** Operations on few keys, so that they meet; every limit on both sides; what should fail, too. */
function sequence(seed, count) {
  const { below, pick, chance } = generator(seed);
  const prefix = `s${seed}/`;
  const keys = ["a", "b", "a/b", "ü", "雪/🦆", "a b+c&d=e?f#g%20", "100%", "bulk/get", "Ａ", "z".repeat(500)];
  for (let index = 0; index < 12; index++) keys.push(`n/${index}`);
  const odd = ["", ".", "..", "k".repeat(513), "é".repeat(257)];
  const key = () => (chance(0.04) ? pick(odd) : prefix + pick(keys));
  const values = [
    "", "text", "0", "null", "false", '""', "[]", '{"a":[1,2.5,null,"ü"]}', ' {"b": 1} ', "{", "\ufeffbom", "\u0000",
    "ü雪🦆", "x".repeat(5000), "y".repeat(70_000), "[" + "1,".repeat(9000) + "1]",
  ];
  const value = () => {
    if (chance(0.03)) return { text: "n", as: "number" };
    if (chance(0.25)) {
      const bytes = Buffer.from(Array.from({ length: pick([0, 1, 300, 66_000]) }, () => below(256)));
      return { base64: bytes.toString("base64"), as: pick([undefined, "view", "stream", "fixed", "response"]) };
    }
    return { text: pick(values), ...(chance(0.2) ? { as: pick(["view", "stream", "fixed"]) } : {}) };
  };
  const metadata = () =>
    pick([null, true, 0, 1.5, "", "ü", "m".repeat(1022), "m".repeat(1023), "é".repeat(511), [], {}, { a: { b: ["雪"] } },
      { '"\\\n\t': "\u2028" }, [null]]);
  const now = Math.floor(Date.now() / 1000);
  const put = () => {
    const given = {};
    if (chance(0.4)) given.metadata = metadata();
    if (chance(0.25)) given.expirationTtl = pick([3600, 59, 0, -1, 1, 2 ** 31 - 1, 86_400.9, 1e10, "120", null]);
    if (chance(0.25)) given.expiration = pick([now + 3600, 2_000_000_000, now, now + 30, 0, -7, 1e12, "x", 2 ** 31 - 1]);
    return { op: "put", key: key(), value: value(), options: given };
  };
  // Could be gone before it is read, here sooner than there: nothing reads it.
  const shortest = () => ({ op: "put", key: `t${seed}/${below(9)}`, value: value(), options: { expirationTtl: 60 + below(2) } });
  const several = () => ({
    keys: chance(0.06) ? pick([[], Array(101).fill(prefix + "a"), [""], [prefix + "a", ".."], ["k".repeat(513)]])
      : Array.from({ length: 1 + below(6) }, key),
    ...(chance(0.6) ? { type: pick(["text", "json", "arrayBuffer", "stream", "nonsense"]) } : {}),
  });
  const type = () => {
    if (chance(0.4)) return {};
    if (chance(0.6)) return { type: pick(["text", "json", "arrayBuffer", "stream", "nonsense"]) };
    return { options: { type: pick(["text", "json", undefined]), cacheTtl: pick([30, 60, 29, 0, -1, 86_400]) } };
  };
  const list = (op) => ({
    op,
    options: {
      prefix: chance(0.1) ? prefix + pick(["p".repeat(600), "nothing"]) : prefix + pick(["", "n/", "a", "雪", "n/1"]),
      ...(chance(0.6) ? { limit: op === "list" ? pick([1, 2, 5, 1000, 1001, 0, -1, 2.7]) : pick([1, 2, 5, 999]) } : {}),
    },
  });
  const operation = () => {
    const dice = below(100);
    if (dice < 2) return shortest();
    if (dice < 38) return put();
    if (dice < 52) return { op: "get", key: key(), ...type() };
    if (dice < 64) return { op: "getWithMetadata", key: key(), ...type() };
    if (dice < 74) return { op: pick(["get", "getWithMetadata"]), ...several() };
    if (dice < 84) return { op: "delete", key: key() };
    return list(dice < 92 ? "list" : "listAll");
  };
  return Array.from({ length: count }, operation);
}

/** Equal, but for expirations, which count from each side's own now. */
function differs(ours, theirs) {
  const near = (left, right, name) => {
    if (name === "expiration" && typeof left === "number" && typeof right === "number") return Math.abs(left - right) <= 3;
    if (left === null || right === null || typeof left !== "object" || typeof right !== "object") return left === right;
    const names = new Set([...Object.keys(left), ...Object.keys(right)]);
    return Array.isArray(left) === Array.isArray(right) && [...names].every((one) => near(left[one], right[one], one));
  };
  return !near(ours, theirs);
}

const short = (json) => {
  const text = JSON.stringify(json);
  return text.length > 600 ? `${text.slice(0, 600)}… (${text.length} characters)` : text;
};

const miniflare = new Miniflare({
  modules: true,
  script: readFileSync(options.script, "utf8"),
  kvNamespaces: ["KV"],
  compatibilityDate: options.compatibilityDate,
});
await miniflare.ready;
try {
  for (const seed of options.seeds) {
    await run(`seed ${seed}, ${options.operations} operations`, async () => {
      const operations = sequence(seed, options.operations);
      const [ours, theirs] = [[], []];
      for (let at = 0; at < operations.length; at += BATCH) {
        const body = JSON.stringify(operations.slice(at, at + BATCH));
        const [left, right] = await Promise.all([
          fetch(options.worker, { method: "POST", body }).then((answer) => answer.json()),
          miniflare.dispatchFetch("http://localhost/", { method: "POST", body }).then((answer) => answer.json()),
        ]);
        ours.push(...left);
        theirs.push(...right);
      }
      assert.equal(ours.length, operations.length);
      const found = [];
      operations.forEach((operation, index) => {
        if (differs(ours[index], theirs[index])) {
          found.push(`#${index} ${short(operation)}\n  node      ${short(ours[index])}\n  miniflare ${short(theirs[index])}`);
        }
      });
      const failures = ours.filter((result) => result.error).length;
      assert(failures < operations.length / 2, `${failures} of ${operations.length} operations failed`);
      assert.equal(found.length, 0, `${found.length} answers differ\n${found.slice(0, 8).join("\n")}`);
    });
  }
} finally {
  await miniflare.dispose();
}
