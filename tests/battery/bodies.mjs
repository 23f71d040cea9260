// Bodies, streams and encodings.

const bytes = (text) => new TextEncoder().encode(text);
const tried = async (work) => { try { return await work(); } catch (error) { return `${error.name}: ${error.message}`; } };
const failing = async (work) => { try { return await work(); } catch (error) { return error.name; } };
const parts = (...all) => new ReadableStream({ start(to) { for (const part of all) to.enqueue(bytes(part)); to.close(); } });

export const cases = {
  async bodyKinds() {
    const kinds = ["text", bytes("bytes"), bytes("buffer").buffer, new DataView(bytes("xviewx").buffer, 1, 4), new Blob(["blob"], { type: "text/x" }), new URLSearchParams("a=b c"), parts("str", "eam"), null, undefined, ""];
    return Promise.all(kinds.map(async (kind) => { const r = new Response(kind); return [r.headers.get("content-type"), r.body === null, await r.text(), r.bodyUsed]; }));
  },
  async bodyReaders() {
    const r = () => new Response('{"a":"é"}', { headers: { "content-type": "application/json" } });
    return [await r().json(), (await r().arrayBuffer()).byteLength, (await r().blob()).type, (await r().bytes()).length, await (await r().blob()).text()];
  },
  async bodyMark() { return [await new Response(new Uint8Array([0xef, 0xbb, 0xbf, 97])).text(), await tried(() => new Response(new Uint8Array([0xef, 0xbb, 0xbf, 49])).json()), await new Response(new Uint8Array([97, 0xff, 98])).text()]; },
  async bodyCopied() { const b = bytes("abc"); const r = new Response(b); b[0] = 122; return r.text(); },
  async bodyOfReader() { const r = new Response("abc"); const reader = r.body.getReader(); const first = await reader.read(); const second = await reader.read(); return [new TextDecoder().decode(first.value), first.done, second, r.bodyUsed]; },
  async bodyCancelled() { const r = new Response("abc"); await r.body.cancel(); return [r.bodyUsed, await failing(() => r.text())]; },
  async bodyPartlyRead() { const r = new Response(parts("a", "b", "c")); const reader = r.body.getReader(); await reader.read(); reader.releaseLock(); return [r.bodyUsed, await failing(() => r.text())]; },
  async bodyLocked() { const r = new Response(parts("a")); r.body.getReader(); return [r.bodyUsed, await failing(() => r.text()), await failing(() => r.clone())]; },
  async bodyCloneOfUsed() { const r = new Response("x"); await r.text(); return failing(() => r.clone()); },
  async bodyHandedOn() { const a = new Response(parts("a", "b")); const b = new Response(a.body, { status: 201, headers: { x: "y" } }); return [await b.text(), b.status, a.bodyUsed, await failing(() => a.text())]; },
  async bodyOfStrings() { return failing(() => new Response(new ReadableStream({ start(to) { to.enqueue("text"); to.close(); } })).text()); },
  async bodyOfNumbers() { return failing(() => new Response(new ReadableStream({ start(to) { to.enqueue(5); to.close(); } })).text()); },
  async requestClone() { const a = new Request("http://a/", { method: "POST", body: parts("a", "b"), headers: { x: "y" } }); const b = a.clone(); return [await a.text(), await b.text(), b.method, b.headers.get("x")]; },
  async requestFromRequest() { const a = new Request("http://a/x", { method: "POST", body: "b" }); const b = new Request("http://c/y", a); return [b.url, b.method, await b.text()]; },
  async requestMethods() { return ["get", "Post", "patch", "custom"].map((method) => new Request("http://a/", { method }).method); },
  async requestDefaults() { const r = new Request("http://a/"); return [r.method, r.redirect, r.body, r.bodyUsed, r.signal instanceof AbortSignal, r.headers instanceof Headers]; },
  async responseDefaults() { const r = new Response(); return [r.status, r.statusText, r.ok, r.redirected, r.url, r.type, r.body]; },
  async responseJson() { const r = Response.json({ a: [1, null] }, { status: 202, headers: { "content-type": "application/vnd.x+json" } }); return [r.status, r.headers.get("content-type"), await r.text(), await failing(() => Response.json(undefined)), await failing(() => Response.json(10n))]; },
  async redirects() { return [301, 302, 303, 307, 308].map((status) => { const r = Response.redirect("https://a.example/x y?z#h", status); return [r.status, r.headers.get("location"), r.body]; }).concat([await failing(() => Response.redirect("https://a/", 200))]); },
  async immutable() { return [await failing(() => Response.redirect("http://a/").headers.set("x", "y")), await failing(() => new Response("").headers.set("x", "y"))]; },
  async formMultipart() {
    const body = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntwo\r\n--x\r\nContent-Disposition: form-data; name="f"; filename="n ü.bin"\r\nContent-Type: image/png\r\n\r\n\0\x01\r\n--x--\r\n';
    const form = await new Response(body, { headers: { "content-type": "multipart/form-data; boundary=x" } }).formData();
    const file = form.get("f");
    return [form.getAll("a"), file.name, file.type, file.size, [...form.keys()], file instanceof File];
  },
  async formBad() { return [await failing(() => new Response("x", { headers: { "content-type": "multipart/form-data; boundary=x" } }).formData()), await failing(() => new Response("x").formData()), await failing(() => new Response("--x\r\n", { headers: { "content-type": "multipart/form-data" } }).formData())]; },
  async formMethods() { const f = new FormData(); f.append("a", "1"); f.append("b", "2"); f.append("a", "3"); f.set("a", "4"); f.delete("b"); f.append("n", 5); return [[...f], f.has("a"), f.get("none")]; },
  async blobs() { const b = new Blob(["abcdef"]); const f = new File([b.slice(1, 4)], "x", { type: "Text/HTML", lastModified: 5 }); return [f.size, f.type, f.lastModified, await f.text(), await b.slice(-2).text(), new Blob([new Blob(["a"]), "b", new Uint8Array([99])]).size, (await b.arrayBuffer()).byteLength, await new Response(b.stream()).text()]; },

  async pullOnDemand() { let pulled = 0; const s = new ReadableStream({ pull(to) { to.enqueue(++pulled); if (pulled === 10) to.close(); } }, { highWaterMark: 2 }); await scheduler.wait(5); const before = pulled; const r = s.getReader(); await r.read(); await scheduler.wait(5); return [before, pulled]; },
  async desiredSizes() { const sizes = []; new ReadableStream({ start(to) { sizes.push(to.desiredSize); to.enqueue("a"); sizes.push(to.desiredSize); to.close(); sizes.push(to.desiredSize); } }, { highWaterMark: 3 }); return sizes; },
  async countStrategy() { const s = new ReadableStream({ start(to) { to.enqueue("abcd"); this.size = to.desiredSize; } }, new CountQueuingStrategy({ highWaterMark: 5 })); const b = new ByteLengthQueuingStrategy({ highWaterMark: 9 }); return [s.locked, b.highWaterMark, b.size(new Uint8Array(3))]; },
  async streamFrom() { const s = ReadableStream.from((async function* () { yield "a"; yield "b"; })()); let out = ""; for await (const part of s) out += part; return out; },
  async streamBreak() { let why = "none"; const s = new ReadableStream({ pull(to) { to.enqueue(1); }, cancel(reason) { why = reason ?? "cancelled"; } }); for await (const _ of s) break; return [why, s.locked]; },
  async streamKept() { const s = new ReadableStream({ start(to) { to.enqueue(1); to.enqueue(2); to.close(); } }); for await (const _ of s.values({ preventCancel: true })) break; const r = s.getReader(); return [(await r.read()).value, (await r.read()).done]; },
  async readerClosed() { const s = new ReadableStream({ start(to) { to.close(); } }); const r = s.getReader(); await r.closed; r.releaseLock(); return [await failing(() => r.read()), await r.closed.catch((e) => e.name)]; },
  async releasePending() { const s = new ReadableStream({}); const r = s.getReader(); const read = r.read().catch((e) => e.name); r.releaseLock(); return read; },
  async sourceThrows() { return [await failing(() => new ReadableStream({ start() { throw new RangeError("x"); } })), await failing(() => new ReadableStream({ pull() { throw new RangeError("x"); } }).getReader().read())]; },
  async enqueueClosed() { return failing(() => new ReadableStream({ start(to) { to.close(); to.enqueue(1); } })); },
  async byteStream() { const s = new ReadableStream({ type: "bytes", start(to) { to.enqueue(new Uint8Array([1, 2, 3, 4])); to.close(); } }); const r = s.getReader({ mode: "byob" }); const one = await r.read(new Uint8Array(3)); const two = await r.read(new Uint8Array(3)); const end = await r.read(new Uint8Array(3)); return [[...one.value], [...two.value], end.done]; },
  async byobOfPlain() { return failing(() => new ReadableStream({}).getReader({ mode: "byob" })); },
  async writes() { const log = []; const w = new WritableStream({ start() { log.push("start"); }, async write(chunk) { await scheduler.wait(1); log.push(chunk); }, close() { log.push("close"); } }).getWriter(); w.write("a"); w.write("b"); await w.close(); return [log, await failing(() => w.write("c"))]; },
  async writeFails() { const w = new WritableStream({ write() { throw new RangeError("no"); } }).getWriter(); const first = await failing(() => w.write("a")); return [first, await failing(() => w.closed)]; },
  async writeAbort() { let why; const s = new WritableStream({ abort(reason) { why = reason; } }); await s.abort("stop"); return [why, s.locked]; },
  async backpressure() { const w = new WritableStream({ write: () => scheduler.wait(1) }, { highWaterMark: 2 }).getWriter(); const sizes = [w.desiredSize]; w.write("a"); sizes.push(w.desiredSize); w.write("b"); sizes.push(w.desiredSize); await w.ready; sizes.push(w.desiredSize); await w.close(); return sizes; },
  async transforms() { const t = new TransformStream({ start(to) { to.enqueue("<"); }, transform(chunk, to) { to.enqueue(chunk); to.enqueue("-"); }, flush(to) { to.enqueue(">"); } }); const w = t.writable.getWriter(); w.write("a"); w.write("b"); w.close(); let out = ""; for await (const part of t.readable) out += part; return out; },
  async transformThrows() { const t = new TransformStream({ transform() { throw new RangeError("no"); } }); const w = t.writable.getWriter(); w.write("a").catch(() => {}); return failing(() => t.readable.getReader().read()); },
  async transformTerminates() { const t = new TransformStream({ transform(chunk, to) { to.enqueue(chunk); to.terminate(); } }); const w = t.writable.getWriter(); w.write("a").catch(() => {}); w.write("b").catch(() => {}); let out = ""; for await (const part of t.readable) out += part; return out; },
  async pipes() { const t = new TransformStream({ transform(chunk, to) { to.enqueue(chunk + 1); } }); const got = []; await ReadableStream.from([1, 2, 3]).pipeThrough(t).pipeTo(new WritableStream({ write(chunk) { got.push(chunk); } })); return got; },
  async pipeFails() { let aborted; const s = new ReadableStream({ start(to) { to.error(new RangeError("bad")); } }); const out = await failing(() => s.pipeTo(new WritableStream({ abort(reason) { aborted = reason.message; } }))); return [out, aborted]; },
  async pipeAborts() { const c = new AbortController(); const s = new ReadableStream({ pull: () => scheduler.wait(50) }); const piped = s.pipeTo(new WritableStream(), { signal: c.signal }).catch((e) => e.name); c.abort(); return piped; },
  async pipeLocks() { const s = parts("a"); const p = s.pipeTo(new WritableStream()); const locked = s.locked; await p; return [locked, s.locked]; },
  async teePaces() { const [a, b] = ReadableStream.from([1, 2, 3]).tee(); const all = async (s) => { const out = []; for await (const x of s) out.push(x); return out; }; return Promise.all([all(a), all(b)]); },
  async teeCancel() { let why; const s = new ReadableStream({ cancel(reason) { why = reason; } }); const [a, b] = s.tee(); a.cancel("one"); await b.cancel("two"); return why; },
  async identityHalves() { const { readable, writable } = new IdentityTransformStream(); const w = writable.getWriter(); const done = (async () => { for (const part of ["ab", "cd"]) await w.write(bytes(part)); await w.close(); })(); const text = await new Response(readable).text(); await done; return text; },
  async fixedTooLong() { const { readable, writable } = new FixedLengthStream(2); const w = writable.getWriter(); const wrote = w.write(bytes("abc")).then(() => "wrote", (e) => e.name); const read = await failing(() => new Response(readable).text()); return [await wrote, read]; },
  async encoderStream() { const s = ReadableStream.from(["a", "é", "\ud83d", "\ude00"]).pipeThrough(new TextEncoderStream()); const out = []; for await (const part of s) out.push(...part); return out; },
  async decoderStreamFatal() { const s = ReadableStream.from([new Uint8Array([97, 0xff])]).pipeThrough(new TextDecoderStream("utf-8", { fatal: true })); return failing(async () => { for await (const _ of s); }); },

  async labels() { return ["utf8", "UTF-8", " utf-8 ", "unicode-1-1-utf-8", "ascii", "latin1", "iso-8859-2", "windows-1251", "koi8-r", "gbk", "gb18030", "big5", "euc-jp", "iso-2022-jp", "shift-jis", "euc-kr", "utf-16", "utf-16be", "macintosh", "x-user-defined"].map((label) => { try { return new TextDecoder(label).encoding; } catch (e) { return e.name; } }); },
  async legacy() { const d = (label, ...list) => { try { return new TextDecoder(label).decode(new Uint8Array(list)); } catch (e) { return e.name; } }; return [d("windows-1251", 0xcf, 0xf0), d("koi8-r", 0xf0, 0xd2), d("gbk", 0xc4, 0xe3), d("big5", 0xa7, 0x41), d("euc-jp", 0xa4, 0xa2), d("euc-kr", 0xb0, 0xa1), d("utf-16be", 0x20, 0xac), d("iso-8859-2", 0xb1), d("macintosh", 0x8e)]; },
  async decodeInvalid() { const d = (...list) => new TextDecoder().decode(new Uint8Array(list)); return [d(0xc0, 0x80), d(0xed, 0xa0, 0x80), d(0xf4, 0x90, 0x80, 0x80), d(0xe2, 0x82), d(0xe2, 0x82, 97), d(0x80), d(0xf0, 0x9f, 0x98, 0x80, 0xff)]; },
  async decodeStreamed() { const d = new TextDecoder("shift_jis"); const a = d.decode(new Uint8Array([0x82]), { stream: true }) + d.decode(new Uint8Array([0xa0]), { stream: true }) + d.decode(); const u = new TextDecoder("utf-16le"); const b = u.decode(new Uint8Array([0x3d]), { stream: true }) + u.decode(new Uint8Array([0xd8, 0x00, 0xde]), { stream: true }) + u.decode(); return [a, b]; },
  async decodeFatalStream() { const d = new TextDecoder("utf-8", { fatal: true }); d.decode(new Uint8Array([0xe2, 0x82]), { stream: true }); return failing(() => d.decode()); },
  async decodeMarkSplit() { const d = new TextDecoder(); return d.decode(new Uint8Array([0xef]), { stream: true }) + d.decode(new Uint8Array([0xbb, 0xbf, 97]), { stream: true }) + d.decode(); },
  async decodeInputs() { return [new TextDecoder().decode(), new TextDecoder().decode(bytes("abc").buffer), new TextDecoder().decode(new DataView(bytes("abc").buffer, 1)), await failing(() => new TextDecoder().decode("text")), new TextDecoder().fatal, new TextDecoder("utf-8", { ignoreBOM: true }).ignoreBOM]; },
  async encodeKinds() { return [[...new TextEncoder().encode()], [...new TextEncoder().encode(undefined)], [...new TextEncoder().encode(null)], [...new TextEncoder().encode(5)], new TextEncoder().encoding]; },
  async encodeIntoEdges() { const e = new TextEncoder(); const into = (text, room) => { const { read, written } = e.encodeInto(text, new Uint8Array(room)); return [read, written]; }; return [into("😀", 3), into("😀", 4), into("\ud800", 3), into("", 0), into("aé", 2)]; },
};
