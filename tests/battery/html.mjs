// Pages that are rewritten, and the cache.

const tried = async (work) => { try { return await work(); } catch (error) { return `${error.name}: ${error.message}`; } };
const failing = async (work) => { try { return await work(); } catch (error) { return error.name; } };
const page = (html, ...all) => {
  const rewriter = new HTMLRewriter();
  for (const [selector, handlers] of all) selector === null ? rewriter.onDocument(handlers) : rewriter.on(selector, handlers);
  return rewriter.transform(new Response(html)).text();
};
const chunked = (...parts) => new ReadableStream({ start(to) { for (const part of parts) to.enqueue(new TextEncoder().encode(part)); to.close(); } });

export const cases = {
  async rewriteElements() { return page("<p id=a class='x y'>one</p><p>two</p>", ["p#a", { element(e) { e.before("<"); e.prepend("[", { html: false }); e.append("<i>]</i>", { html: true }); e.after("!", { html: true }); e.setAttribute("title", 'a"b'); e.removeAttribute("class"); } }]); },
  async rewriteContent() { return page("<p>one</p><q>two</q><s>three</s><u><b>four</b></u>", ["p", { element(e) { e.setInnerContent("<b>", {}); } }], ["q", { element(e) { e.replace("<hr>", { html: true }); } }], ["s", { element(e) { e.remove(); } }], ["u", { element(e) { e.removeAndKeepContent(); } }]); },
  async rewriteSeen() { const seen = []; await page("<DIV Data-A=1 b>x<br></DIV><svg><path d=1></svg>", ["*", { element(e) { seen.push([e.tagName, [...e.attributes], e.getAttribute("data-a"), e.hasAttribute("B"), e.getAttribute("none"), e.namespaceURI, e.removed]); } }]); return seen; },
  async rewriteNames() { return page("<a href=x>y</a>", ["a", { element(e) { e.tagName = "b"; } }]); },
  async rewriteEndTags() { return page("<ul><li>a</li><li>b</li></ul>", ["ul", { element(e) { e.onEndTag((tag) => { tag.before("<li>c</li>", { html: true }); tag.name = "ol"; }); } }], ["li", { element(e) { e.onEndTag(async (tag) => { await scheduler.wait(1); tag.after("\n"); }); } }]); },
  async rewriteVoid() { return failing(() => page("<br>", ["br", { element(e) { e.onEndTag(() => {}); } }])); },
  async rewriteText() { let all = ""; const out = await page("<p>one &amp; two</p> three", ["p", { text(t) { all += t.text; if (t.lastInTextNode) t.replace(`<${all.length}>`); else t.remove(); } }]); return [out, all]; },
  async rewriteComments() { return page("<!-- a --><p><!--b--></p>", ["p", { comments(c) { c.text = `${c.text}${c.text}`; } }], [null, { comments(c) { if (c.text === " a ") c.replace("gone"); } }]); },
  async rewriteDocument() { const seen = []; const out = await page("<!DOCTYPE html><p>x</p>", [null, { doctype(d) { seen.push([d.name, d.publicId, d.systemId]); }, text(t) { if (t.text) seen.push(t.text); }, end(e) { e.append("<!-- end -->", { html: true }); } }]); return [out, seen]; },
  async rewriteAsync() { return page("<p>a</p><p>b</p>", ["p", { async element(e) { await scheduler.wait(2); e.setInnerContent(await Promise.resolve("later")); } }]); },
  async rewriteOrder() { const seen = []; await page("<p>a</p>", ["p", { element(e) { seen.push("one"); e.setAttribute("x", "1"); }, text() { seen.push("text"); } }], ["p", { element(e) { seen.push(`two ${e.getAttribute("x")}`); } }]); return seen; },
  async rewriteChunks() { const seen = []; const r = new HTMLRewriter().on("p", { element(e) { seen.push(e.getAttribute("a")); e.append("."); } }).transform(new Response(chunked("<p a='1", "2'>x</", "p><", "p>é".slice(0, 3), "</p>"))); return [await r.text(), seen]; },
  async rewriteSelectors() { const matched = []; const html = "<div class=a><p id=b lang=en-us><span data-x='yes no'>1</span></p><p>2</p></div>"; for (const selector of ["div > p", "p:nth-child(2)", "p:first-child", "[lang|=en]", "[data-x~=no]", "[data-x^=ye]", "[data-x$=no]", "[data-x*=s]", "p:not(#b)", ".a span", "P"]) { let n = 0; await page(html, [selector, { element() { n++; } }]); matched.push([selector, n]); } return matched; },
  async rewriteBadSelectors() { return Promise.all(["p + q", "a::before", "", "[", "p:hover"].map((selector) => failing(() => new HTMLRewriter().on(selector, {})))); },
  async rewriteThrows() { return tried(() => page("<p>x</p>", ["p", { element() { throw new RangeError("mine"); } }])); },
  async rewriteKept() { let kept; await page("<p>x</p>", ["p", { element(e) { kept = e; } }]); return failing(() => kept.tagName); },
  async rewriteHeaders() { const r = new HTMLRewriter().transform(new Response("x", { status: 201, headers: { a: "b", "content-length": "1" } })); return [r.status, r.headers.get("a"), r.headers.get("content-length"), await r.text(), new HTMLRewriter().transform(new Response(null)).body]; },
  async rewriteLarge() { const html = `<p>${"x".repeat(200_000)}</p>`.repeat(3); let n = 0; const out = await page(html, ["p", { element(e) { n++; e.setAttribute("n", `${n}`); } }]); return [out.length, n]; },
  async rewriteStreamed() { return page("<p></p>", ["p", { element(e) { e.setInnerContent(chunked("<b>", "s</b>"), { html: true }); } }]); },
  async rewriteAttributeErrors() { return failing(() => page("<p>", ["p", { element(e) { e.setAttribute("a b", "c"); } }])); },

  async cacheHit() {
    const url = "http://cache.example/a?b=c";
    const before = await caches.default.match(url);
    await caches.default.put(url, new Response("kept", { headers: { "cache-control": "max-age=60", "x-a": "b", etag: '"t"' } }));
    const hit = await caches.default.match(url);
    return [before === undefined, hit.status, hit.headers.get("x-a"), hit.headers.get("cf-cache-status"), await hit.text(), (await caches.default.match("http://cache.example/a?b=d")) === undefined, (await caches.default.match(`${url}#fragment`)) !== undefined, await (await caches.default.match(new Request(url))).text()];
  },
  async cacheConditional() {
    const url = "http://cache.example/conditional";
    await caches.default.put(url, new Response("0123456789", { headers: { "cache-control": "max-age=60", etag: '"t"', "content-type": "text/plain" } }));
    const ask = async (headers) => { const r = await caches.default.match(new Request(url, { headers })); return r && [r.status, r.headers.get("content-range"), await r.text()]; };
    return [await ask({ "if-none-match": '"t"' }), await ask({ "if-none-match": '"u"' }), await ask({ range: "bytes=2-4" }), await ask({ range: "bytes=-2" })];
  },
  async cacheDelete() { const url = "http://cache.example/gone"; await caches.default.put(url, new Response("x", { headers: { "cache-control": "max-age=60" } })); return [await caches.default.delete(url), await caches.default.delete(url), (await caches.default.match(url)) === undefined]; },
  async cacheNamed() { const url = "http://cache.example/named"; const one = await caches.open("one"); await one.put(url, new Response("in one", { headers: { "cache-control": "max-age=60" } })); const other = await caches.open("other"); return [await (await one.match(url)).text(), (await other.match(url)) === undefined, (await caches.default.match(url)) === undefined]; },
  async cacheRefuses() { const put = (request, response) => failing(async () => { await caches.default.put(request, response); return "taken"; }); return [await put(new Request("http://c/", { method: "POST", body: "x" }), new Response("x")), await put("http://c/", new Response("x", { headers: { vary: "*" } })), await put("http://c/", new Response("x", { status: 206, headers: { "content-range": "bytes 0-0/1" } }))]; },
  async cacheUnwanted() {
    const kept = async (headers) => { const url = `http://cache.example/${crypto.randomUUID()}`; await caches.default.put(url, new Response("x", { headers })); return (await caches.default.match(url)) !== undefined; };
    return [await kept({ "cache-control": "no-store" }), await kept({ "cache-control": "private, max-age=9" }), await kept({ "cache-control": "max-age=0" }), await kept({ "set-cookie": "a=b", "cache-control": "max-age=9" }), await kept({ expires: "Thu, 01 Jan 1970 00:00:00 GMT" }), await kept({}), await kept({ "cache-control": "public, s-maxage=9" })];
  },
  async cacheMethods() { const url = "http://cache.example/methods"; await caches.default.put(url, new Response("x", { headers: { "cache-control": "max-age=60" } })); return [(await caches.default.match(new Request(url, { method: "POST" }))) === undefined, (await caches.default.match(new Request(url, { method: "POST" }), { ignoreMethod: true })) !== undefined, await caches.default.delete(new Request(url, { method: "PUT" }))]; },
  async cacheStream() { const url = "http://cache.example/stream"; await caches.default.put(url, new Response(chunked("a", "b", "c"), { headers: { "cache-control": "max-age=60" } })); return (await caches.default.match(url)).text(); },
  async cacheUsed() { const r = new Response("x"); await r.text(); return failing(() => caches.default.put("http://cache.example/used", r)); },
};
