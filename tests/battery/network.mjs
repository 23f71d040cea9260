// Fetching from elsewhere, and timers. ORIGIN runs `origin.mjs`.

const failing = async (work) => { try { return await work(); } catch (error) { return error.name; } };

export const cases = {
  async fetchEcho({ ORIGIN }) {
    const ask = async (init) => (await fetch(`${ORIGIN}/echo`, init)).json();
    return [await ask(), await ask({ method: "POST", body: "text", headers: { "X-A": "b" } }), await ask({ method: "PUT", body: new Uint8Array([97, 98]) }), await ask({ method: "post", body: new URLSearchParams("a=b") }), await ask({ method: "DELETE" })];
  },
  async fetchRequest({ ORIGIN }) { const r = new Request(`${ORIGIN}/echo`, { method: "POST", body: "one" }); return [await (await fetch(r.clone(), { headers: { "x-b": "c" } })).json(), await (await fetch(new Request(r, { body: "two" }))).json()]; },
  async fetchStatus({ ORIGIN }) { const r = await fetch(`${ORIGIN}/status?status=418`); return [r.status, r.ok, r.redirected, new URL(r.url).pathname, r.headers.get("x-a"), r.headers.getSetCookie(), await r.text(), (await fetch(`${ORIGIN}/status?status=204`)).body]; },
  async fetchImmutable({ ORIGIN }) { const r = await fetch(`${ORIGIN}/status?status=200`); return [await failing(() => r.headers.set("x", "y")), new Response(r.body, r).headers.get("x-a")]; },
  async fetchRedirects({ ORIGIN }) {
    const ask = async (status, method, body) => { const r = await fetch(`${ORIGIN}/redirect?status=${status}&to=${encodeURIComponent("/echo?there")}`, { method, body, headers: { "x-a": "b" } }); return [r.status, r.redirected, new URL(r.url).pathname, await r.json()]; };
    return [await ask(301, "GET"), await ask(302, "POST", "x"), await ask(303, "PUT", "x"), await ask(307, "POST", "x"), await ask(308, "PUT", "x")];
  },
  async fetchManual({ ORIGIN }) { const r = await fetch(`${ORIGIN}/redirect?status=302&to=/echo`, { redirect: "manual" }); return [r.status, r.redirected, r.headers.get("location"), await r.text()]; },
  async fetchChunks({ ORIGIN }) { const r = await fetch(`${ORIGIN}/chunks`); let all = ""; for await (const chunk of r.body.pipeThrough(new TextDecoderStream())) all += chunk; return all; },
  async fetchLarge({ ORIGIN }) { const r = await fetch(`${ORIGIN}/large`); let n = 0; for await (const chunk of r.body) n += chunk.length; return n; },
  async fetchStreamed({ ORIGIN }) { const { readable, writable } = new TransformStream(); const asked = fetch(`${ORIGIN}/echo`, { method: "POST", body: readable }); const w = writable.getWriter(); for (const part of ["a", "b", "c"]) await w.write(new TextEncoder().encode(part)); await w.close(); return (await (await asked).json()).body; },
  async fetchThrough({ ORIGIN }) { const first = await fetch(`${ORIGIN}/chunks`); return (await (await fetch(`${ORIGIN}/echo`, { method: "POST", body: first.body })).json()).body; },
  async fetchTee({ ORIGIN }) { const r = await fetch(`${ORIGIN}/chunks`); const c = r.clone(); const [a, b] = await Promise.all([r.text(), c.text()]); return [a === b, a]; },
  async fetchAborted({ ORIGIN }) { const begun = Date.now(); const out = await failing(() => fetch(`${ORIGIN}/slow`, { signal: AbortSignal.timeout(50) })); return [out, Date.now() - begun < 2_000]; },
  async fetchTogether({ ORIGIN }) { const all = await Promise.all(Array.from({ length: 5 }, (_, n) => fetch(`${ORIGIN}/echo`, { method: "POST", body: `${n}` }).then((r) => r.json()))); return all.map(({ body }) => body); },
  async fetchRewritten({ ORIGIN }) { const r = new HTMLRewriter().transform(await fetch(`${ORIGIN}/chunks`)); return r.text(); },
  async fetchCached({ ORIGIN }) { const url = `${ORIGIN}/status?status=200`; const r = await fetch(url); const kept = new Response(r.body, { headers: { "cache-control": "max-age=60" } }); await caches.default.put(url, kept); return (await caches.default.match(url)).text(); },
  async fetchBad() { return Promise.all(["ftp://a/", "nonsense", "http://"].map((url) => failing(() => fetch(url)))); },
  async fetchRefused() { return failing(() => fetch("http://127.0.0.1:1/")); },

  // What the timer that was due has seen: see `scheduled`.
  async timer({ KV }) { return KV.get("timer", "json"); },
};

/** By themselves: a request may fetch so many times, and this takes most of them. */
export const loops = {
  async fetchLoop({ ORIGIN }) { return failing(async () => (await fetch(`${ORIGIN}/loop`)).status); },
};

export async function scheduled(controller, env, ctx) {
  const { cron, scheduledTime } = controller;
  ctx.waitUntil(env.KV.put("timer", JSON.stringify([cron, typeof scheduledTime, scheduledTime % 60_000, typeof controller.noRetry, ctx instanceof Object, typeof env.TEXT])));
}
