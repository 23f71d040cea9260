// The npm package `cloudflare` against a flock: writes through one node, reads through another.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { cases, eventually } from "./cases.mjs";

const [nodes, modules] = [JSON.parse(process.argv[2]), process.argv[3]];
const require = createRequire(`${modules}/`);
const Cloudflare = require("cloudflare");
const { toFile } = Cloudflare;
const run = cases();

const client = ({ api, token }, more) => new Cloudflare({ baseURL: api, apiToken: token, ...more });
const [a, b, c] = nodes.map((node) => client(node));
const account_id = nodes[0].account;
const kv = (cloudflare) => cloudflare.kv.namespaces;
let ns;
const at = () => ({ account_id, namespace_id: ns });
const text = async (cloudflare, key) => (await kv(cloudflare).values.get(key, at())).text();

await run("namespaces.create", async () => {
  const made = await kv(a).create({ account_id, title: "npm" });
  assert.match(made.id, /^[0-9a-f]{32}$/);
  assert.deepEqual(made, { id: made.id, title: "npm", supports_url_encoding: true });
  ns = made.id;
});

await run("namespaces.get and update, elsewhere", async () => {
  await eventually(async () => assert.equal((await kv(b).get(ns, { account_id })).title, "npm"));
  const renamed = await kv(b).update(ns, { account_id, title: "npm renamed" });
  assert.equal(renamed.title, "npm renamed");
  await eventually(async () => assert.equal((await kv(c).get(ns, { account_id })).title, "npm renamed"));
});

await run("namespaces.create: a taken title is a BadRequestError", async () => {
  await assert.rejects(kv(b).create({ account_id, title: "npm renamed" }), (error) => {
    assert(error instanceof Cloudflare.BadRequestError, error);
    assert.equal(error.status, 400);
    assert.equal(error.errors[0].code, 10014);
    assert.equal(
      error.errors[0].message,
      "create namespace: 'a namespace with this account ID and title already exists'",
    );
    return true;
  });
});

await run("namespaces.list iterates to the end", async () => {
  const made = [];
  for (let index = 0; index < 25; index++) {
    made.push((await kv(a).create({ account_id, title: `page ${String(index).padStart(2, "0")}` })).id);
  }
  for (const query of [{}, { per_page: 7, order: "title", direction: "desc" }]) {
    const seen = [];
    for await (const found of kv(a).list({ account_id, ...query })) seen.push(found);
    assert(made.every((id) => seen.some((found) => found.id === id)));
    assert.equal(new Set(seen.map((found) => found.id)).size, seen.length);
    if (query.order) {
      const titles = seen.map((found) => found.title);
      assert.deepEqual(titles, [...titles].sort().reverse());
    }
  }
  const page = await kv(a).list({ account_id, per_page: 10 });
  assert.equal(page.result.length, 10);
  assert(page.hasNextPage());
  assert.equal((await page.getNextPage()).result.length, 10);
  for (const id of made) assert.deepEqual(await kv(a).delete(id, { account_id }), {});
});

await run("values.update and get: text", async () => {
  assert.deepEqual(await kv(a).values.update("greeting", { ...at(), value: "hello" }), {});
  assert.equal(await text(a, "greeting"), "hello");
  await eventually(async () => assert.equal(await text(b, "greeting"), "hello"));
});

await run("values.update: a key with slashes, spaces and non-ASCII", async () => {
  const key = "a/b c?d#e&f=ü+%2F雪🦆";
  await kv(a).values.update(key, { ...at(), value: "odd" });
  await eventually(async () => assert.equal(await text(c, key), "odd"));
  await kv(c).values.delete(key, at());
  await assert.rejects(kv(c).values.get(key, at()), Cloudflare.NotFoundError);
});

await run("values.update: bytes, expiration and metadata as an object", async () => {
  const bytes = Uint8Array.from({ length: 100_000 }, (_, index) => (index * 7) % 256);
  const expiration = 4_000_000_000;
  const metadata = { ort: "Zürich", deep: { list: ["a", "b"] } };
  await kv(a).values.update("bytes", { ...at(), value: await toFile(bytes, "bytes"), expiration, metadata });
  await eventually(async () => {
    const answer = await kv(b).values.get("bytes", at());
    assert.deepEqual(new Uint8Array(await answer.arrayBuffer()), bytes);
    assert.equal(answer.headers.get("expiration"), "4000000000");
  });
  assert.deepEqual(await kv(b).metadata.get("bytes", at()), metadata);
});

await run("values.update: metadata as JSON text, a TTL that wins over an expiration", async () => {
  const before = Math.floor(Date.now() / 1000);
  const metadata = JSON.stringify({ n: 1, none: null });
  await kv(a).values.update("ttl", { ...at(), value: "v", metadata, expiration: 4_000_000_000, expiration_ttl: 600 });
  const listed = (await kv(a).keys.list(ns, { account_id, prefix: "ttl" })).result;
  assert.deepEqual(await kv(a).metadata.get("ttl", at()), { n: 1, none: null });
  assert(Math.abs(listed[0].expiration - before - 600) <= 5, JSON.stringify(listed));
});

await run("values.get: streamed and raw responses", async () => {
  const value = "0123456789".repeat(50_000);
  await kv(a).values.update("large", { ...at(), value });
  const answer = await kv(a).values.get("large", at());
  let length = 0;
  for await (const chunk of answer.body) length += chunk.length;
  assert.equal(length, value.length);
  const raw = await kv(a).get(ns, { account_id }).asResponse();
  assert.equal(raw.status, 200);
  assert.equal((await raw.json()).success, true);
  const { data, response } = await kv(a).get(ns, { account_id }).withResponse();
  assert.equal(data.id, ns);
  assert.equal(response.headers.get("content-type"), "application/json");
});

await run("keys.bulkUpdate, bulkGet and bulkDelete", async () => {
  const body = Array.from({ length: 2500 }, (_, index) => ({ key: `bulk/${index}`, value: `${index}` }));
  body.push({ key: "bulk/binary", value: "AAH/", base64: true, metadata: { kind: "binary" }, expiration_ttl: 600 });
  body.push({ key: "bulk/json", value: '{"a":[1]}' });
  const done = await kv(a).bulkUpdate(ns, { account_id, body });
  assert.deepEqual(done, { successful_key_count: 2502, unsuccessful_keys: [] });
  const keys = ["bulk/7", "bulk/missing", "bulk/json"];
  await eventually(async () => {
    const got = await kv(b).keys.bulkGet(ns, { account_id, keys });
    assert.deepEqual(got.values, { "bulk/7": "7", "bulk/missing": null, "bulk/json": '{"a":[1]}' });
  });
  const parsed = await kv(b).bulkGet(ns, { account_id, keys: ["bulk/json"], type: "json", withMetadata: true });
  assert.deepEqual(parsed.values, { "bulk/json": { value: { a: [1] }, metadata: null } });
  const binary = await kv(b).values.get("bulk/binary", at());
  assert.deepEqual([...new Uint8Array(await binary.arrayBuffer())], [0, 1, 255]);
});

await run("keys.list iterates to the end", async () => {
  for (const limit of [1000, 100, undefined]) {
    await eventually(async () => {
      const names = [];
      for await (const key of kv(c).keys.list(ns, { account_id, prefix: "bulk/", limit })) names.push(key.name);
      assert.equal(names.length, 2502);
      assert.deepEqual(names, [...names].sort());
    });
  }
  const page = await kv(a).keys.list(ns, { account_id, prefix: "bulk/", limit: 10 });
  assert.deepEqual(Object.keys(page.result_info).sort(), ["count", "cursor"]);
  assert.equal(page.result_info.count, 10);
  const body = Array.from({ length: 2500 }, (_, index) => `bulk/${index}`);
  const gone = await kv(a).keys.bulkDelete(ns, { account_id, body });
  assert.deepEqual(gone, { successful_key_count: 2500, unsuccessful_keys: [] });
  const left = [];
  for await (const key of kv(a).keys.list(ns, { account_id, prefix: "bulk/" })) left.push(key.name);
  assert.deepEqual(left, ["bulk/binary", "bulk/json"]);
});

await run("errors have their types", async () => {
  const { NotFoundError, BadRequestError, PermissionDeniedError, APIError } = Cloudflare;
  const missing = { account_id, namespace_id: "0".repeat(31) + "1" };
  const cases = [
    [() => kv(a).values.get("never", at()), NotFoundError, 10009],
    [() => kv(a).metadata.get("never", at()), NotFoundError, 10009],
    [() => kv(a).keys.list(missing.namespace_id, { account_id }), NotFoundError, 10013],
    [() => kv(a).values.update("k", { ...missing, value: "v" }), NotFoundError, 10013],
    [() => kv(a).get("abc", { account_id }), BadRequestError, 10011],
    [() => kv(a).values.update("k", { ...at(), value: "v", expiration_ttl: 1 }), BadRequestError, 10034],
    [() => kv(a).values.update("k".repeat(513), { ...at(), value: "v" }), APIError, 10030],
    [() => kv(a).bulkGet(ns, { account_id, keys: Array(101).fill("k") }), BadRequestError, 10001],
    [() => kv(client(nodes[0], { apiToken: "x".repeat(40) })).list({ account_id }), PermissionDeniedError, 10000],
    [() => kv(a).list({ account_id: "f".repeat(32) }), PermissionDeniedError, 10000],
  ];
  for (const [call, type, code] of cases) {
    await assert.rejects(call(), (error) => {
      assert(error instanceof type, `${code}: ${error}`);
      assert.equal(error.errors[0].code, code);
      return true;
    });
  }
});

await run("who asks: user, token, accounts, memberships, zones", async () => {
  assert.equal((await b.user.tokens.verify()).status, "active");
  assert.match((await b.user.get()).id, /^[0-9a-f]{32}$/);
  const accounts = [];
  for await (const account of b.accounts.list()) accounts.push(account.id);
  assert.deepEqual(accounts, [account_id]);
  assert.equal((await b.accounts.get({ account_id })).id, account_id);
  const memberships = [];
  for await (const membership of b.memberships.list()) memberships.push(membership.account.id);
  assert.deepEqual(memberships, [account_id]);
  const zones = [];
  for await (const zone of b.zones.list()) zones.push(zone);
  assert.deepEqual(zones, []);
});

await run("what is not served says so", async () => {
  await assert.rejects(b.r2.buckets.list({ account_id }), (error) => {
    assert(error instanceof Cloudflare.NotFoundError, error);
    assert.deepEqual(error.errors.map((one) => one.code), [7003, 7000]);
    return true;
  });
});

await run("namespaces.delete", async () => {
  assert.deepEqual(await kv(b).delete(ns, { account_id }), {});
  await assert.rejects(kv(b).get(ns, { account_id }), Cloudflare.NotFoundError);
  await eventually(() => assert.rejects(kv(a).get(ns, { account_id }), Cloudflare.NotFoundError));
});
