// The platform at large.

export const cases = {
  async url() { const u = new URL("../x?a=1&b=2#h", "http://user:p@ex.com:8080/a/b/c"); u.searchParams.append("c", "ü &"); u.port = "80"; return [u.href, u.origin, [...u.searchParams], u.hostname]; },
  async headers() { const h = new Headers({ B: "2", a: "1" }); h.append("b", "3"); h.append("Set-Cookie", "x=1"); h.append("set-cookie", "y=2"); return [[...h], h.getSetCookie()]; },
  async encode() { return [[...new TextEncoder().encode("aü€😀")], new TextDecoder().decode(new Uint8Array([0xef,0xbb,0xbf,97,0xff])), btoa("hi"), atob("aGk="), new TextDecoder("latin1").decode(new Uint8Array([0xe9]))]; },
  async decodeStream() { const d = new TextDecoder(); const b = new TextEncoder().encode("€😀"); let s = ""; for (const x of b) s += d.decode(new Uint8Array([x]), { stream: true }); return s + d.decode(); },
  async streams() { const t = new TransformStream({ transform(c, k) { k.enqueue(c.toUpperCase()); } }); const r = new ReadableStream({ start(c) { c.enqueue("a"); c.enqueue("b"); c.close(); } }); let s = ""; for await (const x of r.pipeThrough(t)) s += x; return s; },
  async identity() { const { readable, writable } = new TransformStream(); const w = writable.getWriter(); w.write(new TextEncoder().encode("abc")); w.close(); return await new Response(readable).text(); },
  async tee() { const r = new Response("hello"); const c = r.clone(); return [await r.text(), await c.text()]; },
  async teeStream() { const s = new ReadableStream({ start(c) { c.enqueue(new Uint8Array([104])); c.enqueue(new Uint8Array([105])); c.close(); } }); const r = new Response(s); const c = r.clone(); return [await r.text(), await c.text()]; },
  async form() { const f = new FormData(); f.append("a", "1"); f.append("f", new File(["xyz"], "n.txt", { type: "text/plain" })); const r = new Response(f); const g = await r.formData(); return [g.get("a"), g.get("f").name, await g.get("f").text(), g.get("f").type]; },
  async clone() { const o = { d: new Date(5), m: new Map([[1, { a: 1 }]]), s: new Set([1]), u: new Uint8Array([1, 2]) }; o.self = o; const c = structuredClone(o); return [c.self === c, c.d.getTime(), c.m.get(1).a, [...c.s], [...c.u]]; },
  async digest() { const h = async (a) => [...new Uint8Array(await crypto.subtle.digest(a, new TextEncoder().encode("abc")))].map((x) => x.toString(16).padStart(2, "0")).join(""); return [await h("SHA-1"), await h("SHA-256"), await h("SHA-512")]; },
  async hmac() { const k = await crypto.subtle.importKey("raw", new TextEncoder().encode("key"), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]); const s = await crypto.subtle.sign("HMAC", k, new TextEncoder().encode("data")); return [btoa(String.fromCharCode(...new Uint8Array(s))), await crypto.subtle.verify("HMAC", k, s, new TextEncoder().encode("data")), await crypto.subtle.verify("HMAC", k, s, new TextEncoder().encode("datb"))]; },
  async aes() { const k = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt", "decrypt"]); const iv = crypto.getRandomValues(new Uint8Array(12)); const c = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, k, new TextEncoder().encode("secret")); return [c.byteLength, new TextDecoder().decode(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, k, c))]; },
  async uuid() { return /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()); },
  async timers() { const t = Date.now(); await new Promise((r) => setTimeout(r, 30)); let n = 0; await new Promise((r) => { const i = setInterval(() => { if (++n === 3) { clearInterval(i); r(); } }, 5); }); return [n, Date.now() - t >= 40]; },
  async abort() { const c = new AbortController(); c.abort(); try { await fetch("http://192.0.2.1/", { signal: c.signal }); return "?"; } catch (e) { return [e.name, e.message]; } },
  async kv(env) { await env.KV.put("k", "v", { metadata: { a: 1 }, expirationTtl: 100 }); await env.KV.put("j", '{"x":[1]}'); await env.KV.put("b", new Uint8Array([1, 2, 3])); const m = await env.KV.getWithMetadata("k"); const l = await env.KV.list(); return [await env.KV.get("k"), m, await env.KV.get("j", "json"), [...new Uint8Array(await env.KV.get("b", "arrayBuffer"))], await new Response(await env.KV.get("k", { type: "stream" })).text(), await env.KV.get("none"), l.keys.map((k) => k.name).filter((name) => name !== "timer"), l.list_complete, Object.fromEntries(await env.KV.get(["k", "none"])), Object.fromEntries(await env.KV.getWithMetadata(["k"]))]; },
  async kvErrors(env) { const out = []; for (const f of [() => env.KV.get(""), () => env.KV.get("x".repeat(513)), () => env.KV.put("k", "v", { expirationTtl: 5 }), () => env.KV.put("k", {}), () => env.KV.get("k", "what"), () => env.KV.get("k", { cacheTtl: 5 }), () => env.KV.put("k", "v", { metadata: "m".repeat(1025) }), () => env.KV.list({ limit: 2000 }), () => env.KV.get(["k"], "stream")]) { try { out.push(await f()); } catch (e) { out.push(`${e.name}: ${e.message}`); } } return out; },
  async kvBig(env) { const b = new Uint8Array(3_000_000).fill(7); await env.KV.put("big", b); const r = await env.KV.get("big", "arrayBuffer"); const s = await env.KV.get("big", "stream"); let n = 0; for await (const c of s) n += c.length; await env.KV.put("big2", await env.KV.get("big", "stream")); return [r.byteLength, n, (await env.KV.get("big2", "arrayBuffer")).byteLength]; },
  async kvDelete(env) { await env.KV.delete("k"); await env.KV.delete("nope"); return await env.KV.get("k"); },
  async evil() { const out = []; for (const f of [() => eval("1"), () => new Function("return 1"), () => (async () => {}).constructor("1")]) { try { out.push(f()); } catch (e) { out.push(`${e.name}: ${e.message}`); } } return [out, (() => {}) instanceof Function, typeof starlingHost]; },
  async env(env) { return [env.TEXT, env.JSON, Object.keys(env)]; },
  async deepStack() { const f = () => f(); try { f(); } catch (e) { return [e.name, e.message]; } },
  async byob() { const r = new Response("hello").body.getReader({ mode: "byob" }); const { value, done } = await r.read(new Uint8Array(3)); return [new TextDecoder().decode(value), done]; },
  async event() { const t = new EventTarget(); let n = 0; t.addEventListener("x", (e) => { n += e.detail; }, { once: true }); t.dispatchEvent(new CustomEvent("x", { detail: 3 })); t.dispatchEvent(new CustomEvent("x", { detail: 3 })); return n; },
  async console() { console.log("a", { b: [1, "x"] }, new Map([[1, 2]])); console.error(new Error("e")); return 1; },
  async reqInit() { const r = new Request("http://x/a", { method: "post", body: new URLSearchParams({ a: "1" }) }); return [r.method, r.headers.get("content-type"), await r.text(), r.bodyUsed]; },
  async badResponses() { const out = []; for (const f of [() => new Response("x", { status: 204 }), () => new Response("", { status: 99 }), () => Response.redirect("nope"), () => new Request("nope"), () => new Headers({ "a b": "1" })]) { try { f(); out.push("ok"); } catch (e) { out.push(`${e.name}: ${e.message}`); } } return out; },
  async urlEdges() {
    const parse = (input, base) => { try { const u = new URL(input, base); return [u.href, u.host, u.pathname, u.search, u.hash]; } catch (e) { return e.name; } };
    return ["http://ex.com:80/", "HTTP://EX.com/%7Ea/../b?q#f", "http://[::1]:8080/", "http://ex.com/a b?c d#e f", "http://0x7f.1/", "https://xn--bcher-kva.example/", "https://bücher.example/ü", "mailto:a@b", "data:text/plain,hi", "//x", "", "http://", "http://a:99999/", "file:///a/../b", "http://a?b=%zz", "http://a/%2e%2e/b"].map((input) => parse(input));
  },
  async urlBase() { return [["b", "http://a/x/y"], ["?q", "http://a/x"], ["#h", "http://a/x?y"], ["//c/d", "https://a"], ["../../..", "http://a/b/c/d"]].map(([input, base]) => new URL(input, base).href); },
  async params() { const p = new URLSearchParams("?a=1&a=2&b=%20+%2B&c"); p.set("a", "3"); p.append("é", "€"); p.sort(); return [p.toString(), p.getAll("a"), p.has("c", ""), p.size]; },
  async paramsLive() { const u = new URL("http://a/?x=1"); u.searchParams.set("x", "2 3"); u.search = "?y=4"; return [u.href, u.searchParams.get("y"), u.searchParams.get("x")]; },
  async headerEdges() { const h = new Headers([["X-A", " a "], ["x-a", "b"]]); h.set("C", "d"); h.delete("c"); return [h.get("X-a"), h.get("none"), h.has("x-A"), [...h.keys()]]; },
  async decodeEdges() { const d = (label, bytes, options) => { try { return new TextDecoder(label, options).decode(new Uint8Array(bytes)); } catch (e) { return e.name; } }; return [d("utf-8", [0xf0, 0x9f, 0x98]), d("utf-8", [0xff], { fatal: true }), d("utf-8", [0xef, 0xbb, 0xbf, 0x61], { ignoreBOM: true }), d("windows-1252", [0x80]), d("utf-16le", [0x61, 0, 0x3d, 0xd8, 0x00, 0xde]), d("shift_jis", [0x82, 0xa0]), d("nonsense", [])]; },
  async encodeInto() { const into = new Uint8Array(5); const { read, written } = new TextEncoder().encodeInto("aé€", into); return [read, written, [...into]]; },
  async lone() { return [...new TextEncoder().encode("\ud800x")]; },
  async base64Edges() { return ["aGk", " aG k=", "a", "====", "aGk==", "%"].map((text) => { try { return atob(text); } catch (e) { return e.name; } }).concat([(() => { try { return btoa("€"); } catch (e) { return e.name; } })()]); },
  async responses() { const r = new Response("x", { status: 201, statusText: "Made", headers: { a: "b" } }); return [r.status, r.statusText, r.ok, r.headers.get("content-type"), Response.json({ a: 1 }).headers.get("content-type"), Response.redirect("http://a/b", 301).headers.get("location"), new Response(null).body, new Response(new Uint8Array(2)).headers.get("content-type")]; },
  async usedBody() { const r = new Response("x"); await r.text(); try { await r.text(); } catch (e) { return e.name; } },
  async badJson() { try { await new Response("{").json(); } catch (e) { return e.name; } },
  async requests() { const a = new Request("http://a/", { method: "PUT", body: "x", headers: { b: "c" } }); const b = new Request(a, { headers: { d: "e" } }); return [b.method, b.headers.get("b"), b.headers.get("d"), await b.text(), a.bodyUsed]; },
  async getWithBody() { try { new Request("http://a/", { body: "x" }); } catch (e) { return e.name; } },
  async streamErrors() { const s = new ReadableStream({ start(c) { c.error(new RangeError("broken")); } }); try { await new Response(s).text(); } catch (e) { return [e.name, e.message]; } },
  async streamLock() { const s = new ReadableStream(); s.getReader(); try { s.getReader(); } catch (e) { return [e.name, s.locked]; } },
  async pipeTo() { const got = []; await new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close(); } }).pipeTo(new WritableStream({ write(chunk) { got.push(chunk); }, close() { got.push("closed"); } })); return got; },
  async cancel() { let why; const s = new ReadableStream({ cancel(reason) { why = reason; } }); await s.cancel("enough"); return why; },
  async decoderStream() { const s = new Response("a€b").body.pipeThrough(new TextDecoderStream()); let out = ""; for await (const chunk of s) out += chunk; return out; },
  async fixedLength() { const { readable, writable } = new FixedLengthStream(3); const w = writable.getWriter(); w.write(new TextEncoder().encode("abc")); w.close(); return await new Response(readable).text(); },
  async blob() { const b = new Blob(["ab", new Uint8Array([99])], { type: "text/x" }); return [b.size, b.type, await b.text(), await b.slice(1, 3).text()]; },
  async urlForm() { const f = await new Response("a=1&b=%C3%BC", { headers: { "content-type": "application/x-www-form-urlencoded" } }).formData(); return [...f]; },
  async cloneErrors() { try { structuredClone(() => {}); } catch (e) { return [e.name, e.code]; } },
  async cloneKinds() { const e = structuredClone(new RangeError("x")); return [e instanceof RangeError, e.message, structuredClone([1, , 3]).length, structuredClone("s"), structuredClone(10n) === 10n]; },
  async signals() { const s = AbortSignal.any([AbortSignal.abort("why")]); let t; try { s.throwIfAborted(); } catch (e) { t = e; } return [s.aborted, s.reason, t, AbortSignal.abort().reason.name]; },
  async jwt() {
    const part = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const jwk = { kty: "EC", crv: "P-256", x: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" };
    const key = await crypto.subtle.importKey("jwk", jwk, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
    const signed = new TextEncoder().encode("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ");
    const signature = part("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
    const good = await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, signature, signed);
    signature[0] ^= 1;
    return [good, await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, signature, signed)];
  },
  async derive() {
    const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const bytes = (text) => new TextEncoder().encode(text);
    const password = await crypto.subtle.importKey("raw", bytes("password"), "PBKDF2", false, ["deriveBits"]);
    const material = await crypto.subtle.importKey("raw", bytes("key"), "HKDF", false, ["deriveBits"]);
    return [hex(await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt: bytes("salt"), iterations: 1000 }, password, 256)), hex(await crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: bytes("salt"), info: bytes("info") }, material, 256))];
  },
  async aesVector() { const bytes = (n) => new Uint8Array(n); const key = await crypto.subtle.importKey("raw", bytes(16), "AES-GCM", false, ["encrypt", "decrypt"]); const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv: bytes(12) }, key, bytes(16))); sealed[0] ^= 1; let refused; try { await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes(12) }, key, sealed); } catch (e) { refused = e.name; } sealed[0] ^= 1; return [[...sealed], refused]; },
  async globals() { return ["URLPattern", "HTMLRewriter", "WebSocketPair", "WebAssembly", "Intl", "caches", "crypto", "CompressionStream", "MessageChannel", "EventSource", "Buffer", "process", "queueMicrotask", "reportError", "scheduler", "performance", "navigator", "Cloudflare"].map((name) => [name, typeof globalThis[name]]); },
  async pollution() { Object.prototype.polluted = 1; const seen = ({}).polluted; delete Object.prototype.polluted; return seen; },
};
