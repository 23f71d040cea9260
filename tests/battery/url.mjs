// URLs, headers, and patterns of URLs.

const failing = (work) => { try { return work(); } catch (error) { return error.name; } };

export const cases = {
  urlSetters() {
    const set = (href, name, value) => { const u = new URL(href); u[name] = value; return u.href; };
    return [set("http://a/b", "protocol", "https"), set("http://a/b", "protocol", "foo"), set("http://a/b", "host", "c:81"), set("http://a:80/b", "port", "90"), set("http://a/b", "port", "x"), set("http://a:90/b", "port", ""), set("http://a/b", "pathname", "c d/é"), set("http://a/b?c", "search", ""), set("http://a/b?c", "search", "?d=é"), set("http://a/b#c", "hash", ""), set("http://a/b", "hash", "d e"), set("http://a/b", "username", "u:"), set("http://u@a/b", "password", "p@"), set("mailto:a@b", "host", "c"), set("http://a/b", "hostname", ""), set("http://a/", "host", "[::1]")];
  },
  urlStatics() { return [URL.canParse("x"), URL.canParse("x", "http://a"), URL.parse("x"), URL.parse("x", "http://a/b/c")?.href, JSON.stringify({ u: new URL("http://a") }), `${new URL("http://a")}`, Object.prototype.toString.call(new URL("http://a"))]; },
  urlHosts() { const host = (text) => failing(() => new URL(`http://${text}/`).host); return ["EXAMPLE.com", "1.2.3", "0x10", "4294967296", "256.1.1.1", "[1::2:0:0:3]", "[::ffff:1.2.3.4]", "ex%41mple.com", "a b", "faß.de", "xn--a", "日本.jp", "a..b", "-a-.b", "a_b", "a%00b", "localhost.", "１.2.3.4"].map(host); },
  urlSpecial() { return ["http:a", "http:/a", "http:\\\\a\\b", "ws://a:80/", "wss://a:443/", "ftp://a:21/", "javascript:alert(1)", "blob:http://a/b", "file:c:/d", "about:blank", "http://a/%", "http://a/\u{10ffff}", "http://a/?q='\"<>`#'\"<>`", "  http://a/ \n", "ht\ntp://a/", "http://u:p@/", "http://a:/", "foo://a:80/../b", "foo:///a/./b"].map((text) => failing(() => { const u = new URL(text); return [u.href, u.origin]; })); },
  paramsInits() { return [`${new URLSearchParams({ a: "1", b: "x y" })}`, `${new URLSearchParams([["a", "1"], ["a", "2"]])}`, `${new URLSearchParams(new URLSearchParams("a=b"))}`, `${new URLSearchParams("")}`, `${new URLSearchParams("?")}`, `${new URLSearchParams("a&b=&=c&&d=e=f")}`, failing(() => new URLSearchParams([["a"]])), `${new URLSearchParams("%zz=%e2%82&x=%ff")}`, `${new URLSearchParams("a=*-._~!'()")}`]; },
  paramsMethods() { const p = new URLSearchParams("b=1&a=2&b=3"); const seen = []; p.forEach((value, name) => seen.push(name + value)); p.delete("b", "3"); return [seen, p.get("b"), p.has("b", "3"), [...p.keys()], [...p.values()], [...p.entries()], p.size]; },
  paramsSort() { const p = new URLSearchParams("z=1&\ufffd=2&\ud83d\ude00=3&a=4&a=3"); p.sort(); return [...p]; },
  paramsBound() { const u = new URL("http://a/?x=1"); const p = u.searchParams; p.append("y", "2 3"); u.search = "?z=4"; p.delete("z"); return [u.href, u.search, p === u.searchParams, p.size]; },

  headerInits() { return [[...new Headers({ A: "1", b: "2" })], [...new Headers([["a", "1"], ["A", "2"]])], [...new Headers(new Headers({ x: "y" }))], failing(() => new Headers([["a"]])), failing(() => new Headers("a")), [...new Headers(undefined)]]; },
  headerValues() { const h = new Headers(); const set = (value) => failing(() => { h.set("x", value); return h.get("x"); }); return [set("  a  "), set("a\tb"), set(""), set(5), set(null), set("a\r\nb"), set("a\0b")]; },
  headerNames() { return ["a", "A-b", "a_b", "a b", "", "a:", "é", "a\n", "x!#$%&'*+-.^_`|~"].map((name) => failing(() => { new Headers().set(name, "1"); return "ok"; })); },
  headerOrder() { const h = new Headers([["z", "1"], ["set-cookie", "b"], ["a", "2"], ["Set-Cookie", "a"]]); h.append("a", "3"); return [[...h], h.get("set-cookie"), h.getSetCookie(), [...h.keys()], [...h.values()]]; },
  headerChanges() { const h = new Headers({ a: "1" }); const seen = []; h.forEach((value, name) => seen.push([name, value])); h.delete("A"); h.delete("none"); return [seen, h.has("a"), h.get("a"), [...h]]; },

  patternPaths() { const p = new URLPattern({ pathname: "/books/:id(\\d+)/:part?" }); return [p.test("http://a/books/12"), p.test("http://a/books/x"), p.exec("http://a/books/12/cover").pathname, p.exec({ pathname: "/books/7" }).pathname.groups, p.exec("nonsense"), p.pathname, p.hostname]; },
  patternTexts() { const p = new URLPattern("https://:sub.example.com/*?q=:q#:h"); const found = p.exec("https://www.example.com/a/b?q=x#y"); return [found?.hostname.groups, found?.pathname.groups, found?.search.groups, found?.hash.groups, found?.inputs, p.test("http://www.example.com/a?q=x#y")]; },
  patternBase() { const p = new URLPattern("/a/*", "https://example.com"); return [p.protocol, p.hostname, p.pathname, p.test("/a/b", "https://example.com"), p.test("/a/b"), p.test({ pathname: "/a/x", baseURL: "https://example.com" })]; },
  patternGroups() { const p = new URLPattern({ pathname: "/{a-}?:name.:ext/{*.png}" }); return [p.exec({ pathname: "/a-file.txt/x.png" })?.pathname.groups, p.exec({ pathname: "/file.txt/.png" })?.pathname.groups]; },
  patternCase() { return [new URLPattern({ pathname: "/ABC" }, { ignoreCase: true }).test({ pathname: "/abc" }), new URLPattern({ pathname: "/ABC" }).test({ pathname: "/abc" })]; },
  patternRegExps() { return [new URLPattern({ pathname: "/(\\d+)" }).hasRegExpGroups, new URLPattern({ pathname: "/:a" }).hasRegExpGroups]; },
  patternBad() { return [failing(() => new URLPattern("/relative")), failing(() => new URLPattern({ pathname: "/(" })), failing(() => new URLPattern({ pathname: "/:a/:a" })), failing(() => new URLPattern({ port: "x" })), failing(() => new URLPattern({}, "http://a"))]; },
  patternEmpty() { const p = new URLPattern(); return [p.test("http://any.example/x?y#z"), p.protocol, p.pathname, p.search]; },
};
