"""The examples of Workers, deployed as their READMEs say and used as their visitors use them, on either engine."""

import json
import pathlib
import re
import subprocess
import time

from flock import Flock
from serving import Visitor, on_workerd, until

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def run(report, binary, home, workerd):
    for engine, more in [("embedded", []), ("workerd", on_workerd(workerd))]:
        flock = Flock(binary, home / f"examples-{engine}", 2, more=more)
        try:
            examples(lambda name: report.case(f"examples, {engine}", name), flock, home / f"site-{engine}")
        finally:
            flock.stop()


def command(*words, **more):
    """What a README's first line runs."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def site(folder):
    """A folder of 400 files."""
    for n in range(100):
        pages = folder / "docs" / f"part {n % 7}"
        pages.mkdir(parents=True, exist_ok=True)
        (pages / f"page-{n}.html").write_text(f"<h1>Page {n}</h1>")
        (pages / f"style-{n}.css").write_text(f"h1{{margin:{n}px}}")
        (pages / f"code-{n}.js").write_text(f"let n = {n};")
        (pages / f"picture-{n}.png").write_bytes(bytes([n]) * 1000)
    (folder / "docs" / "index.html").write_text("<h1>Docs</h1>")
    return folder


def examples(case, flock, folder):
    here, there = flock.nodes
    visitor, elsewhere = Visitor(here), Visitor(there)

    def deploy(name):
        said = command(EXAMPLES / "deploy", EXAMPLES / name, here.data)
        assert said.strip() == f"deployed: http://{name}.workers.localhost:{visitor.port}/", said
        for at in (visitor, elsewhere):
            until(lambda: not at.ask(name)[2].startswith(b"No script answers"), 30)

    with case("every example has a README whose first line runs it"):
        for readme in EXAMPLES.glob("*/README.md"):
            first = readme.read_text().split("\n", 1)[0]
            words = re.search(r"`(examples/\S+)( \S+)?`", first)
            assert words and (EXAMPLES.parent / words[1]).stat().st_mode & 0o100, first
    with case("babbage: a card is computed once, and kept"):
        command(EXAMPLES / "babbage" / "run", here.data)
        until(lambda: visitor.ask("babbage", "/?int=2303")[0] == 200, 30)
        status, headers, card = visitor.ask("babbage", "/?int=2303")
        assert headers["content-type"] == "image/svg+xml" and headers["x-card"] == "store" and b"3622939" in card, headers
    with case("cart: written at one PoP, read at another with a bookmark"):
        deploy("cart")
        assert b"<h1>Cart" in visitor.ask("cart")[2]
        for count in range(1, 20):
            _, headers, body = visitor.ask("cart", "/ann/apple", "PUT", str(count))
            assert json.loads(body) == {"pop": here.pop, "items": {"apple": count}}, body
            seen = elsewhere.ask("cart", "/ann", headers={"starling-bookmark": headers["starling-bookmark"]})[2]
            assert json.loads(seen) == {"pop": there.pop, "items": {"apple": count}}, seen
        assert visitor.ask("cart", "/ann/apple", "PUT", "many")[0] == 400
        assert json.loads(visitor.ask("cart", "/ann/apple", "DELETE")[2])["items"] == {}
    with case("ab-test: a visitor stays in a group, and one write moves the others everywhere"):
        deploy("ab-test")
        assert visitor.ask("ab-test", "/headline", "PUT", "1")[0] == 200
        until(lambda: all(elsewhere.ask("ab-test")[1]["x-group"] == "b" for _ in range(20)))
        _, headers, _ = elsewhere.ask("ab-test", headers={"Cookie": "x=1; group=a"})
        assert headers["x-group"] == "a" and "set-cookie" not in headers
    with case("auth: logged in at one PoP, known at the other, and logged out everywhere"):
        deploy("auth")
        ann = json.dumps({"name": "ann", "password": "correct horse"})
        assert visitor.ask("auth", "/register", "POST", ann)[0] == 201
        assert visitor.ask("auth", "/register", "POST", ann)[0] == 409
        assert visitor.ask("auth", "/login", "POST", json.dumps({"name": "ann", "password": "wrong"}))[0] == 401
        token = json.loads(visitor.ask("auth", "/login", "POST", ann)[2])["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        until(lambda: elsewhere.ask("auth", headers=bearer)[0] == 200)
        assert json.loads(elsewhere.ask("auth", headers=bearer)[2]) == {"name": "ann", "pop": there.pop}
        assert elsewhere.ask("auth")[0] == 401
        begun = time.monotonic()
        assert visitor.ask("auth", "/logout", "POST", headers=bearer)[0] == 200
        until(lambda: elsewhere.ask("auth", headers=bearer)[0] == 401)
        assert time.monotonic() - begun < 2, "within the convergence lag"
        assert b"<form" in visitor.ask("auth", headers={"Accept": "text/html"})[2]
    with case("url-shortener: made at one PoP, followed at another"):
        deploy("url-shortener")
        status, _, body = visitor.ask("url-shortener", "/", "POST", "https://example.com/x?y")
        slug = body.decode().strip().rsplit("/", 1)[1]
        until(lambda: elsewhere.ask("url-shortener", f"/{slug}")[0] == 302)
        assert elsewhere.ask("url-shortener", f"/{slug}")[1]["location"] == "https://example.com/x?y"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert visitor.ask("url-shortener", "/", "POST", "url=https%3A%2F%2Fexample.com", form)[0] == 201
        assert visitor.ask("url-shortener", "/nosuchx")[0] == 404
        assert visitor.ask("url-shortener", "/", "POST", "javascript:alert(1)")[0] == 400
    with case("page-assembly: a fragment that changes is on the page, at the other PoP too"):
        deploy("page-assembly")
        assert b"No fragment called news yet" in elsewhere.ask("page-assembly")[2]
        assert visitor.ask("page-assembly", "/fragment/news", "PUT", "<h2>Bridge open</h2>")[0] == 200
        filled = b'<section data-fragment="news"><h2>Bridge open</h2></section>'
        until(lambda: filled in elsewhere.ask("page-assembly")[2])
        page = elsewhere.ask("page-assembly")[2]
        assert f"<span data-pop>{there.pop}</span>".encode() in page or f">{there.pop}</span>".encode() in page, page
        assert visitor.ask("page-assembly", "/template", "PUT", "<p data-fragment=news></p>")[0] == 200
        until(lambda: elsewhere.ask("page-assembly")[2] == b"<p data-fragment=news><h2>Bridge open</h2></p>")
    with case("originless-site: 401 files by one command; types, ETags, ranges, a page for what is missing"):
        site(folder)
        said = command(EXAMPLES / "originless-site" / "run", folder, env={"PATH": "/usr/bin:/bin", "DATA": str(here.data)})
        assert said.startswith("401 files, 401 of them new; "), said
        until(lambda: elsewhere.ask("originless-site", "/docs/")[0] == 200, 30)
        for at in (visitor, elsewhere):
            ask = lambda path, **headers: at.ask("originless-site", path, headers=headers)
            assert ask("/")[0] == 302 and ask("/")[1]["location"].endswith("/docs/"), ask("/")
            for n in range(0, 100, 9):
                pages = f"/docs/part%20{n % 7}"
                for path, media, body in [
                    (f"{pages}/page-{n}", "text/html; charset=utf-8", f"<h1>Page {n}</h1>".encode()),
                    (f"{pages}/style-{n}.css", "text/css; charset=utf-8", f"h1{{margin:{n}px}}".encode()),
                    (f"{pages}/code-{n}.js", "text/javascript; charset=utf-8", f"let n = {n};".encode()),
                    (f"{pages}/picture-{n}.png", "image/png", bytes([n]) * 1000),
                ]:
                    until(lambda: ask(path)[0] == 200)
                    _, headers, got = ask(path)
                    assert (headers["content-type"], got) == (media, body), (path, headers)
                    assert ask(path, **{"If-None-Match": headers["etag"]})[0] == 304
            status, headers, got = ask("/docs/part%203/picture-3.png", Range="bytes=990-")
            assert (status, headers["content-range"], got) == (206, "bytes 990-999/1000", b"\3" * 10), headers
            assert ask("/docs/part%203/picture-3.png", Range="bytes=1000-")[0] == 416
            status, _, got = ask("/nowhere")
            assert status == 404 and b"There is no such page" in got, got
    with case("the front's root lists what is deployed"):
        for at in (visitor, elsewhere):
            listed = at.ask(None, host=f"localhost:{at.port}", headers={"Accept": "text/html"})[2].decode()
            for name in ["babbage", "cart", "ab-test", "auth", "url-shortener", "page-assembly", "originless-site"]:
                assert f'<a href="http://{name}.workers.localhost:{at.port}/">' in listed, name
